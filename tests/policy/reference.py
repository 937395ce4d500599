"""The decoder once more, in float64 NumPy, one sequence at a time, and configs and parameters to compare with."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from rlvr_jax import policy
from rlvr_jax.policy import PolicyConfig

TINY = PolicyConfig(
    vocab_size=19, num_layers=2, width=16, num_heads=4, num_kv_heads=2, head_dim=6, mlp_width=20, init_scale=0.3
)


@functools.cache
def random_params(config: PolicyConfig, seed: int = 0):
    """Parameters in which no norm is 1 and no bias is 0."""
    rng = np.random.default_rng(seed)

    def random(path, leaf):
        around = 1.0 if "norm" in jax.tree_util.keystr(path) else 0.0
        return jnp.asarray(around + 0.3 * rng.normal(size=leaf.shape), leaf.dtype)

    shapes = jax.eval_shape(lambda: policy.init(config, jax.random.key(0)))
    return jax.tree.map_with_path(random, shapes)


def in_float64(params):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), params)


def _norm(x, scale, eps):
    return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + eps) * scale


def _rotate(x, position, theta):
    half = x.shape[-1] // 2
    turn = np.exp(1j * position * theta ** (-np.arange(half) / half))
    turned = (x[..., :half] + 1j * x[..., half:]) * turn
    return np.concatenate([turned.real, turned.imag], axis=-1)


def hidden(config: PolicyConfig, params, tokens) -> np.ndarray:
    """Final hidden states `[time, width]` of one sequence."""
    params = in_float64(params)
    x = params["embed"][np.asarray(tokens)]
    for i in range(config.num_layers):
        layer = jax.tree.map(lambda leaf, i=i: leaf[i], params["layers"])
        weights = layer["attention"]
        y = _norm(x, layer["attention_norm"], config.norm_eps)
        query, key, value = (np.tensordot(y, weights[name], 1) for name in "qkv")
        if config.qkv_bias:
            query, key = query + weights["q_bias"], key + weights["k_bias"]
            value = value + weights["v_bias"]
        if config.qk_norm:
            query = _norm(query, weights["q_norm"], config.norm_eps)
            key = _norm(key, weights["k_norm"], config.norm_eps)
        query = np.stack([_rotate(q, t, config.rope_theta) for t, q in enumerate(query)])
        key = np.stack([_rotate(k, t, config.rope_theta) for t, k in enumerate(key)])
        read = np.zeros_like(query)
        for t in range(len(tokens)):
            for head in range(config.num_heads):
                group = head * config.num_kv_heads // config.num_heads
                scores = key[: t + 1, group] @ query[t, head] / np.sqrt(config.head_dim)
                attended = np.exp(scores - scores.max())
                read[t, head] = attended @ value[: t + 1, group] / attended.sum()
        x = x + np.tensordot(read, weights["out"], 2)
        y = _norm(x, layer["mlp_norm"], config.norm_eps)
        gate = y @ layer["mlp"]["gate"]
        x = x + (gate / (1 + np.exp(-gate)) * (y @ layer["mlp"]["up"])) @ layer["mlp"]["down"]
    return _norm(x, params["norm"], config.norm_eps)


def logits(config: PolicyConfig, params, tokens) -> np.ndarray:
    """Logits `[time, vocab]` of one sequence."""
    table = params["embed"] if config.tie_embeddings else params["head"]
    return hidden(config, params, tokens) @ np.asarray(table, np.float64).T


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def left_padded(sequences, length: int, pad: int = 0):
    """Tokens, positions and segment ids of a batch of sequences, padded on the left."""
    tokens, positions, segments = (np.zeros((len(sequences), length), np.int32) for _ in range(3))
    tokens[:] = pad
    for row, sequence in enumerate(sequences):
        start = length - len(sequence)
        tokens[row, start:], positions[row, start:], segments[row, start:] = sequence, np.arange(len(sequence)), 1
    return jnp.asarray(tokens), jnp.asarray(positions), jnp.asarray(segments)


def random_sequences(lengths, vocab: int = TINY.vocab_size, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(vocab, size=length).astype(np.int32) for length in lengths]
