"""The block schedule against the rule, one pair of tokens at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax.kernels.schedule import FIRST, LAST, LIVE, MASKED, make_schedule
from tests.kernels.rows import random_rows, readable

TIME, BATCH = 91, 2
BLOCKS = [(8, 16), (16, 8), (16, 16)]
make_jit = jax.jit(make_schedule, static_argnames=("window", "group", "block_q", "block_k", "platform"))


def make(*rows, window=None, platform="tpu", **blocks):
    """The schedule as NumPy arrays."""
    return jax.tree.map(np.asarray, make_jit(*rows, window=window, platform=platform, **blocks))


def pairs(steps, row):
    """(outer, inner, flags) of the real steps of a row."""
    count = int(steps.starts[row, -1])
    return [tuple(int(x[row, i]) for x in (steps.outer, steps.inner, steps.flags)) for i in range(count)]


def reads_by_block(rows, block_q, block_k, window):
    """Whether any, whether all queries of a block read the keys of another; padded to whole blocks."""
    pad = -TIME % max(block_q, block_k)
    reads = np.pad(readable(*rows, window), ((0, 0), (0, pad), (0, pad)))
    shape = reads.shape[1]
    reads = reads.reshape(BATCH, shape // block_q, block_q, shape // block_k, block_k)
    return reads.any((2, 4)), reads.all((2, 4))


@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize(("block_q", "block_k"), BLOCKS)
def test_a_schedule_visits_every_readable_pair_and_unmasks_only_pairs_read_in_full(block_q, block_k, window):
    for seed in range(20):
        rows = random_rows(np.random.default_rng(seed), BATCH, TIME)
        schedule = make(*rows, window=window, block_q=block_q, block_k=block_k)
        some, every = reads_by_block(rows, block_q, block_k, window)
        for row in range(BATCH):
            steps = pairs(schedule.by_query, row)
            visited = {(i, j) for i, j, _ in steps}
            assert set(zip(*np.nonzero(some[row]), strict=True)) <= visited
            assert len(visited) == len(steps)
            assert all(every[row, i, j] for i, j, flags in steps if not flags & MASKED)


@pytest.mark.parametrize(("block_q", "block_k"), BLOCKS)
def test_besides_the_diagonal_only_readable_blocks_are_visited(block_q, block_k):
    for seed in range(20):
        rows = random_rows(np.random.default_rng(seed), BATCH, TIME)
        schedule = make(*rows, block_q=block_q, block_k=block_k)
        some, _ = reads_by_block(rows, block_q, block_k, None)
        for row in range(BATCH):
            for i, j, _ in pairs(schedule.by_query, row):
                diagonal = i * block_q < (j + 1) * block_k and j * block_k < (i + 1) * block_q
                assert some[row, i, j] or diagonal


@pytest.mark.parametrize(("block_q", "block_k"), BLOCKS)
def test_each_block_is_entered_and_left_once_and_the_transpose_has_the_same_pairs(block_q, block_k):
    for seed in range(10):
        schedule = make(*random_rows(np.random.default_rng(seed), BATCH, TIME), block_q=block_q, block_k=block_k)
        padded = schedule.ids.shape[-1]
        for row in range(BATCH):
            for steps, blocks in [(schedule.by_query, padded // block_q), (schedule.by_key, padded // block_k)]:
                found = pairs(steps, row)
                assert found == sorted(found)
                assert all(flags & LIVE for *_, flags in found)
                for flag, edge in [(FIRST, 0), (LAST, -1)]:
                    edges = [[p for p in found if p[0] == outer][edge] for outer in range(blocks)]
                    assert [p for p in found if p[2] & flag] == edges
                starts = [sum(p[0] < outer for p in found) for outer in range(blocks + 1)]
                assert schedule.by_query.starts.dtype == np.int32
                np.testing.assert_array_equal(steps.starts[row], starts)
                idle = np.asarray(steps.flags[row, len(found) :])
                assert not idle.any()
                last = np.stack([steps.outer[row, len(found) :], steps.inner[row, len(found) :]], 1)
                assert (last == found[-1][:2]).all()
            masked = lambda steps: {(i, j, f & MASKED) for i, j, f in steps}  # noqa: E731
            transposed = {(j, i, f) for i, j, f in masked(pairs(schedule.by_key, row))}
            assert masked(pairs(schedule.by_query, row)) == transposed


@pytest.mark.parametrize(("block_q", "block_k"), BLOCKS)
def test_on_gpus_each_block_s_pairs_without_a_mask_come_first(block_q, block_k):
    for seed in range(10):
        rows = random_rows(np.random.default_rng(seed), BATCH, TIME)
        schedule = make(*rows, block_q=block_q, block_k=block_k, platform="gpu")
        usual = make(*rows, block_q=block_q, block_k=block_k, platform="tpu")
        for steps, expected in ((schedule.by_query, usual.by_query), (schedule.by_key, usual.by_key)):
            for row in range(BATCH):
                kind = lambda pair: (pair[0], pair[2] & MASKED, pair[1])  # noqa: E731
                wanted = sorted(pairs(expected, row), key=kind)
                found = pairs(steps, row)
                assert [kind(pair) for pair in found] == [kind(pair) for pair in wanted]
                starts = [
                    sum(kind(p)[:2] < (i, m) for p in found) for i in range(wanted[-1][0] + 1) for m in (0, MASKED)
                ]
                np.testing.assert_array_equal(steps.starts[row], [*starts, len(found)])


def test_ids_in_any_order_lose_no_readable_pair():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        rows = random_rows(rng, BATCH, TIME)
        names = np.concatenate([[0], rng.permutation(TIME) + 1]).astype(np.int32)
        rows = rows[0], names[rows[1]], names[rows[2]]
        schedule = make(*rows, block_q=8, block_k=16)
        some, every = reads_by_block(rows, 8, 16, None)
        for row in range(BATCH):
            steps = pairs(schedule.by_query, row)
            assert set(zip(*np.nonzero(some[row]), strict=True)) <= {(i, j) for i, j, _ in steps}
            assert all(every[row, i, j] for i, j, flags in steps if not flags & MASKED)


def test_a_prompt_before_sixteen_responses_is_skipped_by_nobody_and_siblings_by_all():
    prompt, response, group = 64, 32, 16
    lengths = [prompt] + [response] * group
    segments = np.repeat(np.arange(group + 1, dtype=np.int32) + 1, lengths)[None]
    parents = np.where(segments > 1, 1, 0).astype(np.int32)
    offsets = np.concatenate([np.arange(n) + (prompt if i else 0) for i, n in enumerate(lengths)])
    schedule = make(offsets[None].astype(np.int32), segments, parents, block_q=32, block_k=32)
    steps = [(i, j) for i, j, _ in pairs(schedule.by_query, 0)]
    assert steps == [(0, 0), (1, 0), (1, 1)] + [(i, j) for i in range(2, 18) for j in (0, 1, i)]
    unmasked = [(i, j) for i, j, flags in pairs(schedule.by_query, 0) if not flags & MASKED]
    assert unmasked == [(1, 0)] + [(i, j) for i in range(2, 18) for j in (0, 1)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"block_q": 8, "block_k": 12}, "one must be a multiple of the other"),
        ({"window": 0}, "window=0"),
        ({"parents": jnp.zeros((1, 8), jnp.int32)}, "give segment_ids too"),
    ],
)
def test_sizes_that_make_no_schedule_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_schedule(jnp.zeros((1, 8), jnp.int32), **arguments)
