"""Confidence and length of responses against their accuracy, from the rows of an evaluation."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlvr_jax.evaluation.estimators import mean_and_interval
from rlvr_jax.evaluation.preferences import correlation

_BINS = 5
Rows = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Bin:
    """Problems that are alike.

    Attributes:
      at: mean of what they are alike in: the share of the majority, or the pass rate.
      value: mean of the other number, with its 95 % interval.
      count: of problems.
    """

    at: float
    value: tuple[float, float, float]
    count: int


def confidence(rows: Rows) -> tuple[list[Bin], float]:
    """Accuracy of the majority's answer by its share of the samples, and the expected calibration error.

    The error is the mean over problems of |share - accuracy| of their bin (Naeini et al. 2015; self-consistency as a
    confidence: Wang et al. 2023, arXiv:2203.11171, section 3.5). Of equally frequent answers the first said counts;
    samples without an answer are in the share's denominator. Problems without any answer are left out, and so are those
    of a single sample.
    """
    shares, right = [], []
    for row in rows:
        said = [x for x in row["samples"] if x["answer"] is not None]
        if not said or len(row["samples"]) < 2:
            continue
        answer, votes = Counter(x["answer"] for x in said).most_common(1)[0]
        shares.append(votes / len(row["samples"]))
        right.append(float(np.mean([x["score"] == 1 for x in said if x["answer"] == answer])))
    if not shares:
        return [], float("nan")
    shares, right = np.array(shares), np.array(right)
    place = np.minimum((shares * _BINS).astype(int), _BINS - 1)
    bins = [_bin(shares[place == i], right[place == i]) for i in range(_BINS) if (place == i).any()]
    return bins, sum(x.count * abs(x.at - x.value[0]) for x in bins) / len(shares)


def _bin(at: np.ndarray, value: np.ndarray) -> Bin:
    return Bin(float(at.mean()), mean_and_interval(value.tolist()), len(at))


def length_by_difficulty(rows: Rows) -> tuple[list[Bin], dict[str, float]]:
    """Mean length in tokens of the samples of problems by their pass rate, and numbers about it.

    Returns:
      Bins with a normal 95 % interval of the mean over problems.
      `length_difficulty`: Pearson's correlation of a problem's mean length with its share of wrong samples, and
      `longer_if_wrong`: how many tokens longer wrong samples are than right ones of the same problem, on average over
      the problems that have both.
    """
    rates, lengths, differences = [], [], []
    for row in rows:
        samples = [x for x in row["samples"] if x["error"] is None]
        if not samples:
            continue
        right = np.array([x["score"] == 1 for x in samples])
        length = np.array([x["length"] for x in samples], float)
        rates.append(float(right.mean()))
        lengths.append(float(length.mean()))
        if right.any() and not right.all():
            differences.append(float(length[~right].mean() - length[right].mean()))
    if not rates:
        return [], {}
    rates, lengths = np.array(rates), np.array(lengths)
    edges = [("none", rates == 0), ("some", (rates > 0) & (rates < 0.5)), ("most", (rates >= 0.5) & (rates < 1))]
    bins = [_mean(rates[own], lengths[own]) for _, own in [*edges, ("all", rates == 1)] if own.any()]
    found = {"length_difficulty": correlation(lengths, 1 - rates)}
    return bins, found | ({"longer_if_wrong": float(np.mean(differences))} if differences else {})


def _mean(at: np.ndarray, value: np.ndarray) -> Bin:
    half = 1.96 * float(np.std(value, ddof=1)) / np.sqrt(len(value)) if len(value) > 1 else 0.0
    mean = float(value.mean())
    return Bin(float(at.mean()), (mean, mean - half, mean + half), len(at))
