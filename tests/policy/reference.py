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

_ACTIVATIONS = {
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
}


@functools.cache
def random_params(config: PolicyConfig, seed: int = 0):
    """Parameters in which no norm is 1 and no bias is 0."""
    rng = np.random.default_rng(seed)

    def random(path, leaf):
        around = 1.0 if "norm" in jax.tree_util.keystr(path) else 0.0
        return jax.device_put((around + 0.3 * rng.normal(size=leaf.shape)).astype(leaf.dtype))

    shapes = jax.eval_shape(lambda: policy.init(config, jax.random.key(0)))
    return jax.tree.map_with_path(random, shapes)


def in_float64(params):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), params)


def _norm(x, scale, eps):
    """Over the last axes, those of the scale."""
    axes = tuple(range(-scale.ndim, 0))
    return x / np.sqrt(np.mean(x**2, axis=axes, keepdims=True) + eps) * scale


def frequencies(config: PolicyConfig) -> tuple[list[float], float]:
    """Scaled frequencies, one by one, and what the turned vectors are multiplied by."""
    scaling, half = config.rope_scaling, (config.rotary_dim or config.head_dim) // 2
    plain = [config.rope_theta ** (-i / half) for i in range(half)]
    if scaling.type == "none":
        return plain, 1.0
    if scaling.type == "linear":
        return [f / scaling.factor for f in plain], 1.0
    if scaling.type == "llama3":
        scaled = []
        for f in plain:
            wavelength = 2 * np.pi / f
            if wavelength > scaling.original_length / scaling.low_freq_factor:
                scaled.append(f / scaling.factor)
            elif wavelength < scaling.original_length / scaling.high_freq_factor:
                scaled.append(f)
            else:
                smooth = scaling.original_length / wavelength - scaling.low_freq_factor
                smooth /= scaling.high_freq_factor - scaling.low_freq_factor
                scaled.append((1 - smooth) * f / scaling.factor + smooth * f)
        return scaled, 1.0
    if scaling.type == "longrope":
        divisors = scaling.long_factors if config.max_length > scaling.original_length else scaling.short_factors
        temperature = scaling.attention_factor or np.sqrt(1 + np.log(scaling.factor) / np.log(scaling.original_length))
        return [f / divisor for f, divisor in zip(plain, divisors, strict=True)], temperature
    # YaRN. The i-th frequency makes L f_i / 2 pi turns in the original length L; solved for i.
    index = lambda turns: half * np.log(scaling.original_length / (2 * np.pi * turns)) / np.log(config.rope_theta)  # noqa: E731
    low, high = index(scaling.beta_fast), index(scaling.beta_slow)
    if scaling.truncate:
        low, high = np.floor(low), np.ceil(high)
    low, high = max(low, 0), min(high, 2 * half - 1)
    high += 1e-3 * (low == high)
    scaled = []
    for i, f in enumerate(plain):
        ramp = min(max((i - low) / (high - low), 0), 1)
        scaled.append((1 - ramp) * f + ramp * f / scaling.factor)
    return scaled, scaling.attention_factor or 0.1 * np.log(scaling.factor) + 1


def _rotate(config: PolicyConfig, kind: str, x, position):
    if kind == "none":
        return x
    turned = config.rotary_dim or config.head_dim
    x, rest, half = x[..., :turned], x[..., turned:], turned // 2
    plain = [(config.rope_theta_unscaled or config.rope_theta) ** (-i / half) for i in range(half)], 1.0
    turns, factor = plain if kind == "unscaled" else frequencies(config)
    z = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * position * np.array(turns)) * factor
    return np.concatenate([z.real, z.imag, rest], axis=-1)


def hidden(config: PolicyConfig, params, tokens) -> np.ndarray:
    """Final hidden states `[time, width]` of one sequence."""
    params = in_float64(params)
    x = params["embed"][np.asarray(tokens)] * (np.sqrt(config.width) if config.scale_embeddings else 1)
    normed = lambda x, scale: _norm(x, config.norm_offset + scale, config.norm_eps)  # noqa: E731
    before, after = config.norm_placement != "post", config.norm_placement != "pre"
    output_norm = "{}_output_norm" if before else "{}_norm"
    for i in range(config.num_layers):
        layer = jax.tree.map(lambda leaf, i=i: leaf[i], params["layers"])
        weights = layer["attention"]
        kind = config.rope_pattern[i % len(config.rope_pattern)]
        window = config.window_pattern[i % len(config.window_pattern)]
        y = normed(x, layer["attention_norm"]) if before else x
        query, key, value = (np.tensordot(y, weights[name], 1) for name in "qkv")
        if config.qkv_bias:
            query, key = query + weights["q_bias"], key + weights["k_bias"]
            value = value + weights["v_bias"]
        if config.qk_norm != "none":
            query, key = normed(query, weights["q_norm"]), normed(key, weights["k_norm"])
        query = np.stack([_rotate(config, kind, q, t) for t, q in enumerate(query)])
        key = np.stack([_rotate(config, kind, k, t) for t, k in enumerate(key)])
        read = np.zeros_like(query)
        for t in range(len(tokens)):
            seen = slice(max(0, t + 1 - window) if window else 0, t + 1)
            for head in range(config.num_heads):
                group = head * config.num_kv_heads // config.num_heads
                scores = key[seen, group] @ query[t, head] / np.sqrt(config.score_dim or config.head_dim)
                attended = np.exp(scores - scores.max())
                read[t, head] = attended @ value[seen, group] / attended.sum()
        y = np.tensordot(read, weights["out"], 2)
        x = x + (normed(y, layer[output_norm.format("attention")]) if after else y)
        y = normed(x, layer["mlp_norm"]) if before else x
        gate = _ACTIVATIONS[config.activation](y @ layer["mlp"]["gate"])
        y = (gate * (y @ layer["mlp"]["up"])) @ layer["mlp"]["down"]
        x = x + (normed(y, layer[output_norm.format("mlp")]) if after else y)
    return normed(x, params["norm"])


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
