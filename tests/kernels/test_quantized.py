"""Vectors in 8 bits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax.kernels.quantized import rotated, rounded
from tests.close import assert_close


@pytest.mark.parametrize("dim", [1, 6, 64, 96])
def test_a_rotation_keeps_products(dim):
    x, y = map(jax.device_put, np.float32(np.random.default_rng(dim).normal(size=(2, 50, dim))))
    assert_close(jnp.sum(rotated(x) * rotated(y), -1), np.sum(np.float64(x) * np.float64(y), -1), terms=dim)
    assert dim == 1 or jnp.abs(rotated(x) - x).max() > 1


@pytest.mark.parametrize("dim", [64, 96])
def test_scores_of_keys_with_a_large_dimension_are_nearer_to_the_exact_ones_after_a_rotation(dim):
    rng = np.random.default_rng(dim)
    queries, keys = (rng.normal(size=(50, dim)) for _ in range(2))
    keys[:, 3] += 30
    exact = queries @ keys.T
    keys, queries = jnp.asarray(keys, jnp.float32), jnp.asarray(queries, jnp.float32)
    plain = np.abs(queries @ rounded(keys).T - exact).mean()
    assert np.abs(rotated(queries) @ rounded(rotated(keys)).T - exact).mean() < plain / 2


def test_zeros_stay():
    assert not rounded(jnp.zeros((2, 8))).any()
