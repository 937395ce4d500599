"""Best-of-n sampling by a proxy of the reward: its expected reward, its distance from the policy, and fitted curves."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike


def best_of_n(
    rewards: Float[np.ndarray, "problems samples"],
    proxies: Float[np.ndarray, "problems samples"],
    numbers: Sequence[int],
) -> Float[np.ndarray, "numbers"]:
    """The expected reward of the sample of the highest proxy among n, for each n, unbiased.

    The mean over all subsets of n of the N samples of a problem: sum_j C(j - 1, n - 1) / C(N, n) r_(j), with the
    rewards in ascending order of their proxies; of equal proxies all orders count alike.

    Args:
      rewards: of independent samples of each problem.
      proxies: by which the best is chosen.
      numbers: the n, from 1 to the number of samples.

    Raises:
      ValueError: an n is out of range.
    """
    count = rewards.shape[1]
    if wrong := [n for n in numbers if not 1 <= n <= count]:
        raise ValueError(f"best of {wrong[0]} needs 1 to {count} samples of each problem")
    order = np.argsort(proxies, axis=1, kind="stable")
    ordered, keys = (np.take_along_axis(x, order, axis=1).astype(np.float64) for x in (rewards, proxies))
    for row, key in zip(ordered, keys, strict=True):  # equal proxies share the mean of their rewards
        _, place = np.unique(key, return_inverse=True)
        row[:] = (np.bincount(place, row) / np.bincount(place))[place]
    weights = np.array([[math.comb(j, n - 1) / math.comb(count, n) for j in range(count)] for n in numbers])
    return weights @ ordered.mean(axis=0)


def best_of_n_kl(n: int) -> float:
    """log n - (n - 1) / n, the KL divergence (nats of a response) of the policy that best-of-n makes.

    Exact for proxies without ties, and otherwise an upper bound (Beirami et al. 2024, arXiv:2401.01879).
    """
    return math.log(n) - (n - 1) / n


def fit_best_of_n(distances: ArrayLike, gains: ArrayLike) -> tuple[float, float, float]:
    """(a, b, share of the variance that remains) of gain = d (a - b d), by least squares.

    d is the square root of the KL divergence. Source: Gao, Schulman & Hilton 2022 (arXiv:2210.10760), section 3.1.
    """
    d = np.asarray(distances, float)
    return _fit(np.stack([d, -(d**2)], axis=1), gains)


def fit_rl(distances: ArrayLike, gains: ArrayLike) -> tuple[float, float, float]:
    """(a, b, share of the variance that remains) of gain = d (a - b log d), by least squares. Source: as above.

    Its slope at d = 0 is infinite, so that the fit is for distances above 0.

    Raises:
      ValueError: a distance is not above 0.
    """
    d = np.asarray(distances, float)
    if not np.all(d > 0):
        raise ValueError(f"the fit of d (a - b log d) needs distances above 0, not {d.min()}; leave such points out")
    return _fit(np.stack([d, -d * np.log(d)], axis=1), gains)


def _fit(columns: Float[np.ndarray, "points 2"], gains: ArrayLike) -> tuple[float, float, float]:
    y = np.asarray(gains, float)
    (a, b), *_ = np.linalg.lstsq(columns, y, rcond=None)
    remains = np.var(y - columns @ np.array([a, b])) / np.var(y)
    return float(a), float(b), float(remains)
