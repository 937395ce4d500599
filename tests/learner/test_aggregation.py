"""Weights of tokens against the formulas, on ragged lengths."""

import numpy as np
import pytest

from rlvr_jax.learner.aggregation import token_weights

LENGTHS = [5, 0, 1, 3, 5, 2]
MASK = (np.arange(5) < np.array(LENGTHS)[:, None]).astype(np.float32)


def test_the_token_mean_weighs_every_action_of_the_update_the_same():
    weights = token_weights("token_mean", MASK, 5)
    np.testing.assert_allclose(weights, MASK / sum(LENGTHS), rtol=1e-6)
    assert weights.dtype == np.float32
    assert not token_weights("token_mean", np.zeros_like(MASK), 5).any()


@pytest.mark.parametrize("max_length", [5, 8])
def test_constant_weights_depend_on_no_length(max_length):
    weights = token_weights("constant", MASK, max_length)
    np.testing.assert_allclose(weights, MASK / (len(LENGTHS) * max_length), rtol=1e-6)
    shorter = MASK.copy()
    shorter[0, 1:] = shorter[4] = 0  # one sample ends earlier, one is left out
    np.testing.assert_array_equal(token_weights("constant", shorter, max_length), weights * shorter)
    other = token_weights("token_mean", shorter, max_length)
    assert other[3, 0] > token_weights("token_mean", MASK, max_length)[3, 0]
