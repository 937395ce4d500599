"""Flash attention on NVIDIA GPUs, through Pallas Triton: the forward kernel and the gradients'.

Every program takes one block of queries of one head (for the gradients of keys and values: one block of keys of one
key/value head) and walks its part of the schedule. Masks are computed only for the block pairs that need one. Heads
that share keys and values read the same memory, and their gradients are summed inside the program.

Source: Dao 2023 (arXiv:2307.08691).
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from rlvr_jax.kernels import online_softmax as softmax
from rlvr_jax.kernels.online_softmax import LN_2, base_2_weights, dot
from rlvr_jax.kernels.schedule import KEY_POSITION, KEY_SEGMENT, MASKED, QUERY_SEGMENT, BlockPairs, Schedule, visible
from rlvr_jax.kernels.tiles import Tiles, tiles_of


def forward(query, keys, values, schedule: Schedule, soft_cap: float | None, interpret):
    """As `flash_tpu.forward`."""
    tiles = tiles_of(schedule, query, soft_cap)
    return _call(
        _forward_kernel,
        tiles,
        schedule.by_query,
        [schedule.ids, query, keys, values],
        ["ids", "query", "keys", "keys"],
        [(query, "query"), (jax.ShapeDtypeStruct(query.shape[:4], jnp.float32), "statistic")],
        interpret,
        "flash_forward",
    )


def gradients(query, keys, values, gradient, log_sum, delta, schedule: Schedule, soft_cap: float | None, interpret):
    """As `flash_tpu_backward.gradients`."""
    tiles = tiles_of(schedule, query, soft_cap)
    inputs = [schedule.ids, query, keys, values, gradient, log_sum, delta]
    (d_query,) = _call(
        _query_kernel,
        tiles,
        schedule.by_query,
        inputs,
        ["ids", "query", "keys", "keys", "query", "statistic", "statistic"],
        [(query, "query")],
        interpret,
        "flash_query_gradient",
    )
    d_keys, d_values = _call(
        _key_value_kernel,
        tiles,
        schedule.by_key,
        inputs,
        ["ids", "queries", "key", "key", "queries", "statistics", "statistics"],
        [(keys, "key"), (values, "key")],
        interpret,
        "flash_key_value_gradients",
    )
    return d_query, d_keys, d_values


def _call(kernel, tiles: Tiles, steps: BlockPairs, inputs, kinds, outputs, interpret, name):
    """Runs a kernel over (outer block, head, row of the batch)."""
    batch, kv, group, time, dim = inputs[1].shape
    by_key = "queries" in kinds
    heads = kv if by_key else kv * group

    def whole(*shape):  # one row of the batch
        return pl.BlockSpec((None, *shape), lambda _, __, b: (b, *[0] * len(shape)))

    specs = {
        "ids": whole(*inputs[0].shape[1:]),
        "query": pl.BlockSpec((None, None, None, tiles.block_q, dim), lambda i, h, b: (b, h // group, h % group, i, 0)),
        "statistic": pl.BlockSpec((None, None, None, tiles.block_q), lambda i, h, b: (b, h // group, h % group, i)),
        "keys": pl.BlockSpec((None, None, time, dim), lambda _, h, b: (b, h // group, 0, 0)),
        "key": pl.BlockSpec((None, None, tiles.block_k, dim), lambda j, h, b: (b, h, j, 0)),
        "queries": pl.BlockSpec((None, None, group, time, dim), lambda _, h, b: (b, h, 0, 0, 0)),
        "statistics": pl.BlockSpec((None, None, group, time), lambda _, h, b: (b, h, 0, 0)),
    }
    lists = (steps.starts, steps.inner, steps.flags)
    return pl.pallas_call(
        partial(kernel, tiles=tiles),
        grid=(steps.starts.shape[1] - 1, heads, batch),
        in_specs=[*(whole(x.shape[1]) for x in lists), *(specs[kind] for kind in kinds)],
        out_specs=[specs[kind] for _, kind in outputs],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x, _ in outputs],
        compiler_params=plgpu.CompilerParams(num_warps=4 if dim <= 64 else 8, num_stages=2),
        interpret=interpret,
        name=name,
    )(*lists, *inputs)


def _mask(flag, ids, q_start, k_start, tiles: Tiles, *, keys_first: bool):
    """True where a query attends to a key, [block_q, block_k] or its transpose; computed only if needed."""
    shape = (tiles.block_k, tiles.block_q) if keys_first else (tiles.block_q, tiles.block_k)

    def compute():
        query_at = pl.ds(q_start, tiles.block_q)
        key_at = pl.ds(k_start, tiles.block_k)
        query_axis, key_axis = (0, 1) if keys_first else (1, 0)
        queries = [jnp.expand_dims(ids[QUERY_SEGMENT + i, query_at], query_axis) for i in range(3)]
        keys = [jnp.expand_dims(ids[row, key_at], key_axis) for row in (KEY_SEGMENT, KEY_POSITION)]
        places = (
            jnp.expand_dims(q_start + jnp.arange(tiles.block_q, dtype=jnp.int32), query_axis),
            jnp.expand_dims(k_start + jnp.arange(tiles.block_k, dtype=jnp.int32), key_axis),
        )
        return jnp.broadcast_to(visible(queries, keys, *places, tree=tiles.tree, window=tiles.window), shape)

    return jax.lax.cond(flag & MASKED != 0, compute, lambda: jnp.ones(shape, jnp.bool_))


def _forward_kernel(starts, inner, flags, ids, query, keys, values, output, log_sum, *, tiles: Tiles):
    block = pl.program_id(0)
    rows = query[...]

    def body(place, carry):
        k_start = inner[place] * tiles.block_k
        at = pl.ds(k_start, tiles.block_k)
        mask = _mask(flags[place], ids, block * tiles.block_q, k_start, tiles, keys_first=False)
        return softmax.step(carry, rows, keys[at, :], values[at, :], mask, soft_cap=tiles.soft_cap)

    carry = jax.lax.fori_loop(starts[block], starts[block + 1], body, softmax.start(tiles.block_q, tiles.dim))
    result, log = softmax.finish(carry)
    output[...] = result.astype(output.dtype)
    log_sum[...] = log[:, 0]


def _query_kernel(starts, inner, flags, ids, query, keys, values, gradient, log_sum, delta, d_query, *, tiles: Tiles):
    block = pl.program_id(0)
    rows, d_rows, log, share = query[...], gradient[...], log_sum[...][:, None], delta[...][:, None]

    def body(place, total):
        k_start = inner[place] * tiles.block_k
        at = pl.ds(k_start, tiles.block_k)
        key, value = keys[at, :], values[at, :]
        mask = _mask(flags[place], ids, block * tiles.block_q, k_start, tiles, keys_first=False)
        weights, slope = base_2_weights(dot(rows, key, (1, 1)), mask, log, tiles.soft_cap)
        d_scores = weights * (dot(d_rows, value, (1, 1)) - share)
        d_scores = d_scores if slope is None else d_scores * slope
        return total + dot(d_scores.astype(key.dtype), key, (1, 0))

    start = jnp.zeros((tiles.block_q, tiles.dim), jnp.float32)
    total = jax.lax.fori_loop(starts[block], starts[block + 1], body, start)
    d_query[...] = (total * LN_2).astype(d_query.dtype)


def _key_value_kernel(
    starts, inner, flags, ids, queries, key, value, gradients, log_sum, delta, d_key, d_value, *, tiles: Tiles
):
    block = pl.program_id(0)
    key_rows, value_rows = key[...], value[...]

    def body(place, totals):
        q_start = inner[place] * tiles.block_q
        at = pl.ds(q_start, tiles.block_q)
        mask = _mask(flags[place], ids, q_start, block * tiles.block_k, tiles, keys_first=True)

        def add(head, totals):
            total_key, total_value = totals
            query, gradient = queries[head, at, :], gradients[head, at, :]
            log, share = log_sum[head, at][None, :], delta[head, at][None, :]
            weights, slope = base_2_weights(dot(key_rows, query, (1, 1)), mask, log, tiles.soft_cap)
            total_value += dot(weights.astype(gradient.dtype), gradient, (1, 0))
            d_scores = weights * (dot(value_rows, gradient, (1, 1)) - share)
            d_scores = d_scores if slope is None else d_scores * slope
            return total_key + dot(d_scores.astype(query.dtype), query, (1, 0)), total_value

        return jax.lax.fori_loop(0, tiles.group, add, totals)

    start = jnp.zeros((tiles.block_k, tiles.dim), jnp.float32)
    total_key, total_value = jax.lax.fori_loop(starts[block], starts[block + 1], body, (start, start))
    d_key[...] = (total_key * LN_2).astype(d_key.dtype)
    d_value[...] = total_value.astype(d_value.dtype)
