"""Estimates from finite samples, with their uncertainty."""

import math
from collections.abc import Sequence

import numpy as np


def pass_at_k(num_samples: int, num_right: int, k: int) -> float:
    """Unbiased estimate of the probability that one of k samples is correct, from `num_samples` of a problem.

    Source: Chen et al. 2021 (arXiv:2107.03374), eq. 1, in the exact form 1 - C(n - c, k) / C(n, k).

    Raises:
      ValueError: k is not between 1 and `num_samples`, or `num_right` not between 0 and `num_samples`.
    """
    if not 1 <= k <= num_samples:
        raise ValueError(f"pass@{k} needs 1 <= k <= the number of samples, {num_samples}")
    if not 0 <= num_right <= num_samples:
        raise ValueError(f"num_right must be between 0 and the number of samples, {num_samples}, not {num_right}")
    return 1 - math.comb(num_samples - num_right, k) / math.comb(num_samples, k)


def mean_and_interval(values: Sequence[float], z: float = 1.959964) -> tuple[float, float, float]:
    """Mean of values in [0, 1] over independent problems, and the bounds of its 95 % Wilson interval.

    For values other than 0 and 1 the interval is conservative: binary values have the largest variance for a given
    mean. Unlike the normal interval it does not shrink to a point if all values are 0 or all are 1.

    Source: Wilson 1927, J. Am. Stat. Assoc. 22, 209-212.

    Raises:
      ValueError: there are no values, or one is not in [0, 1].
    """
    if len(values) == 0:
        raise ValueError("the mean of no values is not defined: it needs one at least")
    if not all(0 <= value <= 1 for value in values):
        raise ValueError(f"values must be in [0, 1], not {next(v for v in values if not 0 <= v <= 1)}")
    mean, count = float(np.mean(values)), len(values)
    centre = (mean + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(mean * (1 - mean) / count + z * z / (4 * count * count))
    return mean, max(0.0, min(mean, centre - half)), min(1.0, max(mean, centre + half))
