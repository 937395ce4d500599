"""A check that a kernel's blocks fit a TPU core's vector memory, before the compiler fails on them."""

import jax.numpy as jnp
from jax.experimental.pallas import tpu as pltpu

from rlvr_jax.kernels.tiles import LANES, Tiles

MIB = 2**20
# Vector memory of a core, for the message; JAX knows the target chip.
CHIPS = "v4 16, v5e 128, v5p 64, v6e 128, tpu7x 64 MiB"
SCOPED = 16 * MIB  # the compiler's default for a kernel


def forward_bytes(tiles: Tiles, dtype: jnp.dtype) -> int:
    """Estimate for the forward kernel: double-buffered blocks, scratch, and the scores at two stages (three where
    float32 products are split)."""
    stages = 2 if jnp.dtype(dtype).itemsize == 2 else 3
    return _blocks(tiles, dtype, queries=2, keys=2) + _scratch(tiles) + stages * _scores(tiles)


def backward_bytes(tiles: Tiles, dtype: jnp.dtype) -> int:
    """Estimate for the larger of the two backward kernels, which hold the scores at three stages."""
    query_gradient = _blocks(tiles, dtype, queries=3, keys=2) + _scratch(tiles)
    key_gradients = _blocks(tiles, dtype, queries=2, keys=4) + 2 * tiles.block_k * (tiles.dim + LANES) * 4
    return max(query_gradient, key_gradients) + 3 * _scores(tiles)


def _blocks(tiles: Tiles, dtype: jnp.dtype, queries: int, keys: int) -> int:
    lanes = -(-tiles.dim // LANES) * LANES
    vectors = (queries * tiles.rows + keys * tiles.block_k) * lanes * jnp.dtype(dtype).itemsize
    ids = 8 * (tiles.block_q + tiles.block_k) * 4
    statistics = 2 * max(tiles.group, 8) * tiles.block_q * 4
    return 2 * (vectors + ids + statistics)


def _scratch(tiles: Tiles) -> int:
    return (tiles.rows * (2 * LANES + tiles.dim) + 3 * tiles.block_q * LANES) * 4


def _scores(tiles: Tiles) -> int:
    return tiles.rows * tiles.block_k * 4


def limit(need: int, tiles: Tiles) -> int | None:
    """The memory to request from the compiler; None if the chip is unknown (the target is no TPU).

    Raises:
      ValueError: the chip has less.
    """
    if not pltpu.is_tpu_device():
        return None
    capacity = pltpu.get_tpu_info().vmem_capacity_bytes
    if need > capacity:
        raise ValueError(
            f"flash attention with block_q={tiles.block_q} x {tiles.group} heads, block_k={tiles.block_k} and head "
            f"size {tiles.dim} needs about {need // MIB} MiB of a core's vector memory, and this chip has "
            f"{capacity // MIB} MiB ({CHIPS}): make block_q or block_k smaller"
        )
    return min(capacity, max(SCOPED, need + need // 2))
