"""The keys that a query attends to, and the blocks of keys that a kernel must visit.

One rule serves causal, packed, windowed and shared-prefix (tree) attention. Every token of a row has a position, a
segment id and the id of a parent segment; a query attends to the keys at or before its own index in the row that belong
to its segment or to its parent, and that are inside the window. Without parents this is packed causal attention. With
the prompt as parent of the G responses after it, the prompt is stored and computed once, and a response attends to the
prompt and itself.

A schedule lists, for each block of queries, the blocks of keys with at least one visible pair, and marks those that are
fully visible and need no mask. The transposed list, by blocks of keys, serves the gradients of keys and values. It
depends on ids only: build it once per batch, inside jit and outside the loop over layers.
"""

from typing import Literal, no_type_check

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Int

from rlvr_jax.kernels.platform import target_platform

# Flags of a block pair: it is real (not padding), is the first or last of its outer block, needs the mask.
LIVE, FIRST, LAST, MASKED = 1, 2, 4, 8
# Rows of `Schedule.ids`, in the order in which the kernels read them; eight, the rows of a TPU register.
KEY_SEGMENT, KEY_POSITION, QUERY_SEGMENT, QUERY_PARENT, QUERY_OLDEST = range(5)
ID_ROWS = 8
NOBODY = -1  # segment of a padding query, and parent of a query without one: no key has it


def visible(query_ids, key_ids, query_index, key_index, *, tree: bool, window: bool):
    """The visibility rule, with broadcasting: True where a query attends to a key.

    Args:
      query_ids: (segment, parent, oldest position) as in rows `QUERY_*` of `Schedule.ids`.
      key_ids: (segment, position) as in rows `KEY_*`.
      query_index, key_index: indices in the row.
      tree, window: False skips the comparison with the parent, with the oldest position.
    """
    segment, parent, oldest = query_ids
    key_segment, key_position = key_ids
    reads = segment == key_segment
    if tree:
        reads |= parent == key_segment
    reads &= key_index <= query_index
    if window:
        reads &= key_position >= oldest
    return reads


@no_type_check  # as a pytree it may hold shapes or shardings, too
@struct.dataclass
class BlockPairs:
    """The pairs of blocks that a kernel visits, in order; all pairs of one outer block are adjacent.

    Attributes:
      outer, inner: block indices. After a row's last real pair they repeat it, so that nothing is fetched.
      flags: sum of `LIVE`, `FIRST`, `LAST`, `MASKED`; 0 after the last real pair.
      starts: index of the first pair of each outer block, or, with those without a mask first, of the pairs without and
        of those with a mask of each; the last entry is the number of real pairs.
    """

    outer: Int[Array, "batch steps"]
    inner: Int[Array, "batch steps"]
    flags: Int[Array, "batch steps"]
    starts: Int[Array, "batch lists_and_one"]


@no_type_check
@struct.dataclass
class Schedule:
    """The kernels' view of a batch besides queries, keys and values. The batch is the first axis of every array.

    Attributes:
      ids: the values that `visible` compares, one per row; padded in time to whole blocks.
      by_query, by_key: the block pairs, with blocks of queries or of keys as the outer ones.
      time: length of the rows before padding.
      block_q, block_k: tokens in a block.
      window, platform: as given to `make_schedule`.
      packed, tree: whether segment ids, parents were given.
      branches: as given to `make_schedule`.
    """

    ids: Int[Array, "batch rows padded_time"]
    by_query: BlockPairs
    by_key: BlockPairs
    time: int = struct.field(pytree_node=False)
    block_q: int = struct.field(pytree_node=False)
    block_k: int = struct.field(pytree_node=False)
    window: int | None = struct.field(pytree_node=False)
    platform: Literal["tpu", "gpu"] = struct.field(pytree_node=False)
    packed: bool = struct.field(pytree_node=False)
    tree: bool = struct.field(pytree_node=False)
    branches: tuple[int, int] | None = struct.field(pytree_node=False, default=None)

    @property
    def longest(self) -> int:
        """The columns that a sequence may have."""
        return sum(self.branches) if self.branches else self.time


