"""Random rounding to bfloat16: right on average, and exact where there is nothing to round."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax.learner.rounding import added, randomly_rounded

KEY = jax.random.key(3)


@pytest.mark.parametrize("value", [0.02, -0.02, 1.0009, 3e-9, -7.3e20])
def test_the_mean_of_rounded_numbers_is_the_number_and_each_is_a_neighbour(value):
    x, count = np.float32(value), 4096
    rounded = np.asarray(randomly_rounded(KEY, jnp.full(count, x)).astype(jnp.float32), np.float64)
    found = np.unique(rounded)
    assert len(found) == 2
    low, high = found
    assert low < x < high
    assert high - low <= abs(x) * 2**-7
    np.testing.assert_allclose(rounded.mean(), x, rtol=0, atol=5 * (high - low) / 2 / count**0.5)


def test_numbers_of_bfloat16_stay_as_they_are():
    x = jnp.asarray([0.0, -0.0, 1.0, -1.5, 2.0**-126, 3.0e38, jnp.inf, -jnp.inf], jnp.bfloat16)
    np.testing.assert_array_equal(np.asarray(randomly_rounded(KEY, x.astype(jnp.float32))), np.asarray(x))


def test_many_updates_far_below_the_precision_of_their_parameters_add_up():
    x = jax.random.normal(KEY, (64, 64)).astype(jnp.bfloat16) * 0.02
    params = {"half": x, "whole": x.astype(jnp.float32)}
    new, steps, size = params, 50, 1e-6
    step = jax.jit(lambda p, i: added(p, jax.tree.map(lambda x: jnp.full(x.shape, size), p), i))
    for i in range(steps):
        new = step(new, jnp.int32(i))
    assert (new["half"].dtype, new["whole"].dtype) == (jnp.bfloat16, jnp.float32)
    moved = jax.tree.map(lambda a, b: np.asarray(a, np.float64) - np.asarray(b, np.float64), new, params)
    np.testing.assert_allclose(moved["whole"], steps * size, rtol=1e-2)  # each step rounds, too
    assert np.mean(moved["half"]) == pytest.approx(steps * size, rel=0.1)


def test_random_bits_are_those_of_the_update_and_differ_between_arrays_and_updates():
    params = [jnp.full(256, 0.02, jnp.bfloat16)] * 2
    updates = [jnp.full(256, 1e-5)] * 2
    first, again, other = (added(params, updates, jnp.int32(number)) for number in (7, 7, 8))
    np.testing.assert_array_equal(np.asarray(first), np.asarray(again))
    assert not np.array_equal(np.asarray(first[0]), np.asarray(first[1]))
    assert not np.array_equal(np.asarray(first), np.asarray(other))
