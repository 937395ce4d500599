"""Flash attention on NVIDIA GPUs, through Pallas Triton: the forward kernel and the gradients'.

Every program takes one block of queries of one head (for the gradients of keys and values: one block of keys of one
key/value head) and walks its part of the schedule: in one loop the block pairs without a mask, in another those that
need one, because Triton overlaps loads and products in loops without branches only. Heads that share keys and values
read the same memory, and their gradients are summed inside the program.

Source: Dao 2023 (arXiv:2307.08691).
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

from rlvr_jax.kernels import online_softmax as softmax
from rlvr_jax.kernels.online_softmax import LN_2, base_2_weights, dot
from rlvr_jax.kernels.schedule import KEY_POSITION, KEY_SEGMENT, QUERY_SEGMENT, BlockPairs, Schedule, visible
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
    row_bytes = dim * inputs[1].dtype.itemsize  # of larger ones, blocks in three stages exceed the shared memory

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
    lists = (steps.starts, steps.inner)
    return pl.pallas_call(
        partial(kernel, tiles=tiles),
        grid=(steps.starts.shape[1] // 2, heads, batch),
        in_specs=[*(whole(x.shape[1]) for x in lists), *(specs[kind] for kind in kinds)],
        out_specs=[specs[kind] for _, kind in outputs],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x, _ in outputs],
        compiler_params=plgpu.CompilerParams(num_warps=4, num_stages=3 if row_bytes <= 256 else 1),
        interpret=interpret,
        name=name,
    )(*lists, *inputs)


def _mask(ids, q_start, k_start, tiles: Tiles, *, keys_first: bool):
    """True where a query attends to a key, [block_q, block_k] or its transpose."""
    query_axis, key_axis = (0, 1) if keys_first else (1, 0)
    query_at, key_at = pl.ds(q_start, tiles.block_q), pl.ds(k_start, tiles.block_k)
    queries = [jnp.expand_dims(ids[QUERY_SEGMENT + i, query_at], query_axis) for i in range(3)]
    keys = [jnp.expand_dims(ids[row, key_at], key_axis) for row in (KEY_SEGMENT, KEY_POSITION)]
    places = (
        jnp.expand_dims(q_start + jnp.arange(tiles.block_q, dtype=jnp.int32), query_axis),
        jnp.expand_dims(k_start + jnp.arange(tiles.block_k, dtype=jnp.int32), key_axis),
    )
    mask = visible(queries, keys, *places, tree=tiles.tree, window=tiles.window)
    return jnp.broadcast_to(mask, (tiles.block_k, tiles.block_q) if keys_first else (tiles.block_q, tiles.block_k))


def _over_pairs(starts, body, carry, heads: int = 1):
    """Runs `body(masked, place, head, carry)` for this program's block pairs, those without a mask first."""
    for masked in (False, True):
        at = 2 * pl.program_id(0) + masked

        def step(i, carry, masked=masked):
            return body(masked, i // heads, i % heads, carry)

        carry = jax.lax.fori_loop(starts[at] * heads, starts[at + 1] * heads, step, carry)
    return carry


def _forward_kernel(starts, inner, ids, query, keys, values, output, log_sum, *, tiles: Tiles):
    q_start, rows = pl.program_id(0) * tiles.block_q, query[...]

    def body(masked, place, _, carry):
        k_start = inner[place] * tiles.block_k
        at = pl.ds(k_start, tiles.block_k)
        mask = _mask(ids, q_start, k_start, tiles, keys_first=False) if masked else None
        return softmax.step(carry, rows, keys[at, :], values[at, :], mask, soft_cap=tiles.soft_cap)

    result, log = softmax.finish(_over_pairs(starts, body, softmax.start(tiles.block_q, tiles.dim)))
    output[...] = result.astype(output.dtype)
    log_sum[...] = log[:, 0]


def _query_kernel(starts, inner, ids, query, keys, values, gradient, log_sum, delta, d_query, *, tiles: Tiles):
    q_start = pl.program_id(0) * tiles.block_q
    rows, d_rows, log, share = query[...], gradient[...], log_sum[...][:, None], delta[...][:, None]

    def body(masked, place, _, total):
        k_start = inner[place] * tiles.block_k
        at = pl.ds(k_start, tiles.block_k)
        key, value = keys[at, :], values[at, :]
        mask = _mask(ids, q_start, k_start, tiles, keys_first=False) if masked else None
        weights, slope = base_2_weights(dot(rows, key, (1, 1)), mask, log, tiles.soft_cap)
        d_scores = weights * (dot(d_rows, value, (1, 1)) - share)
        d_scores = d_scores if slope is None else d_scores * slope
        return total + dot(d_scores.astype(key.dtype), key, (1, 0))

    total = _over_pairs(starts, body, jnp.zeros((tiles.block_q, tiles.dim), jnp.float32))
    d_query[...] = (total * LN_2).astype(d_query.dtype)


def _key_value_kernel(
    starts, inner, ids, queries, key, value, gradients, log_sum, delta, d_key, d_value, *, tiles: Tiles
):
    k_start, key_rows, value_rows = pl.program_id(0) * tiles.block_k, key[...], value[...]

    def body(masked, place, head, totals):
        total_key, total_value = totals
        q_start = inner[place] * tiles.block_q
        at = pl.ds(q_start, tiles.block_q)
        mask = _mask(ids, q_start, k_start, tiles, keys_first=True) if masked else None
        query, gradient = queries[head, at, :], gradients[head, at, :]
        log, share = log_sum[head, at][None, :], delta[head, at][None, :]
        weights, slope = base_2_weights(dot(key_rows, query, (1, 1)), mask, log, tiles.soft_cap)
        total_value += dot(weights.astype(gradient.dtype), gradient, (1, 0))
        d_scores = weights * (dot(value_rows, gradient, (1, 1)) - share)
        d_scores = d_scores if slope is None else d_scores * slope
        return total_key + dot(d_scores.astype(query.dtype), query, (1, 0)), total_value

    start = jnp.zeros((tiles.block_k, tiles.dim), jnp.float32)
    total_key, total_value = _over_pairs(starts, body, (start, start), heads=tiles.group)
    d_key[...] = (total_key * LN_2).astype(d_key.dtype)
    d_value[...] = total_value.astype(d_value.dtype)
