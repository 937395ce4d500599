"""Stochastic rounding of parameters with fewer bits than float32."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, BFloat16, Float32, Int, Key

_STREAM = 0  # of the random bits: fold_in(fold_in(key(_STREAM), update), leaf)


def added(params: Any, updates: Any, number: Int[Array, ""]) -> Any:
    """`params + updates`, in the dtypes of `params`.

    Bfloat16 has 8 significant bits, so an update of less than about 1/500 of its parameter would always be lost to
    rounding. Sums are therefore rounded stochastically, up or down with the probability that keeps the mean exact.

    Source: Gupta et al. 2015 (arXiv:1502.02551), section 3.1; for bfloat16 parameters without a float32 copy of them
    Zamirai et al. 2020 (arXiv:2010.06192).

    Args:
      params: float32 or bfloat16 arrays.
      updates: of the same shapes, float32.
      number: of the update, from which its random bits are derived.
    """
    key = jax.random.fold_in(jax.random.key(_STREAM), number)
    leaves, tree = jax.tree.flatten(params)
    new = []
    for i, (x, update) in enumerate(zip(leaves, jax.tree.leaves(updates), strict=True)):
        total = x.astype(jnp.float32) + update.astype(jnp.float32)
        rounds = x.dtype == jnp.bfloat16
        new.append(randomly_rounded(jax.random.fold_in(key, i), total) if rounds else total.astype(x.dtype))
    return jax.tree.unflatten(tree, new)


def randomly_rounded(key: Key[Array, ""], x: Float32[Array, "*shape"]) -> BFloat16[Array, "*shape"]:
    """`x` in bfloat16: one of its two neighbours, with a probability linear in the distance."""
    bits = jax.lax.bitcast_convert_type(x, jnp.uint32) + jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    return jax.lax.bitcast_convert_type(bits & jnp.uint32(0xFFFF0000), jnp.float32).astype(jnp.bfloat16)
