"""Flash attention on TPU for training: packed, windowed and shared-prefix rows by one schedule. The forward kernel.

The grid is (batch, key/value head, step of the schedule); the last is as long as the schedule, so blocks in which
nobody reads anything cost nothing. The query heads that share a key/value head are stacked in one tile: keys and values
are fetched once for all of them and never repeated in memory. Statistics and accumulators are float32.

Source: Dao 2023 (arXiv:2307.08691); block lists: jax's splash attention.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from rlvr_jax.kernels import flash_backward, vmem
from rlvr_jax.kernels import online_softmax as softmax
from rlvr_jax.kernels.schedule import FIRST, LAST, LIVE, MASKED, QUERY_SEGMENT, Schedule
from rlvr_jax.kernels.tiles import LANES, Tiles, as_column, compiler_params, longest, mask_of, scalars, specs, tiles_of


class Options(NamedTuple):
    """What stays the same in the gradients' kernels."""

    soft_cap: float | None
    interpret: Any


def flash_attention(
    query: Float[Array, "batch time heads dim"],
    keys: Float[Array, "batch time kv dim"],
    values: Float[Array, "batch time kv dim"],
    schedule: Schedule,
    *,
    scale: float = 1.0,
    soft_cap: float | None = None,
    interpret=False,
) -> Float[Array, "batch time heads dim"]:
    """Attention by the rule of `schedule.visible`, with gradients. Queries that read nothing give 0.

    Args:
      query: rotated; head h reads key/value head h // (heads // kv).
      keys, values: rotated keys, and values.
      schedule: of these rows, from `make_schedule`.
      scale: of the scores; leave it at 1 for queries that are scaled already.
      soft_cap: scores become soft_cap * tanh(scores / soft_cap).
      interpret: for tests without a TPU, as in `pl.pallas_call`.

    Returns:
      The output in the query's dtype.

    Raises:
      ValueError: shapes or dtypes that the kernel doesn't support, or blocks that don't fit the chip's memory.
    """
    check(query, keys, values, schedule, compiled=not interpret)
    batch, time, heads, dim = query.shape
    kv, padded = keys.shape[2], schedule.ids.shape[-1]
    # One rounding more of the query, and one multiplication less of each score.
    query = (query.astype(jnp.float32) * (scale * softmax.LOG2_E)).astype(query.dtype)
    pad = [(0, 0), (0, padded - time), (0, 0), (0, 0)]
    query, keys, values = (jnp.pad(x, pad) for x in (query, keys, values))
    query = query.reshape(batch, padded, kv, heads // kv, dim).transpose(0, 2, 3, 1, 4)
    keys, values = keys.transpose(0, 2, 1, 3), values.transpose(0, 2, 1, 3)
    output = _attend(query, keys, values, schedule, Options(soft_cap, interpret))
    return output.transpose(0, 3, 1, 2, 4).reshape(batch, padded, heads, dim)[:, :time]


def check(query: jax.Array, keys: jax.Array, values: jax.Array, schedule: Schedule, *, compiled: bool) -> None:
    """Raises ValueError, naming what is supported, for arrays and blocks that the TPU kernels can't take.

    Args:
      compiled: False for interpret mode, which takes head sizes and blocks of any size.
    """
    dtypes = {x.dtype.name for x in (query, keys, values)}
    if len(dtypes) > 1 or not dtypes <= {"bfloat16", "float32"}:
        raise ValueError(f"attention kernels take bfloat16 or float32, one for all, not {', '.join(sorted(dtypes))}")
    shape, kv = query.shape, keys.shape[2]
    if keys.shape != values.shape or keys.shape[:2] != shape[:2] or keys.shape[3] != shape[3] or shape[2] % kv:
        raise ValueError(
            f"attention kernels take keys and values of the query's batch, time and head size, and a number of heads "
            f"that divides the query's: query {shape}, keys {keys.shape}, values {values.shape}"
        )
    if schedule.ids.shape[0] != shape[0] or schedule.time != shape[1]:
        raise ValueError(
            f"the schedule is of {schedule.ids.shape[0]} rows of {schedule.time} tokens, the query of {shape[:2]}"
        )
    if compiled and shape[3] % 64:
        raise ValueError(f"attention kernels on TPU take head sizes that are multiples of 64, not {shape[3]}")
    if compiled and (schedule.block_q % LANES or schedule.block_k % LANES):
        raise ValueError(
            f"attention kernels on TPU take blocks that are multiples of {LANES}, not block_q={schedule.block_q} and "
            f"block_k={schedule.block_k}"
        )


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(query, keys, values, schedule, options):
    """In the kernels' layout: [batch, kv, group, time, dim], [batch, kv, time, dim]. Products are scores in base 2."""
    return _forward(query, keys, values, schedule, options)[0]


def _attend_forward(query, keys, values, schedule, options):
    output, log_sum = _forward(query, keys, values, schedule, options)
    return output, (query, keys, values, schedule, output, log_sum)


def _attend_backward(options, saved, gradient):
    *inputs, schedule, output, log_sum = saved
    d_query, d_keys, d_values = flash_backward.gradients(
        *inputs, schedule, output, log_sum, gradient, options.soft_cap, options.interpret
    )
    return d_query, d_keys, d_values, None


_attend.defvjp(_attend_forward, _attend_backward)


def _forward(query, keys, values, schedule: Schedule, options: Options):
    """Output as the query, and log2 of each softmax's denominator [batch, kv, group, time]."""
    tiles = tiles_of(schedule, query, options.soft_cap)
    spec = specs(tiles, queries_outer=True)
    return pl.pallas_call(
        partial(_kernel, tiles=tiles),
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=3,
            grid=(*query.shape[:2], longest(schedule.by_query)),
            in_specs=[spec.query_ids, spec.key_ids, spec.query, spec.key, spec.key],
            out_specs=[spec.query, spec.statistic],
            scratch_shapes=[
                pltpu.VMEM((tiles.rows, LANES), jnp.float32),
                pltpu.VMEM((tiles.rows, LANES), jnp.float32),
                pltpu.VMEM((tiles.rows, tiles.dim), jnp.float32),
                pltpu.VMEM((3, tiles.block_q, LANES), jnp.int32),
            ],
        ),
        out_shape=[
            jax.ShapeDtypeStruct(query.shape, query.dtype),
            jax.ShapeDtypeStruct(query.shape[:4], jnp.float32),
        ],
        compiler_params=compiler_params(vmem.limit(vmem.forward_bytes(tiles, query.dtype), tiles)),
        interpret=options.interpret,
        name="flash_forward",
    )(*scalars(schedule.by_query), schedule.ids, schedule.ids, query, keys, values)


