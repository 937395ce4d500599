"""Statistics of curves over seeds: pure functions of arrays.

Seeds are few, so intervals and tests are those for small samples: bootstrap quantiles are widened as Student's t is
against the normal distribution, and differences are paired by seed.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy import special  # `scipy.stats` takes a second to import

FEWEST = 3  # seeds of an interval or a test: two may be alike by chance
_ALL_RESAMPLES = 50_000  # the most that are enumerated
_RESAMPLES = 10_000  # random ones otherwise
_MOST_SEEDS = 10_000


def area(steps: Sequence[float], values: Sequence[float]) -> float:
    """The mean height of a curve: its area by the trapezoidal rule over its span; of one point, its value.

    Raises:
      ValueError: there are no points, or their steps do not increase.
    """
    if not len(steps) or len(steps) != len(values) or np.any(np.diff(steps) <= 0):
        raise ValueError(f"a curve needs points at increasing steps, not {steps} with {len(values)} values")
    if len(steps) == 1:
        return float(values[0])
    return float(np.trapezoid(values, steps) / (steps[-1] - steps[0]))


def first_reaching(places: Sequence[float], values: Sequence[float], threshold: float) -> float | None:
    """The place at which a curve first reaches a threshold, interpolated between its points; None if it does not."""
    for i, value in enumerate(values):
        if value >= threshold:
            if i == 0:
                return float(places[0])
            share = (threshold - values[i - 1]) / (value - values[i - 1])
            return float(places[i - 1] + share * (places[i] - places[i - 1]))
    return None


def bootstrap_interval(
    values: Float[np.ndarray, "seeds *points"], level: float = 0.95
) -> tuple[Float[np.ndarray, "*points"], Float[np.ndarray, "*points"]]:
    """Bounds of the bootstrap interval of the mean over seeds, at each point; NaN with less than `FEWEST`.

    The expanded percentile interval of Hesterberg 2014 (arXiv:1411.5279): quantiles of the means of resamples, at
    Phi(+-t sqrt(n / (n - 1))), where t is the quantile (1 + level) / 2 of Student's distribution with n - 1 degrees of
    freedom. A mean of 5 seeds has few resamples, so its interval still covers somewhat less than `level`. All resamples
    are taken if they are at most 50,000, otherwise 10,000 random ones, the same each time.
    """
    count = len(values)
    if count < FEWEST:
        nothing = np.full(values.shape[1:], np.nan)
        return nothing, nothing
    if count**count <= _ALL_RESAMPLES:
        chosen = np.indices((count,) * count).reshape(count, -1).T
    else:
        chosen = np.random.default_rng(count).integers(count, size=(_RESAMPLES, count))
    weights = np.stack([np.mean(chosen == i, axis=1) for i in range(count)], axis=1)
    quantile = special.stdtrit(count - 1, (1 + level) / 2) * math.sqrt(count / (count - 1))
    tail = float(special.ndtr(-quantile))
    means = np.tensordot(weights, values, axes=1)
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return low, high


def prediction_interval(
    values: Float[np.ndarray, "seeds *points"],
    new: int = 1,
    level: float = 0.95,
    least: Float[np.ndarray, "*points"] | float = 0.0,
) -> tuple[Float[np.ndarray, "*points"], Float[np.ndarray, "*points"]]:
    """Bounds within which the mean of `new` further seeds lies, at each point; NaN with less than `FEWEST`.

    mean +- t s sqrt(1 / n + 1 / new), for normal values: Student's interval for a future mean. The standard deviation s
    is taken as `least` at least.
    """
    count = len(values)
    if count < FEWEST:
        nothing = np.full(values.shape[1:], np.nan)
        return nothing, nothing
    deviation = np.maximum(np.std(values, axis=0, ddof=1), least)
    half = special.stdtrit(count - 1, (1 + level) / 2) * deviation * math.sqrt(1 / count + 1 / new)
    return np.mean(values, axis=0) - half, np.mean(values, axis=0) + half


def paired_p(differences: Float[np.ndarray, "seeds"], resolution: float = 0.0) -> float:
    """Two-sided p-value of Student's paired t-test; 1 for a single seed.

    Args:
      differences: of each seed.
      resolution: distance between neighbouring values of the two numbers that are subtracted. The standard deviation
        is taken as at least that of their rounding, resolution / sqrt(6): few seeds may have equal differences by
        chance.
    """
    count = len(differences)
    if count < 2:
        return 1.0
    mean, deviation = float(np.mean(differences)), _deviation(differences, resolution)
    if deviation == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * special.stdtr(count - 1, -abs(mean) / deviation * math.sqrt(count)))


def holm(p: Sequence[float]) -> list[float]:
    """p-values corrected for their number: Holm 1979, Scandinavian Journal of Statistics 6, 65-70.

    The k-th smallest of m is multiplied by m - k + 1, is no smaller than the ones before, and at most 1. If those of at
    most 0.05 are rejected, the probability of any false rejection is at most 0.05.
    """
    corrected, largest = [0.0] * len(p), 0.0
    for rank, i in enumerate(np.argsort(p, kind="stable")):
        largest = max(largest, min(1.0, p[i] * (len(p) - rank)))
        corrected[i] = largest
    return corrected


def seeds_needed(
    differences: Float[np.ndarray, "seeds"], level: float, resolution: float = 0.0, power: float = 0.8
) -> int | None:
    """The number of seeds with which a difference like the one seen would be told from noise.

    That of a two-sided paired t-test at a p-value of `level` with this power, by the noncentral t distribution, for the
    mean and standard deviation seen, which are themselves uncertain. None if it is above 10,000, or unknown because
    there is a single seed.
    """
    if len(differences) < 2 or np.mean(differences) == 0:
        return None
    deviation = _deviation(differences, resolution)
    if deviation == 0:
        return 2
    effect = abs(float(np.mean(differences))) / deviation
    low, high = 2, _MOST_SEEDS
    if _power(high, effect, level) < power:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if _power(middle, effect, level) >= power else (middle + 1, high)
    return low


def _power(count: int, effect: float, level: float) -> float:
    """Of the t-test, by the tail in the direction of the effect."""
    missed = float(special.nctdtr(count - 1, effect * math.sqrt(count), special.stdtrit(count - 1, 1 - level / 2)))
    return 1.0 if math.isnan(missed) else 1 - missed  # by SciPy, for some below 1e-200


def _deviation(differences: Float[np.ndarray, "seeds"], resolution: float) -> float:
    deviation = float(np.std(differences, ddof=1))
    # Equal differences are equal up to rounding only.
    deviation = 0.0 if deviation < 1e-9 * float(np.max(np.abs(differences), initial=0.0)) else deviation
    return max(deviation, resolution / math.sqrt(6))
