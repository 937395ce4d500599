"""Rotary position embeddings, and their rescaling for longer windows."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from rlvr_jax.policy.config import PolicyConfig, RopeScaling


def rotary(config: PolicyConfig, kind: str, positions: Int[Array, "batch time"]) -> tuple[Array, Array]:
    """Cosines and sines `[batch, time, 1, turned / 2]` for layers of one kind, an entry of `config.rope_pattern`.

    Su et al. 2021 (arXiv:2104.09864), eq. 34.
    """
    dim, scaling = config.rotary_dim or config.head_dim, config.rope_scaling
    if kind == "none":
        ones = jnp.ones((*positions.shape, 1, dim // 2), jnp.float32)
        return ones, jnp.zeros_like(ones)
    theta = config.rope_theta_unscaled if kind == "unscaled" and config.rope_theta_unscaled else config.rope_theta
    frequencies = theta ** (-jnp.arange(0, dim, 2, dtype=jnp.float32) / dim)
    factor = 1.0
    if kind == "scaled" and scaling.type != "none":
        frequencies = frequencies * jnp.asarray(frequency_factors(scaling, theta, dim, config.max_length), jnp.float32)
        factor = _attention_factor(scaling)
    angles = positions[:, :, None, None].astype(jnp.float32) * frequencies
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    return (cos, sin) if factor == 1 else (cos * factor, sin * factor)


def rotate(x: Float[Array, "batch time heads dim"], cos: Array, sin: Array) -> Float[Array, "batch time heads dim"]:
    """Rotates each pair (x[i], x[i + turned / 2]) of the first `turned` dimensions, as Llama-family checkpoints do."""
    turned = 2 * cos.shape[-1]
    if turned < x.shape[-1]:
        return jnp.concatenate([rotate(x[..., :turned], cos, sin), x[..., turned:]], axis=-1)
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


def frequency_factors(scaling: RopeScaling, theta: float, dim: int, length: int = 0) -> np.ndarray:
    """The multiplier of each of the `dim / 2` frequencies, in float64, of a policy of this `max_length`.

    Sources: "linear" is position interpolation, Chen et al. 2023 (arXiv:2306.15595), eq. 4; "yarn" is NTK-by-parts
    interpolation, Peng et al. 2023 (arXiv:2309.00071), section 3.2; "llama3" is `apply_scaling` of Meta's code for
    Llama 3.1 (github.com/meta-llama/llama-models); "longrope" is Ding et al. 2024 (arXiv:2402.13753), eq. 2.
    """
    low = 1 / scaling.factor
    if scaling.type == "none":
        return np.ones(dim // 2)
    if scaling.type == "linear":
        return np.full(dim // 2, low)
    if scaling.type == "longrope":
        return 1 / np.asarray(scaling.long_factors if length > scaling.original_length else scaling.short_factors)
    if scaling.type == "llama3":
        turns = scaling.original_length * theta ** (-np.arange(0, dim, 2) / dim) / (2 * math.pi)
        kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    else:
        first, last = (_index_of(scaling, turns, theta, dim) for turns in (scaling.beta_fast, scaling.beta_slow))
        if scaling.truncate:
            first, last = math.floor(first), math.ceil(last)
        # The published code bounds the last index by the width, not by the number of frequencies.
        first, last = max(first, 0), min(last, dim - 1)
        kept = 1 - (np.arange(dim // 2) - first) / (last - first if last != first else 1e-3)
    kept = np.clip(kept, 0, 1)
    return kept + (1 - kept) * low


def _index_of(scaling: RopeScaling, turns: float, theta: float, dim: int) -> float:
    """The (fractional) index of the frequency with this number of turns within the original length."""
    return dim * math.log(scaling.original_length / (turns * 2 * math.pi)) / (2 * math.log(theta))


def _attention_factor(scaling: RopeScaling) -> float:
    """The temperature on the attention scores, applied to queries and keys alike; YaRN's is eq. 22 of its paper.

    LongRoPE's is in the code of its authors (github.com/microsoft/LongRoPE).
    """
    if scaling.type == "yarn":
        return scaling.attention_factor or 0.1 * math.log(scaling.factor) + 1
    if scaling.type == "longrope":
        return scaling.attention_factor or math.sqrt(1 + math.log(scaling.factor) / math.log(scaling.original_length))
    return 1.0