def _kernel(
    outer,
    inner,
    flags,
    query_ids,
    key_ids,
    query,
    key,
    value,
    output,
    log_sum,
    maximum,
    total,
    weighted,
    query_columns,
    *,
    tiles: Tiles,
):
    place = pl.program_id(0) * tiles.capacity + pl.program_id(2)
    flag = flags[place]

    @pl.when(flag & FIRST != 0)
    def _():
        maximum[...], total[...], weighted[...] = softmax.start(tiles.rows, tiles.dim, LANES)
        for i in range(3):
            query_columns[i] = as_column(query_ids[QUERY_SEGMENT + i : QUERY_SEGMENT + i + 1, :])

    def attend(mask):
        carry = softmax.Carry(maximum[...], total[...], weighted[...])
        tile = query[...].reshape(tiles.rows, tiles.dim)
        carry = softmax.step(carry, tile, key[...], value[...], mask, soft_cap=tiles.soft_cap)
        maximum[...], total[...], weighted[...] = carry

    @pl.when(flag & (LIVE | MASKED) == LIVE)
    def _():
        attend(None)

    @pl.when(flag & MASKED != 0)
    def _():
        mask = mask_of(query_columns, key_ids, outer[place], inner[place], tiles)
        attend(jnp.concatenate([mask] * tiles.group))

    @pl.when(flag & LAST != 0)
    def _():
        result, log = softmax.finish(softmax.Carry(maximum[...], total[...], weighted[...]))
        output[...] = result.reshape(output.shape).astype(output.dtype)
        for head in range(tiles.group):
            rows = slice(head * tiles.block_q, (head + 1) * tiles.block_q)
            log_sum[head : head + 1, :] = log[rows].T[:1]
