"""The gradients of flash attention on TPU: one kernel for the queries', one for the keys' and values'.

The queries' kernel walks the schedule as the forward kernel does. The other walks its transpose and keeps keys along
rows, so that no matrix product transposes an operand. A prompt that many responses attend to is an outer block with
many inner ones, so its gradient is summed over the responses.

Source: Dao 2023 (arXiv:2307.08691), algorithm 2, in two passes so that no partial gradients are written.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from rlvr_jax.kernels import vmem
from rlvr_jax.kernels.online_softmax import LN_2, base_2_weights, dot, spread
from rlvr_jax.kernels.schedule import FIRST, KEY_SEGMENT, LAST, LIVE, MASKED, QUERY_SEGMENT, Schedule
from rlvr_jax.kernels.tiles import (
    LANES,
    Tiles,
    as_column,
    compiler_params,
    longest,
    mask_of,
    mask_of_transposed,
    scalars,
    specs,
    tiles_of,
)


def gradients(query, keys, values, gradient, log_sum, delta, schedule: Schedule, soft_cap: float | None, interpret):
    """Gradients with respect to query [batch, kv, group, time, dim], keys and values [batch, kv, time, dim].

    Args:
      query, keys, values, schedule, soft_cap, interpret: as the forward kernel's.
      gradient: with respect to its output.
      log_sum: its second result.
      delta: sum of gradient times output over dim, [batch, kv, group, time].
    """
    tiles = tiles_of(schedule, query, soft_cap)
    inputs = (schedule.ids, schedule.ids, query, keys, values, gradient, log_sum, delta)
    params = compiler_params(vmem.limit(vmem.backward_bytes(tiles, query.dtype), tiles))

    def call(kernel, steps, queries_outer, scratch, name):
        spec = specs(tiles, queries_outer=queries_outer)
        outputs = ((query, spec.query),) if queries_outer else ((keys, spec.key), (values, spec.key))
        return pl.pallas_call(
            partial(kernel, tiles=tiles),
            grid_spec=pltpu.PrefetchScalarGridSpec(
                num_scalar_prefetch=3,
                grid=(*query.shape[:2], longest(steps)),
                in_specs=[
                    spec.query_ids,
                    spec.key_ids,
                    spec.query,
                    spec.key,
                    spec.key,
                    spec.query,
                    spec.statistic,
                    spec.statistic,
                ],
                out_specs=[spec for _, spec in outputs],
                scratch_shapes=scratch,
            ),
            out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x, _ in outputs],
            compiler_params=params,
            interpret=interpret,
            name=name,
        )(*scalars(steps), *inputs)

    (d_query,) = call(
        _query_kernel,
        schedule.by_query,
        True,
        [
            pltpu.VMEM((tiles.rows, tiles.dim), jnp.float32),
            pltpu.VMEM((tiles.rows, LANES), jnp.float32),
            pltpu.VMEM((tiles.rows, LANES), jnp.float32),
            pltpu.VMEM((3, tiles.block_q, LANES), jnp.int32),
        ],
        "flash_query_gradient",
    )
    d_keys, d_values = call(
        _key_value_kernel,
        schedule.by_key,
        False,
        [
            pltpu.VMEM((tiles.block_k, tiles.dim), jnp.float32),
            pltpu.VMEM((tiles.block_k, tiles.dim), jnp.float32),
            pltpu.VMEM((2, tiles.block_k, LANES), jnp.int32),
        ],
        "flash_key_value_gradients",
    )
    return d_query, d_keys, d_values


def _query_kernel(
    outer,
    inner,
    flags,
    query_ids,
    key_ids,
    query,
    key,
    value,
    gradient,
    log_sum,
    delta,
    d_query,
    sum_query,
    log_column,
    delta_column,
    query_columns,
    *,
    tiles: Tiles,
):
    place = pl.program_id(0) * tiles.capacity + pl.program_id(2)
    flag = flags[place]

    @pl.when(flag & FIRST != 0)
    def _():
        sum_query[...] = jnp.zeros(sum_query.shape, jnp.float32)
        for i in range(3):
            query_columns[i] = as_column(query_ids[QUERY_SEGMENT + i : QUERY_SEGMENT + i + 1, :])
        for head in range(tiles.group):
            rows = pl.ds(head * tiles.block_q, tiles.block_q)
            log_column[rows, :] = as_column(log_sum[head : head + 1, :])
            delta_column[rows, :] = as_column(delta[head : head + 1, :])

    def attend(mask):
        shape = (tiles.rows, tiles.dim)
        scores = dot(query[...].reshape(shape), key[...], (1, 1))
        log = spread(log_column[...], tiles.block_k)
        weights, slope = base_2_weights(scores, mask, log, tiles.soft_cap)
        d_weights = dot(gradient[...].reshape(shape), value[...], (1, 1))
        d_scores = weights * (d_weights - spread(delta_column[...], tiles.block_k))
        d_scores = d_scores if slope is None else d_scores * slope
        sum_query[...] += dot(d_scores.astype(key.dtype), key[...], (1, 0))

    @pl.when(flag & (LIVE | MASKED) == LIVE)
    def _():
        attend(None)

    @pl.when(flag & MASKED != 0)
    def _():
        mask = mask_of(query_columns, key_ids, outer[place], inner[place], tiles)
        attend(jnp.concatenate([mask] * tiles.group))

    @pl.when(flag & LAST != 0)
    def _():
        d_query[...] = (sum_query[...] * LN_2).reshape(d_query.shape).astype(d_query.dtype)


def _key_value_kernel(
    outer,
    inner,
    flags,
    query_ids,
    key_ids,
    query,
    key,
    value,
    gradient,
    log_sum,
    delta,
    d_key,
    d_value,
    sum_key,
    sum_value,
    key_columns,
    *,
    tiles: Tiles,
):
    place = pl.program_id(0) * tiles.capacity + pl.program_id(2)
    flag = flags[place]

    @pl.when(flag & FIRST != 0)
    def _():
        sum_key[...] = jnp.zeros(sum_key.shape, jnp.float32)
        sum_value[...] = jnp.zeros(sum_value.shape, jnp.float32)
        for i in range(2):
            key_columns[i] = as_column(key_ids[KEY_SEGMENT + i : KEY_SEGMENT + i + 1, :])

    def row(statistic):  # [group, block_q] to [1, rows], as the stacked heads lie
        return jnp.concatenate([statistic[head : head + 1, :] for head in range(tiles.group)], axis=1)

    def attend(mask):  # keys along rows, stacked queries along columns
        shape = (tiles.rows, tiles.dim)
        scores = dot(key[...], query[...].reshape(shape), (1, 1))
        weights, slope = base_2_weights(scores, mask, row(log_sum), tiles.soft_cap)
        sum_value[...] += dot(weights.astype(gradient.dtype), gradient[...].reshape(shape), (1, 0))
        d_weights = dot(value[...], gradient[...].reshape(shape), (1, 1))
        d_scores = weights * (d_weights - row(delta))
        d_scores = d_scores if slope is None else d_scores * slope
        sum_key[...] += dot(d_scores.astype(query.dtype), query[...].reshape(shape), (1, 0))

    @pl.when(flag & (LIVE | MASKED) == LIVE)
    def _():
        attend(None)

    @pl.when(flag & MASKED != 0)
    def _():
        mask = mask_of_transposed(query_ids, key_columns, inner[place], outer[place], tiles)
        attend(jnp.concatenate([mask] * tiles.group, axis=1))

    @pl.when(flag & LAST != 0)
    def _():
        d_key[...] = (sum_key[...] * LN_2).astype(d_key.dtype)
        d_value[...] = sum_value[...].astype(d_value.dtype)
