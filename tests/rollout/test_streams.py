"""Random streams on the host, against those of JAX."""

import jax
import numpy as np
import pytest

from rlvr_jax.rollout.streams import episode_keys, fold_in, stream_of

NUMBERS = np.array([0, 1, 2, 77, 2**31, 2**32 - 1], np.uint32)


@pytest.mark.parametrize("kind", ["threefry2x32", "rbg"])
def test_streams_are_those_of_jax(kind):
    for seed in (0, 7, 2**31 - 1):
        key = jax.random.fold_in(jax.random.key(seed, impl=kind), 5)
        expected = jax.random.key_data(jax.vmap(jax.random.fold_in, (None, 0))(key, NUMBERS))
        np.testing.assert_array_equal(episode_keys(key, NUMBERS.tolist()), expected)
        np.testing.assert_array_equal(episode_keys(stream_of(key), NUMBERS.tolist()), expected)
        of_two = jax.random.fold_in(jax.random.fold_in(key, 3), 9)
        np.testing.assert_array_equal(fold_in(stream_of(key), 3, 9), jax.random.key_data(of_two))


def test_no_episodes_have_no_streams():
    assert episode_keys(jax.random.key(0), []).shape == (0, 2)