def make_schedule(
    positions: Int[Array, "batch time"],
    segment_ids: Int[Array, "batch time"] | None = None,
    parents: Int[Array, "batch time"] | None = None,
    *,
    window: int | None = None,
    group: int = 1,
    block_q: int | None = None,
    block_k: int | None = None,
    platform: Literal["tpu", "gpu"] | None = None,
    branches: tuple[int, int] | None = None,
) -> Schedule:
    """The schedule of a batch of rows.

    Positions increase along each segment and continue those of its parent; a parent precedes its children in the row.
    Skipping is exact if ids ascend along the row, as in packing; in any other order the result is the same and some
    blocks are visited unnecessarily.

    Args:
      positions: of each token in its own sequence.
      segment_ids: 0 for padding, which neither attends nor is attended to. None: each row is one sequence.
      parents: the segment that a token's segment continues, 0 for none. None: no token has one.
      window: a query attends to keys less than this many positions back. None: all.
      group: query heads of one key/value head, which the default block sizes depend on.
      block_q, block_k: queries and keys in a block; one must be a multiple of the other. Larger blocks need fewer
        steps and more memory, and skip less. None: the default of the platform.
      platform: whose kernels visit the blocks: on TPU in the order of their indices, on GPU those without a mask first.
        None: the target platform's, on CPU the TPU's.
      branches: the number of columns of a row's prompt, which come first, and of each response to it, whose columns
        have one segment besides padding. None: segments are anywhere in the row.

    Raises:
      ValueError: sizes are not positive, neither block size divides the other, or parents come without segment ids.
    """
    if platform is None:
        platform = "gpu" if target_platform() == "gpu" else "tpu"
    defaults = default_blocks(group, platform)
    block_q, block_k = block_q or defaults[0], block_k or defaults[1]
    if min(block_q, block_k) < 1 or max(block_q, block_k) % min(block_q, block_k):
        raise ValueError(f"block_q={block_q} and block_k={block_k}: one must be a multiple of the other")
    if window is not None and window < 1:
        raise ValueError(f"window={window}: a token attends at least to itself; None for no window")
    if parents is not None and segment_ids is None:
        raise ValueError("parents name segments: give segment_ids too")
    time, packed, tree = positions.shape[1], segment_ids is not None, parents is not None
    segment_ids = jnp.ones_like(positions) if segment_ids is None else segment_ids
    parents = jnp.zeros_like(positions) if parents is None else parents
    padding = ((0, 0), (0, -time % max(block_q, block_k)))
    segment, parent, position = (jnp.pad(x.astype(jnp.int32), padding) for x in (segment_ids, parents, positions))

    active, full = _pairs(segment, parent, position, window, block_q, block_k)
    oldest = jnp.full_like(position, -(2**30)) if window is None else position - window + 1
    rows = [segment, position, jnp.where(segment, segment, NOBODY), jnp.where(parent, parent, NOBODY), oldest]
    ids = jnp.stack(rows + [jnp.zeros_like(segment)] * (ID_ROWS - len(rows)), axis=1)
    # An upper bound of the visible pairs, as attention is causal.
    capacity = int(np.sum(_causal(active.shape[1:], block_q, block_k)))
    unmasked_first = platform == "gpu"
    by_query = block_pairs(active, full, capacity, unmasked_first)
    by_key = block_pairs(active.swapaxes(1, 2), full.swapaxes(1, 2), capacity, unmasked_first)
    return Schedule(ids, by_query, by_key, time, block_q, block_k, window, platform, packed, tree, branches)


