"""The online softmax against the softmax over all keys at once, in float64 NumPy."""

from functools import partial

import jax
import numpy as np
import pytest

from rlvr_jax.kernels import online_softmax as softmax
from tests.close import assert_close

ROWS, KEYS, DIM = 6, 24, 4
finish, merge = jax.jit(softmax.finish), jax.jit(softmax.merge)


@pytest.fixture(scope="module")
def tile():
    """Query, keys, values and a mask in which the last row reads nothing."""
    rng = np.random.default_rng(0)
    arrays = [np.float32(rng.normal(size=(n, DIM))) for n in (ROWS, KEYS, KEYS)]
    mask = rng.random((ROWS, KEYS)) < 0.5
    mask[-1], mask[:-1, 0] = False, True
    return *arrays, mask


@partial(jax.jit, static_argnames=("blocks", "width", "first", "soft_cap"))
def attend(tile, blocks, width=1, carry=None, first=0, soft_cap=None):
    query, keys, values, mask = tile
    carry = softmax.start(ROWS, DIM, width) if carry is None else carry
    for start, stop in zip([first, *blocks[:-1]], blocks, strict=True):
        at = slice(start, stop)
        carry = softmax.step(carry, query, keys[at], values[at], mask[:, at], scale=softmax.LOG2_E, soft_cap=soft_cap)
    return carry


def expected(tile, soft_cap=None):
    query, keys, values, mask = (np.asarray(x, np.float64) for x in tile)
    scores = query @ keys.T
    scores = scores if soft_cap is None else soft_cap * np.tanh(scores / soft_cap)
    weights = mask * np.exp(scores)
    total = weights.sum(1, keepdims=True)
    return np.where(total > 0, weights @ values / np.maximum(total, 1e-300), 0), np.log2(total[:-1])


@pytest.mark.parametrize("soft_cap", [None, 2.0])
@pytest.mark.parametrize("width", [1, 8])
@pytest.mark.parametrize("blocks", [(24,), (8, 16, 24), (4, 8, 24), (16, 20, 24)])
def test_any_blocks_give_the_softmax_over_all_keys(tile, blocks, width, soft_cap):
    output, log_sum = jax.device_get(finish(attend(tile, blocks, width, soft_cap=soft_cap)))
    assert log_sum.shape == (ROWS, width)
    expected_output, expected_log_sum = expected(tile, soft_cap)
    assert_close(output, expected_output, 1e-6)
    assert_close(log_sum[:-1, :1], expected_log_sum, 1e-6)
    assert not np.asarray(output[-1]).any()
    assert not np.exp2(-np.asarray(log_sum[-1])).any()


@pytest.mark.parametrize("width", [1, 8])
def test_a_block_that_nobody_reads_changes_no_bit(tile, width):
    *arrays, mask = tile
    hidden = (*arrays, mask & ~np.isin(np.arange(KEYS), range(8, 16)))
    carry = attend(hidden, (8,), width)
    after = attend(hidden, (16,), width, carry=carry, first=8)
    jax.tree.map(np.testing.assert_array_equal, after, carry)
    untouched = attend((*arrays, np.zeros_like(mask)), (24,), width)
    jax.tree.map(np.testing.assert_array_equal, untouched, softmax.start(ROWS, DIM, width))


def test_a_mask_that_hides_nothing_changes_no_bit(tile):
    *arrays, mask = tile
    step, carry = jax.jit(softmax.step), softmax.start(ROWS, DIM)
    jax.tree.map(np.testing.assert_array_equal, step(carry, *arrays, np.ones_like(mask)), step(carry, *arrays))


@pytest.mark.parametrize("width", [1, 8])
def test_keys_that_were_read_apart_merge(tile, width):
    parts = attend(tile, (8,), width), attend(tile, (24,), width, first=8)
    output, log_sum = jax.device_get(finish(merge(*parts)))
    expected_output, expected_log_sum = expected(tile)
    assert_close(output, expected_output, 1e-6)
    assert_close(log_sum[:-1, :1], expected_log_sum, 1e-6)
