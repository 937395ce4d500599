"""Decode attention on NVIDIA GPUs, through Pallas Triton: one KV segment.

A single query per row leaves most of a GPU idle, so the blocks of a row are split over several programs, whose states
are merged (flash-decoding). All queries that share a key/value head and a row of the segment form one or a few tiles,
so a prompt is read once for its group.

Source: Dao et al. 2023, "Flash-Decoding for long-context inference".
"""

from functools import partial, reduce
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from rlvr_jax.kernels import online_softmax as softmax
from rlvr_jax.kernels.schedule import MASKED, BlockPairs

_PROGRAMS = 264  # in flight: two for each multiprocessor of an H100
_LEAST, _MOST = 16, 64  # rows of a tile; Triton's products need at least 16


class _Sizes(NamedTuple):
    """Static sizes of one call: queries of a tile; columns of a block, of the segment."""

    tile: int
    dim: int
    block: int
    columns: int
    splits: int
    soft_cap: float | None


def attend(query, keys, values, mask, steps: BlockPairs, block: int, *, scales, soft_cap, interpret) -> softmax.Carry:
    """The state of the online softmax over a segment [part, kv, rows, width]; arguments as of `decode_tpu.attend`."""
    part, kv, total, dim = query.shape
    tile = min(_MOST, max(_LEAST, pl.next_power_of_2(total)))
    tiles, blocks = pl.cdiv(total, tile), mask.shape[2] // block
    splits = max(1, min(_PROGRAMS // (part * kv * tiles), blocks // 4))
    sizes = _Sizes(tile, dim, block, keys.shape[3], splits, soft_cap)
    pad = [(0, 0), (0, 0), (0, tiles * tile - total), (0, 0)]
    query, mask = jnp.pad(query, pad), jnp.pad(mask, pad[1:])

    def whole(x):
        return pl.BlockSpec(x.shape, lambda *_: (0,) * x.ndim)

    lists = steps.starts[0], steps.inner[0], steps.flags[0]
    widths = softmax.Carry(1, 1, dim)
    results = pl.pallas_call(
        partial(_kernel, sizes=sizes),
        grid=(tiles, kv, part * splits),
        in_specs=[
            *map(whole, lists),
            pl.BlockSpec((None, tile, mask.shape[2]), lambda i, _, n: (n // splits, i, 0)),
            pl.BlockSpec((None, None, tile, dim), lambda i, h, n: (n // splits, h, i, 0)),
            pl.BlockSpec((None, None, *keys.shape[2:]), lambda _, h, n: (n // splits, h, 0, 0)),
            pl.BlockSpec((None, None, *values.shape[2:]), lambda _, h, n: (n // splits, h, 0, 0)),
            *[pl.BlockSpec((None, None, keys.shape[3]), lambda _, h, n: (n // splits, h, 0))] * len(scales),
        ],
        out_specs=[
            pl.BlockSpec((None, None, None, tile, n), lambda i, h, n: (n % splits, n // splits, h, i, 0))
            for n in widths
        ],
        out_shape=[jax.ShapeDtypeStruct((splits, part, kv, tiles * tile, n), jnp.float32) for n in widths],
        compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=3 if dim * keys.dtype.itemsize <= 256 else 2),
        interpret=interpret,
        name="flash_decode",
    )(*lists, mask, query, keys, values, *scales)
    states = [softmax.Carry(*(x[i].reshape(-1, x.shape[-1]) for x in results)) for i in range(splits)]
    merged = reduce(softmax.merge, states)
    return jax.tree.map(lambda x: x.reshape(part, kv, tiles * tile, -1)[:, :, :total], merged)


def _kernel(starts, inner, flags, mask, query, keys, values, *refs, sizes: _Sizes):
    *scales, maximum, total, weighted = refs
    part, split = pl.program_id(2) // sizes.splits, pl.program_id(2) % sizes.splits
    first, stop = starts[part], starts[part + 1]
    each = (stop - first + sizes.splits - 1) // sizes.splits
    first = first + split * each
    rows = query[...]

    def body(place, carry):
        start = inner[place] * sizes.block
        at = pl.ds(start, sizes.block)
        reads = jax.lax.cond(
            flags[place] & MASKED != 0,
            lambda: mask[:, at] != 0,
            lambda: jnp.ones((sizes.tile, sizes.block), jnp.bool_),
        )
        if sizes.columns % sizes.block:
            exists = start + jnp.arange(sizes.block, dtype=jnp.int32) < sizes.columns
            key = plgpu.load(keys.at[:, at], mask=exists[None, :], other=0)
            value = plgpu.load(values.at[at, :], mask=exists[:, None], other=0)
            factors = [plgpu.load(x.at[at], mask=exists, other=0)[None] for x in scales]
        else:
            key, value, factors = keys[:, at], values[at, :], [x[at][None] for x in scales]
        names = dict(zip(("key_scales", "value_scales"), factors, strict=False))
        key, value = key.astype(rows.dtype), value.astype(rows.dtype)
        return softmax.step(carry, rows, key.T, value, reads, soft_cap=sizes.soft_cap, **names)

    carry = jax.lax.fori_loop(first, jnp.minimum(first + each, stop), body, softmax.start(sizes.tile, sizes.dim))
    maximum[...], total[...], weighted[...] = carry