def default_blocks(group: int, platform: Literal["tpu", "gpu"]) -> tuple[int, int]:
    """Queries and keys in a block. On TPU 1,024 rows of stacked heads by 512 keys, where the kernels' count of
    instructions per score is lowest (`experiments/benchmarks/bundles.py`); on GPU the fastest of those measured on an
    H200."""
    if platform == "gpu":
        return 64, 64
    return max(128, min(512, 1024 // group // 128 * 128)), 512


def _causal(blocks: tuple[int, int], block_q: int, block_k: int) -> np.ndarray:
    """True where a block of queries has a token at or after the first of a block of keys."""
    last, first = (np.arange(blocks[0]) + 1) * block_q - 1, np.arange(blocks[1]) * block_k
    return last[:, None] >= first


def _pairs(
    segment: Int[Array, "batch time"],
    parent: Int[Array, "batch time"],
    position: Int[Array, "batch time"],
    window: int | None,
    block_q: int,
    block_k: int,
) -> tuple[Bool[Array, "batch q_blocks k_blocks"], Bool[Array, "batch q_blocks k_blocks"]]:
    """Two flags of each block pair: it must be visited; it is fully visible.

    Each query is compared with the bounds of the ids in each block of keys: time * blocks comparisons.
    """
    batch, time = segment.shape
    keys = segment.reshape(batch, 1, -1, block_k)  # [batch, 1, k_blocks, block_k]; one of queries below
    key_positions = position.reshape(keys.shape)
    nothing = jnp.iinfo(jnp.int32).max
    low = jnp.where(keys, keys, nothing).min(-1)
    high = keys.max(-1)
    newest = jnp.where(keys, key_positions, -nothing // 2).max(-1)
    oldest = key_positions.min(-1)
    one_segment = (keys.min(-1) == high) & (high > 0)
    first = np.arange(0, time, block_k)
    index = np.arange(time)[:, None]
    segment, parent, position = segment[..., None], parent[..., None], position[..., None]  # [batch, time, 1]

    own = (segment > 0) & (segment >= low) & (segment <= high)
    prefix = (segment > 0) & (parent > 0) & (parent >= low) & (parent <= high)
    some = (own | prefix) & (first <= index)
    every = one_segment & ((segment == high) | ((segment > 0) & (parent == high))) & (first + block_k - 1 <= index)
    if window is not None:
        some &= position - newest < window
        every &= position - oldest < window
    by_block = (batch, time // block_q, block_q, time // block_k)
    active, full = some.reshape(by_block).any(2), every.reshape(by_block).all(2)
    # The diagonal is always visited: every block of the outputs must be written once.
    q_start, k_start = np.arange(0, time, block_q)[:, None], np.arange(0, time, block_k)
    diagonal = (q_start < k_start + block_k) & (k_start < q_start + block_q)
    return active | diagonal, full


def block_pairs(
    active: Bool[Array, "batch outer inner"],
    full: Bool[Array, "batch outer inner"],
    capacity: int,
    unmasked_first: bool = False,
) -> BlockPairs:
    """The active pairs in order, at most `capacity` of them in a row.

    `unmasked_first` puts the full ones of each outer block before its others.
    """
    batch, _, inner = active.shape
    listed = jnp.stack([active & full, active & ~full] if unmasked_first else [active], axis=2)
    flat = listed.reshape(batch, -1)
    count = flat.sum(-1, keepdims=True, dtype=jnp.int32)
    pairs = jax.vmap(lambda row: jnp.nonzero(row, size=capacity, fill_value=0)[0])(flat).astype(jnp.int32)
    step = jnp.arange(capacity, dtype=jnp.int32)
    live = step < count
    pairs = jnp.take_along_axis(pairs, jnp.minimum(step, count - 1), axis=1)
    outer, column = pairs // (listed.shape[2] * inner), pairs % inner
    first = outer != jnp.roll(outer, 1, axis=1).at[:, 0].set(-1)
    last = (outer != jnp.roll(outer, -1, axis=1).at[:, -1].set(-1)) | (step == count - 1)
    masked = ~jnp.take_along_axis(full.reshape(batch, -1), outer * inner + column, axis=1)
    flags = jnp.where(live, LIVE + FIRST * first + LAST * last + MASKED * masked, 0).astype(jnp.int32)
    counts = listed.sum(-1, dtype=jnp.int32).reshape(batch, -1)
    return BlockPairs(outer, column, flags, jnp.pad(counts.cumsum(-1, dtype=jnp.int32), ((0, 0), (1, 0))))
