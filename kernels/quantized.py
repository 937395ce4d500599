"""Keys and values in 8 bits: symmetric, with one scale for each vector, that is for each token and head.

Keys of real models have a few dimensions that are many times larger than the others, and take most of the 8 bits. So
queries and keys are rotated first, which leaves their products as they are and spreads the large dimensions over all.

Source: Ashkboos et al. 2024, QuaRot (arXiv:2404.00456).
"""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int8


def rotated(x: Float[Array, "*n dim"]) -> Float[Array, "*n dim"]:
    """The vectors times a Hadamard matrix, in blocks of the largest power of 2 that divides their size."""
    product = jnp.matmul(x.astype(jnp.float32), _rotation(x.shape[-1]), precision=jax.lax.Precision.HIGHEST)
    return product.astype(x.dtype)


@cache
def _rotation(dim: int) -> np.ndarray:
    """An orthogonal matrix; Sylvester's construction."""
    block = np.ones((1, 1))
    while dim % (2 * len(block)) == 0:
        block = np.kron([[1, 1], [1, -1]], block)
    return np.float32(np.kron(np.eye(dim // len(block)), block) / len(block) ** 0.5)


def quantized(x: Float[Array, "*n dim"]) -> tuple[Int8[Array, "*n dim"], Float[Array, "*n"]]:
    """The vectors as integers from -127 to 127, and their scales: x is about the integers times the scale."""
    x = x.astype(jnp.float32)
    scales = jnp.max(jnp.abs(x), axis=-1) / 127
    return jnp.round(x / jnp.where(scales > 0, scales, 1.0)[..., None]).astype(jnp.int8), scales


def rounded(x: Float[Array, "*n dim"]) -> Float[Array, "*n dim"]:
    """The vectors that the 8 bits stand for."""
    numbers, scales = quantized(x)
    return (numbers.astype(jnp.float32) * scales[..., None]).astype(x.dtype)


def dequantized(part: tuple[Any, ...], dtype: DTypeLike) -> tuple[jax.Array, jax.Array, jax.Array]:
    """A KV segment (keys, values, mask, scales of keys and of values) without scales; one without any is unchanged."""
    keys, values, mask, *scales = part
    if not scales:
        return keys, values, mask
    of_keys, of_values = scales
    if keys.ndim == 5:  # in blocks of columns, see `attention.KEY_BLOCK`
        of_keys = of_keys.reshape(*keys.shape[:3], keys.shape[4])
    keys = (keys.astype(jnp.float32) * of_keys[..., None, :]).astype(dtype)
    return keys, (values.astype(jnp.float32) * of_values[..., None]).astype(dtype), mask
