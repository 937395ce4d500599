"""Sizes of the tests of the GPU's kernels: small in interpret mode; on a GPU (pytest --gpu) those that it takes."""

from typing import Any

import jax
import pytest

INTERPRET = jax.default_backend() != "gpu"
DIM = 8 if INTERPRET else 64  # of a head
TIMES = 1 if INTERPRET else 4  # blocks and lengths are so many times as long


def marked(*parameters: Any) -> Any:
    """The parameters of a test, which --gpu chooses if "gpu" is one of them."""
    return pytest.param(*parameters, marks=[pytest.mark.gpu] if "gpu" in parameters else [])
