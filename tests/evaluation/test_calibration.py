"""Confidence and length against correctness, on rows whose numbers are known."""

import math

import pytest

from rlvr_jax.evaluation import mean_and_interval
from rlvr_jax.evaluation.calibration import confidence, length_by_difficulty


def row(*samples):
    """Samples of (answer, score, length)."""
    return {"samples": [{"answer": a, "score": s, "length": n, "error": None} for a, s, n in samples]}


def test_the_share_of_the_majority_is_held_against_its_accuracy():
    rows = [
        row(("7", 1, 1), ("7", 1, 1), ("8", 0, 1), ("7", 1, 1)),
        row(("7", 0, 1), ("7", 0, 1), ("7", 0, 1), (None, 0, 1)),
        row(("1", 1, 1), ("2", 0, 1), ("3", 0, 1), (None, 0, 1)),
        row((None, 0, 1), (None, 0, 1)),
        row(("1", 1, 1)),
    ]
    bins, error = confidence(rows)
    assert [(x.at, x.value, x.count) for x in bins] == [
        (0.25, mean_and_interval([1.0]), 1),
        (0.75, mean_and_interval([1.0, 0.0]), 2),
    ]
    assert error == pytest.approx((0.75 + 2 * 0.25) / 3)
    assert confidence(rows[3:])[0] == []
    assert math.isnan(confidence(rows[3:])[1])


def test_wrong_samples_are_longer_and_so_are_hard_problems():
    rows = [
        row(("a", 1, 10), ("a", 1, 20)),
        row(("a", 1, 10), ("b", 0, 30)),
        row(("a", 1, 20), ("b", 0, 50)),
        row(("b", 0, 60), ("b", 0, 80)),
    ]
    bins, told = length_by_difficulty(rows)
    assert [(x.at, x.value[0], x.count) for x in bins] == [(0.0, 70.0, 1), (0.5, 27.5, 2), (1.0, 15.0, 1)]
    assert bins[1].value[2] - 27.5 == pytest.approx(1.96 * 10.6066 / math.sqrt(2), rel=1e-4)
    assert told["longer_if_wrong"] == 25.0
    assert 0.9 < told["length_difficulty"] < 1.0
    assert length_by_difficulty([]) == ([], {})
