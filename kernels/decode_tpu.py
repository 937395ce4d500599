"""Decode attention on TPU: one KV segment and the rows that share it.

The grid is a list of the blocks with visible columns, row by row, so ragged lengths cost nothing beyond their end. A
grid step takes one block of all key/value heads: a block of a single head would take less time than the overhead of a
step. All queries that share a key/value head and a row of the segment form one tile, so a prompt is read once for its
group. The online softmax continues from the previous segment, in the order of the columns.

Source: Juravsky et al. 2024 (arXiv:2402.05099) for the shared prefix.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from rlvr_jax.kernels import online_softmax as softmax
from rlvr_jax.kernels import vmem
from rlvr_jax.kernels.schedule import FIRST, LAST, LIVE, MASKED, BlockPairs
from rlvr_jax.kernels.tiles import LANES

ROWS = 8  # queries of a tile are a multiple of this, the rows of a register


class _Sizes(NamedTuple):
    """Static sizes of one call: blocks of a grid step, and columns of the segment."""

    kv: int
    rows: int
    dim: int
    block: int
    columns: int
    soft_cap: float | None


def attend(query, keys, values, mask, steps: BlockPairs, block: int, carry, *, scales, last: bool, soft_cap, interpret):
    """The online softmax over one more KV segment.

    Args:
      query: [part, kv, rows, dim]: the queries that share a row of the segment; products are scores in base 2.
      keys, values: [part, kv, dim, columns], [part, kv, columns, dim].
      mask: [part, rows, blocks * block], int8: the visible columns of each query.
      steps: pairs of segment row (outer) and block of columns (inner), at least one per row.
      block: columns in a block.
      carry: the result of the previous call, arranged for this segment; None for the first.
      scales: of keys and of values in 8 bits, each [part, kv, columns]; empty for others.
      last: return the finished output, shaped as the query, instead of the state.
      soft_cap: of the scores, in natural units.
      interpret: as in `pl.pallas_call`.
    """
    part, kv, queries, dim = query.shape
    pad = [(0, 0), (0, 0), (0, -queries % ROWS), (0, 0)]
    query, mask = jnp.pad(query, pad), jnp.pad(mask, pad[1:])
    rows = query.shape[2]
    sizes = _Sizes(kv, rows, dim, block, keys.shape[3], soft_cap)
    widths = softmax.Carry(LANES, LANES, dim)

    def at_row(*shape):  # all of an array's row
        return pl.BlockSpec((None, *shape), lambda step, row, *_: (row[step], *[0] * len(shape)))

    of_scales = pl.BlockSpec((None, kv, block), lambda step, row, inner, _: (row[step], 0, inner[step]))
    vectors = [at_row(kv, rows, width) for width in widths]
    shapes = [jax.ShapeDtypeStruct((part, kv, rows, width), jnp.float32) for width in widths]
    if last:
        vectors, shapes = vectors[2:], [jax.ShapeDtypeStruct(query.shape, query.dtype)]
    state = [] if carry is None else [jnp.pad(x, pad) for x in carry]
    results = pl.pallas_call(
        partial(_kernel, sizes=sizes, quantized=bool(scales), resumed=carry is not None),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=3,
            grid=(steps.starts[0, -1],),
            in_specs=[
                pl.BlockSpec((None, rows, block), lambda step, row, inner, _: (row[step], 0, inner[step])),
                at_row(kv, rows, dim),
                pl.BlockSpec((None, kv, dim, block), lambda step, row, inner, _: (row[step], 0, 0, inner[step])),
                pl.BlockSpec((None, kv, block, dim), lambda step, row, inner, _: (row[step], 0, inner[step], 0)),
                *[of_scales] * len(scales),
                *(at_row(*x.shape[1:]) for x in state),
            ],
            out_specs=vectors,
            scratch_shapes=[pltpu.VMEM((kv, rows, width), jnp.float32) for width in widths],
        ),
        out_shape=shapes,
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("arbitrary",), vmem_limit_bytes=_memory_limit(sizes, query.dtype, keys.dtype)
        ),
        interpret=interpret,
        name="flash_decode",
    )(
        steps.outer[0],
        steps.inner[0],
        steps.flags[0],
        mask,
        query,
        keys,
        values,
        *scales,
        *state,
    )
    results = [x[:, :, :queries] for x in results]
    return results[0] if last else softmax.Carry(*results)


def _kernel(_, inner, flags, mask, query, keys, values, *refs, sizes: _Sizes, quantized: bool, resumed: bool):
    scales, refs = refs[: 2 * quantized], refs[2 * quantized :]
    state, scratch, outputs = refs[: 3 * resumed], refs[-3:], refs[3 * resumed : -3]
    step = pl.program_id(0)
    flag = flags[step]

    @pl.when(flag & FIRST != 0)
    def _():
        for head in range(sizes.kv):
            if resumed:
                carry = [x[head] for x in state]
            else:
                carry = softmax.start(sizes.rows, sizes.dim, LANES)
            for ref, x in zip(scratch, carry, strict=True):
                ref[head] = x

    def attend_block(masked: bool):
        reads = value_exists = None
        if masked:
            reads = mask[...].astype(jnp.int32) != 0
            if sizes.columns % sizes.block:  # values after the last column are undefined, and 0 times them may be NaN
                index = jax.lax.broadcasted_iota(jnp.int32, (sizes.block, sizes.dim), 0)
                value_exists = index < sizes.columns - inner[step] * sizes.block
        for head in range(sizes.kv):
            carry = softmax.Carry(*(ref[head] for ref in scratch))
            key, value, factors = keys[head].astype(query.dtype).T, values[head].astype(query.dtype), {}
            if value_exists is not None:
                value = jnp.where(value_exists, value, jnp.zeros_like(value))
            if quantized:
                rows = [x[head : head + 1, :] for x in scales]
                if reads is not None and sizes.columns % sizes.block:  # those after the last column, too
                    index = jax.lax.broadcasted_iota(jnp.int32, (1, sizes.block), 1)
                    exists = index < sizes.columns - inner[step] * sizes.block
                    rows = [jnp.where(exists, x, 0.0) for x in rows]
                factors = {"key_scales": rows[0], "value_scales": rows[1]}
            carry = softmax.step(carry, query[head], key, value, reads, soft_cap=sizes.soft_cap, **factors)
            for ref, x in zip(scratch, carry, strict=True):
                ref[head] = x

    @pl.when(flag & (LIVE | MASKED) == LIVE)
    def _():
        attend_block(masked=False)

    @pl.when(flag & MASKED != 0)
    def _():
        attend_block(masked=True)

    @pl.when(flag & LAST != 0)
    def _():
        for head in range(sizes.kv):
            carry = softmax.Carry(*(ref[head] for ref in scratch))
            results = [softmax.finish(carry)[0]] if len(outputs) == 1 else carry
            for ref, x in zip(outputs, results, strict=True):
                ref[head] = x.astype(ref.dtype)


def _memory_limit(sizes: _Sizes, dtype: jnp.dtype, stored: jnp.dtype) -> int | None:
    """The vector memory to request from the compiler; None if the target is no TPU.

    Raises:
      ValueError: the chip has less than the blocks need.
    """
    if not pltpu.is_tpu_device():
        return None
    itemsize, lanes = jnp.dtype(dtype).itemsize, -(-sizes.dim // LANES) * LANES
    rows = sizes.kv * sizes.rows
    blocks = (2 * sizes.kv * lanes * jnp.dtype(stored).itemsize + max(sizes.rows, 32)) * sizes.block
    if stored != dtype:  # scales, and a head's keys and values in the type of the products
        blocks += (2 * max(sizes.kv, 8) * 4 + 2 * lanes * itemsize) * sizes.block
    vectors = rows * (2 * lanes * itemsize + 2 * (2 * LANES + lanes) * 4)
    scores = 3 * sizes.rows * sizes.block * 4 + sizes.block * lanes * 4
    need = 2 * (blocks + vectors) + rows * (2 * LANES + lanes) * 4 + scores
    capacity = pltpu.get_tpu_info().vmem_capacity_bytes
    if need > capacity:
        raise ValueError(
            f"decode attention with blocks of {sizes.block} columns x {sizes.kv} key/value heads of size {sizes.dim}, "
            f"read by {sizes.rows} queries each, needs about {need // vmem.MIB} MiB of a core's vector memory, and "
            f"this chip has {capacity // vmem.MIB} MiB ({vmem.CHIPS}): make block smaller"
        )
    return min(capacity, max(vmem.SCOPED, need + need // 2))
