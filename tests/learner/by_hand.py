"""A tiny policy in NumPy, one sequence at a time, with neither padding nor masks; and ragged sequences for it."""

import math
from functools import partial

import jax
import numpy as np

from rlvr_jax import policy
from rlvr_jax.policy import PolicyConfig

SHAPE = PolicyConfig(
    vocab_size=7,
    num_layers=1,
    width=4,
    num_heads=2,
    num_kv_heads=1,
    head_dim=4,
    mlp_width=5,
    qk_norm="head",
    qkv_bias=True,
    init_scale=0.6,
)
ROWS, PROMPT, RESPONSE = 8, 3, 5


def random_params():
    """With biases and norm scales that are not 0 and 1, so that their effect shows."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda x: jax.device_put(x + (rng.normal(size=x.shape) * 0.1).astype(x.dtype)),
        jax.device_get(jax.jit(partial(policy.init, SHAPE))(jax.random.key(0))),
    )


def sequences() -> tuple[list[list[int]], list[list[int]]]:
    """Ragged; the numbers of actions in any two halves or quarters of the rows differ."""
    rng = np.random.default_rng(1)
    prompts = [rng.integers(0, 7, length).tolist() for length in (1, 3, 2, 3, 1, 2, 3, 2)]
    return prompts, [rng.integers(0, 7, length).tolist() for length in (5, 1, 4, 0, 3, 5, 2, 1)]


def hidden_by_hand(params, tokens):
    """Float64 hidden states [time, width] of one sequence, from float64 parameters."""

    def norm(x, scale):
        return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + SHAPE.norm_eps) * scale

    def rotate(x):  # [time, heads, dim], as complex numbers
        half = SHAPE.head_dim // 2
        turn = np.exp(1j * np.arange(len(x))[:, None, None] * SHAPE.rope_theta ** (-np.arange(half) / half))
        turned = (x[..., :half] + 1j * x[..., half:]) * turn
        return np.concatenate([turned.real, turned.imag], axis=-1)

    x, time = params["embed"][tokens], len(tokens)
    for i in range(SHAPE.num_layers):
        layer = jax.tree.map(lambda leaf, i=i: leaf[i], params["layers"])
        a = layer["attention"]
        y = norm(x, layer["attention_norm"])
        q, k, v = (np.einsum("tw,whd->thd", y, a[name]) + a[f"{name}_bias"] for name in "qkv")
        q, k = rotate(norm(q, a["q_norm"])), rotate(norm(k, a["k_norm"]))
        heads = []
        for head in range(SHAPE.num_heads):
            group = head * SHAPE.num_kv_heads // SHAPE.num_heads
            scores = q[:, head] @ k[:, group].T / math.sqrt(SHAPE.head_dim)
            scores[np.triu_indices(time, 1)] = -np.inf
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            heads.append(weights / weights.sum(axis=1, keepdims=True) @ v[:, group])
        x = x + np.einsum("thd,hdw->tw", np.stack(heads, axis=1), a["out"])
        y = norm(x, layer["mlp_norm"])
        gate = y @ layer["mlp"]["gate"]
        x = x + (gate / (1 + np.exp(-gate)) * (y @ layer["mlp"]["up"])) @ layer["mlp"]["down"]
    return norm(x, params["norm"])


def logits_by_hand(params, tokens):
    """Float64 logits [time, vocab] of one sequence."""
    return hidden_by_hand(params, tokens) @ params["embed"].T
