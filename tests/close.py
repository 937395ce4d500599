"""Equality up to rounding, on any processor."""

import jax
import numpy as np


def assert_close(actual, expected, tolerance: float = 1e-5, terms: float = 0.0, name: str = "") -> None:
    """Each array of a tree is finite and equals the expected one to `tolerance` times its largest term.

    Instruction sets, thread counts and shapes change the order of sums and which products are fused into them. So
    errors have the size of the largest terms, also in elements where terms cancel. 1e-5 is 84 units in the last place
    of float32.

    Args:
      actual, expected: trees of the same leaves in the same order.
      tolerance: relative to the largest term of an array.
      terms: the size of the largest term where the array's largest element may be less: a log-prob is the difference
        of a logit and the logarithm of a sum.
      name: what messages call the tree.
    """
    for (path, x), y in zip(jax.tree.leaves_with_path(actual), jax.tree.leaves(expected), strict=True):
        x, y, label = np.asarray(x, np.float64), np.asarray(y, np.float64), name + jax.tree_util.keystr(path)
        assert x.shape == y.shape, label
        assert np.isfinite(x).all(), label
        largest = max(terms, np.max(np.abs(y), initial=0.0))
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * largest, err_msg=label)
