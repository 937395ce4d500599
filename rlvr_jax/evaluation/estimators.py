"""Estimates from finite samples, with their uncertainty."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy import special  # `scipy.stats` takes a second to import

_SUBSETS = 1000  # for maj@k
_DRAWS, _BLOCK = 10_000, 500  # of the bootstrap, and at a time


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


def majority_at_k(answers: Sequence[str | None], right: Sequence[bool], k: int) -> float:
    """Estimate of the probability that the most frequent answer of k samples is correct (self-consistency).

    A mean over `_SUBSETS` subsets of the samples, drawn without replacement by a fixed generator; all of them count
    alike where there is one subset alone. Answers are compared as text. Samples without an answer do not vote, and
    answers that are equally frequent are drawn from. An answer that is judged differently in different samples (by its
    form) is correct by the share of its votes that are.

    Source: Wang et al. 2023 (arXiv:2203.11171), section 2.

    Args:
      answers: that the verifier extracted from each sample; None without one.
      right: whether each sample is correct.
      k: size of the subsets.

    Raises:
      ValueError: k is not between 1 and the number of samples.
    """
    count = len(answers)
    if not 1 <= k <= count:
        raise ValueError(f"maj@{k} needs 1 <= k <= the number of samples, {count}")
    names = {answer: i for i, answer in enumerate(dict.fromkeys(x for x in answers if x is not None))}
    if not names:
        return 0.0
    votes = np.zeros((count, len(names)))
    for i, answer in enumerate(answers):
        if answer is not None:
            votes[i, names[answer]] = 1
    order = np.arange(count)[None] if k == count else np.tile(np.arange(count), (_SUBSETS, 1))
    chosen = np.random.default_rng(0).permuted(order, axis=1)[:, :k]
    total = votes[chosen].sum(1)
    good = (votes * np.array(right, float)[:, None])[chosen].sum(1)
    first = (total == total.max(1, keepdims=True)) & (total > 0)
    share = np.divide(good, total, out=np.zeros_like(good), where=total > 0)
    return float(np.mean((share * first).sum(1) / np.maximum(first.sum(1), 1)))


def paired_difference(values: Sequence[float], others: Sequence[float]) -> tuple[float, float, float, float]:
    """Mean difference of two policies on the same problems, its 95 % interval, and the p-value of no difference.

    Pairs tell more than two intervals do, because both policies find the same problems hard. The interval is that of
    the percentiles of a bootstrap over problems, from a fixed generator. The p-value is the share of means as far from
    0 if the sign of each difference is random (Fisher 1935, "The design of experiments", section 21): exactly for
    differences of one size, which is McNemar's test for results of 0 and 1, otherwise of random signs.

    Raises:
      ValueError: there are no problems, or not as many of both.
    """
    if not len(values) or len(values) != len(others):
        raise ValueError(f"pairs need as many values of both policies, not {len(values)} and {len(others)}")
    differences = np.asarray(values, float) - np.asarray(others, float)
    rng, size = np.random.default_rng(0), (_BLOCK, len(differences))
    means = [differences[rng.integers(len(differences), size=size)].mean(1) for _ in range(_DRAWS // _BLOCK)]
    low, high = np.percentile(np.concatenate(means), [2.5, 97.5])
    return float(differences.mean()), float(low), float(high), _p_of_signs(differences[differences != 0], rng)


def _p_of_signs(differences: Float[np.ndarray, "problems"], rng: np.random.Generator) -> float:
    sizes, total = np.abs(differences), abs(differences.sum())
    if not sizes.size or np.ptp(sizes) < 1e-9 * sizes.max():
        more = int((differences > 0).sum())
        return min(1.0, float(2 * special.bdtr(min(more, sizes.size - more), sizes.size, 0.5)))
    shape = _BLOCK, sizes.size
    sums = np.concatenate([np.abs(rng.choice((-1, 1), shape) @ sizes) for _ in range(_DRAWS // _BLOCK)])
    return float((1 + (sums >= total * (1 - 1e-9)).sum()) / (1 + sums.size))
