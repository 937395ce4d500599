"""Held-out preferences: accuracy, calibration and the bias for length, from the rewards of both completions."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from rlvr_jax.evaluation.estimators import mean_and_interval

_BINS = 10  # of probabilities from 0.5 to 1


@dataclass(frozen=True)
class Bin:
    """Pairs of which the model is about equally sure.

    Attributes:
      predicted: mean probability that it gives the completion which it prefers.
      right: share of pairs in which that is the chosen one, with the bounds of its interval.
      count: of pairs.
    """

    predicted: float
    right: tuple[float, float, float]
    count: int


def accuracy(right: Float[np.ndarray, "pairs"]) -> dict[str, float]:
    """Metrics of the accuracy on held-out preferences; 0.5 counts for equal rewards."""
    mean, low, high = mean_and_interval(right.tolist())
    names = ("eval/preference_accuracy", "eval/preference_accuracy_low", "eval/preference_accuracy_high")
    return dict(zip(names, (mean, low, high), strict=True)) | {"eval/preference_pairs": float(len(right))}


def describe(rewards: Float[np.ndarray, "pairs 2"], lengths: Float[np.ndarray, "pairs 2"]) -> dict[str, float]:
    """Metrics of held-out pairs, the chosen completion first.

    The bias for length is seen by comparing, over pairs of different lengths, how often the longer completion is chosen
    with how often the model prefers it, and by the correlation of the differences of rewards and of lengths.
    """
    margins = rewards[:, 0] - rewards[:, 1]
    right = np.where(margins == 0, 0.5, margins > 0)
    longer = np.sign(lengths[:, 0] - lengths[:, 1])
    differ, found = longer != 0, accuracy(right)
    found |= {"eval/preference_margin": float(np.mean(margins)), "eval/calibration_error": calibration_error(margins)}
    if differ.any():
        preferred = np.where(longer[differ] > 0, right[differ], 1 - right[differ])
        found["eval/longer_chosen"] = float(np.mean(longer[differ] > 0))
        found["eval/longer_preferred"] = float(np.mean(preferred))
        found["eval/length_correlation"] = correlation(margins, lengths[:, 0] - lengths[:, 1])
    return found


def correlation(x: Float[np.ndarray, "n"], y: Float[np.ndarray, "n"]) -> float:
    """Pearson's; 0 if either is constant."""
    x, y = x.astype(np.float64) - np.mean(x, dtype=np.float64), y.astype(np.float64) - np.mean(y, dtype=np.float64)
    scale = np.sqrt(np.sum(x**2) * np.sum(y**2))
    return float(np.sum(x * y) / scale) if scale > 0 else 0.0


def calibration(margins: Float[np.ndarray, "pairs"]) -> list[Bin]:
    """Pairs by the probability sigmoid(|margin|) that the model gives its preference, in ten equal bins from 0.5 to 1;
    empty ones are left out."""
    probability = 1 / (1 + np.exp(-np.abs(margins.astype(np.float64))))
    right = np.where(margins == 0, 0.5, margins > 0)
    place = np.minimum((2 * _BINS * (probability - 0.5)).astype(int), _BINS - 1)
    return [
        Bin(float(np.mean(probability[of])), mean_and_interval(right[of].tolist()), int(of.sum()))
        for of in (place == i for i in range(_BINS))
        if of.any()
    ]


def calibration_error(margins: Float[np.ndarray, "pairs"]) -> float:
    """The mean over pairs of |predicted - right| of their bin (Naeini et al. 2015, "expected calibration error")."""
    return sum(x.count * abs(x.predicted - x.right[0]) for x in calibration(margins)) / len(margins)
