"""Flash attention on TPU: the forward kernel.

The grid is (batch, key/value head, block pair of the schedule), so blocks without visible pairs cost nothing. The query
heads that share a key/value head are stacked in one tile: keys and values are fetched once for all of them and never
repeated in memory. Statistics and accumulators are float32.

Source: Dao 2023 (arXiv:2307.08691), algorithm 1; lists of blocks in scalar memory: JAX's splash attention.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from rlvr_jax.kernels import online_softmax as softmax
from rlvr_jax.kernels import vmem
from rlvr_jax.kernels.schedule import FIRST, LAST, LIVE, MASKED, QUERY_SEGMENT, Schedule
from rlvr_jax.kernels.tiles import LANES, Tiles, as_column, compiler_params, longest, mask_of, scalars, specs, tiles_of


def forward(query, keys, values, schedule: Schedule, soft_cap: float | None, interpret):
    """Attention in the kernels' layout.

    Args:
      query: [batch, kv, group, time, dim]; its products with keys are scores in base 2.
      keys, values: [batch, kv, time, dim].
      schedule: of these rows.
      soft_cap: of the scores, in natural units.
      interpret: as in `pl.pallas_call`.

    Returns:
      The output as the query, and log2 of each softmax's denominator [batch, kv, group, time].
    """
    tiles = tiles_of(schedule, query, soft_cap)
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
        interpret=interpret,
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
