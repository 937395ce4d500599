"""Common code of the TPU kernels: block specifications of each array, and the mask of a block pair."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from rlvr_jax.kernels.online_softmax import spread
from rlvr_jax.kernels.schedule import ID_ROWS, KEY_SEGMENT, QUERY_SEGMENT, BlockPairs, Schedule, visible

LANES = 128  # columns of a vector register; statistics of a row are repeated over all of them


@dataclass(frozen=True)
class Tiles:
    """Static sizes of one kernel call.

    Attributes:
      block_q, block_k: tokens in a block of queries, of keys.
      group: query heads of one key/value head, stacked: a tile has group * block_q rows.
      dim: of a head.
      capacity: block pairs of the schedule in a row of the batch, padding included.
      tree, window: whether the rule compares parents, windows.
      soft_cap: of the scores, or None.
    """

    block_q: int
    block_k: int
    group: int
    dim: int
    capacity: int
    tree: bool
    window: bool
    soft_cap: float | None

    @property
    def rows(self) -> int:
        return self.group * self.block_q


def tiles_of(schedule: Schedule, query: jax.Array, soft_cap: float | None) -> Tiles:
    """The tiles of queries [batch, kv, group, time, dim]."""
    return Tiles(
        block_q=schedule.block_q,
        block_k=schedule.block_k,
        group=query.shape[2],
        dim=query.shape[4],
        capacity=schedule.by_query.flags.shape[1],
        tree=schedule.tree,
        window=schedule.window is not None,
        soft_cap=soft_cap,
    )


class Specs(NamedTuple):
    """Block specifications by kind of array."""

    query: Any  # [batch, kv, group, time, dim]
    statistic: Any  # [batch, kv, group, time]
    key: Any  # [batch, kv, time, dim]
    query_ids: Any  # [batch, ID_ROWS, time]
    key_ids: Any


def specs(tiles: Tiles, *, queries_outer: bool) -> Specs:
    """The blocks of a pair of the schedule, whose outer blocks are those of queries or of keys."""

    def block(map_of):
        def index_map(row, head, step, outer, inner, _):
            place = row * tiles.capacity + step
            pair = outer[place], inner[place]
            return map_of(row, head, *(pair if queries_outer else pair[::-1]))

        return index_map

    shape = (tiles.group, tiles.block_q)
    return Specs(
        query=pl.BlockSpec((None, None, *shape, tiles.dim), block(lambda b, h, i, _: (b, h, 0, i, 0))),
        statistic=pl.BlockSpec((None, None, *shape), block(lambda b, h, i, _: (b, h, 0, i))),
        key=pl.BlockSpec((None, None, tiles.block_k, tiles.dim), block(lambda b, h, _, j: (b, h, j, 0))),
        query_ids=pl.BlockSpec((None, ID_ROWS, tiles.block_q), block(lambda b, _, i, __: (b, 0, i))),
        key_ids=pl.BlockSpec((None, ID_ROWS, tiles.block_k), block(lambda b, _, __, j: (b, 0, j))),
    )


def scalars(steps: BlockPairs) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Outer, inner and flags as the kernels read them: one axis, the rows of the batch one after the other."""
    return steps.outer.reshape(-1), steps.inner.reshape(-1), steps.flags.reshape(-1)


def longest(steps: BlockPairs) -> jax.Array:
    """Length of the batch's longest list of block pairs: the grid's last axis, padded for shorter lists."""
    return steps.starts[:, -1].max()


def as_column(row: jax.Array) -> jax.Array:
    """[1, n] to [n, LANES], the same in all lanes."""
    return jnp.broadcast_to(row, (LANES, row.shape[1])).T


def mask_of(query_columns, key_rows, q_block: jax.Array, k_block: jax.Array, tiles: Tiles) -> jax.Array:
    """[block_q, block_k]: the visible keys of each query.

    Args:
      query_columns: reference to [3, block_q, LANES], rows `QUERY_*` of the ids by `as_column`.
      key_rows: reference to [ID_ROWS, block_k].
      q_block, k_block: block indices.
    """
    shape = (tiles.block_q, tiles.block_k)
    queries = [spread(query_columns[i], tiles.block_k) for i in range(3)]
    keys = [key_rows[row : row + 1, :] for row in (KEY_SEGMENT, KEY_SEGMENT + 1)]
    query_index = jax.lax.broadcasted_iota(jnp.int32, shape, 0) + (q_block * tiles.block_q - k_block * tiles.block_k)
    key_index = jax.lax.broadcasted_iota(jnp.int32, shape, 1)
    return visible(queries, keys, query_index, key_index, tree=tiles.tree, window=tiles.window)


def mask_of_transposed(query_rows, key_columns, q_block: jax.Array, k_block: jax.Array, tiles: Tiles) -> jax.Array:
    """[block_k, block_q]: the same with keys first, from [ID_ROWS, block_q] and [2, block_k, LANES]."""
    shape = (tiles.block_k, tiles.block_q)
    queries = [query_rows[QUERY_SEGMENT + i : QUERY_SEGMENT + i + 1, :] for i in range(3)]
    keys = [spread(key_columns[i], tiles.block_q) for i in range(2)]
    key_index = jax.lax.broadcasted_iota(jnp.int32, shape, 0) + (k_block * tiles.block_k - q_block * tiles.block_q)
    query_index = jax.lax.broadcasted_iota(jnp.int32, shape, 1)
    return visible(queries, keys, query_index, key_index, tree=tiles.tree, window=tiles.window)


def compiler_params(limit: int | None) -> pltpu.CompilerParams:
    """Rows of the batch and heads may run on different cores; the block pairs of a list run in order."""
    return pltpu.CompilerParams(dimension_semantics=("parallel", "parallel", "arbitrary"), vmem_limit_bytes=limit)
