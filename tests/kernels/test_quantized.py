"""Vectors in 8 bits."""

import jax
import numpy as np
import pytest

from rlvr_jax.kernels import quantized
from tests.close import assert_close

rotated, rounded = jax.jit(quantized.rotated), jax.jit(quantized.rounded)


@pytest.mark.parametrize("dim", [1, 6, 64, 96])
def test_a_rotation_keeps_products(dim):
    x, y = np.float32(np.random.default_rng(dim).normal(size=(2, 50, dim)))
    turned_x, turned_y = map(np.asarray, (rotated(x), rotated(y)))
    assert_close(np.sum(turned_x * turned_y, -1), np.sum(np.float64(x) * np.float64(y), -1), terms=dim)
    assert dim == 1 or np.abs(turned_x - x).max() > 1


@pytest.mark.parametrize("dim", [64, 96])
def test_scores_of_keys_with_a_large_dimension_are_nearer_to_the_exact_ones_after_a_rotation(dim):
    rng = np.random.default_rng(dim)
    queries, keys = (rng.normal(size=(50, dim)) for _ in range(2))
    keys[:, 3] += 30
    exact = queries @ keys.T
    keys, queries = np.float32(keys), np.float32(queries)
    plain = np.abs(queries @ np.asarray(rounded(keys)).T - exact).mean()
    turned = np.asarray(rotated(queries)) @ np.asarray(rounded(rotated(keys))).T
    assert np.abs(turned - exact).mean() < plain / 2


def test_zeros_stay():
    assert not np.asarray(rounded(np.zeros((2, 8), np.float32))).any()
