"""Bradley-Terry ratings against independent fits, intervals, and the control for length."""

import numpy as np
import pytest
from scipy.optimize import minimize

from rlvr_jax.evaluation.arena import SCALE, Battles, battles_of, fit, length_alone, rated, tells_intervals, wins


def made(strengths, gamma=0.0, problems=60, seed=0, ties=0.2):
    """Battles of every pair on every problem, drawn by the model."""
    rng, rows = np.random.default_rng(seed), []
    for p in range(problems):
        for i in range(len(strengths)):
            for j in range(i + 1, len(strengths)):
                style = rng.uniform(-0.8, 0.8)
                chance = 1 / (1 + np.exp(-(strengths[i] - strengths[j] + gamma * style)))
                outcome = rng.choice([0.5, float(rng.uniform() < chance)], p=[ties, 1 - ties])
                rows.append((i, j, p, outcome, style))
    first, second, problem, outcome, style = map(np.array, zip(*rows, strict=True))
    return Battles(tuple("abcdef"[: len(strengths)]), first, second, problem, outcome, style)


def minorised(battles, rounds=3000):
    """Strengths by Hunter's MM algorithm (2004), a tie being half a win of both; no prior."""
    count = len(battles.names)
    won = np.zeros((count, count))
    np.add.at(won, (battles.first, battles.second), battles.outcome)
    np.add.at(won, (battles.second, battles.first), 1 - battles.outcome)
    strength, met = np.ones(count), won + won.T
    for _ in range(rounds):
        strength = won.sum(1) / (met / (strength[:, None] + strength[None])).sum(1)
        strength /= np.exp(np.mean(np.log(strength)))
    return np.log(strength)


def test_ratings_are_those_of_another_algorithm():
    battles = made([0.0, 0.7, 1.5, -0.4])
    found = fit(battles, np.ones(len(battles.outcome)), control=False)
    np.testing.assert_allclose(found, minorised(battles), atol=3e-4)  # the prior has a weight of 0.01 of a battle


@pytest.mark.parametrize("control", [False, True])
def test_the_fit_is_the_maximum_of_the_weighted_likelihood(control):
    battles = made([0.0, 1.0, -0.5], gamma=1.2, problems=25, seed=3)
    weights = np.random.default_rng(1).integers(0, 4, len(battles.outcome)).astype(float)

    def negative(x):
        z = x[battles.first] - x[battles.second] + (x[3] * battles.style if control else 0.0)
        y = battles.outcome
        return np.sum(weights * (y * np.logaddexp(0, -z) + (1 - y) * np.logaddexp(0, z))) + 0.005 * np.sum(x**2)

    expected = minimize(negative, np.zeros(3 + control), method="BFGS", options={"gtol": 1e-8}).x
    expected[:3] -= expected[:3].mean()
    np.testing.assert_allclose(fit(battles, weights, control), expected, atol=1e-4)


@pytest.mark.parametrize(
    ("told", "rows"),
    [
        (False, [(0, 1, 0, 0.5)]),  # a single problem
        (False, [(0, 1, p, 1.0) for p in range(20)]),
        (True, [(0, 1, p, float(p > 0)) for p in range(20)]),
        (True, [(0, 1, p, 0.5) for p in range(2)]),
        # Two pairs of equals, one of which wins all battles with the other; then it loses one.
        (False, [(0, 1, 0, 0.5), (2, 3, 1, 0.5), (0, 2, 2, 1.0), (3, 1, 3, 0.0)]),
        (True, [(0, 1, 0, 0.5), (2, 3, 1, 0.5), (0, 2, 2, 1.0), (3, 1, 3, 1.0)]),
    ],
)
def test_intervals_are_told_only_where_a_bootstrap_can_tell_them(told, rows):
    battles = battles_of("abcd", rows, np.full((20, 4), 7))
    found = rated(battles, draws=3)
    assert tells_intervals(battles) is told
    assert {x.low is not None for x in found.ratings} == {x is not None for x in found.style} - {not told} == {told}


def test_length_is_told_from_strength():
    found = rated(made([0.5, -0.5], gamma=2.0, problems=400, ties=0.0), draws=200)
    weight, low, high = found.style
    assert abs(weight - 2.0) < high - low
    assert [x.name for x in found.ratings] == ["a", "b"]
    (a, b) = found.ratings
    assert abs(a.rating - 1000 - SCALE * 0.5) < a.high - a.low
    assert a.rating - 1000 == pytest.approx(1000 - b.rating)
    # Equal policies, one of which writes more under a judge that likes length.
    style = np.full(400, 0.4)
    outcome = (np.random.default_rng(0).uniform(size=400) < 1 / (1 + np.exp(-2.0 * style))).astype(float)
    rng = np.random.default_rng(5)
    mixed = Battles(
        ("long", "short"), np.zeros(800, int), np.ones(800, int), np.arange(800) % 400,
        np.concatenate([outcome, (rng.uniform(size=400) < 0.5).astype(float)]), np.concatenate([style, np.zeros(400)]),
    )  # fmt: skip
    with_control, without = (rated(mixed, control=control, draws=200).ratings for control in (True, False))
    assert without[0].name == "long"
    assert without[0].low > 1000
    assert {x.name: x.low < 1000 < x.high for x in with_control} == {"long": True, "short": True}


def test_intervals_are_wider_with_fewer_problems_and_a_winner_of_everything_has_a_finite_rating():
    width = lambda battles: np.mean([x.high - x.low for x in rated(battles, draws=100).ratings])  # noqa: E731
    assert width(made([0.0, 1.0], problems=20)) > 1.5 * width(made([0.0, 1.0], problems=200))
    every = battles_of(["a", "b"], [(0, 1, p, 1.0) for p in range(9)], np.full((9, 2), 7))
    found = rated(every, draws=20)
    assert [x.name for x in found.ratings] == ["a", "b"]
    assert 1000 < found.ratings[0].rating < 3000
    assert {(x.low, x.high) for x in found.ratings} == {(None, None)}
    np.testing.assert_array_equal(wins(every), [[np.nan, 1.0], [0.0, np.nan]])
    assert length_alone(every) == 0
    always = battles_of(
        ["a", "b"], [(0, 1, p, 1.0) for p in range(9)], np.array([[10, 5 + (p == 3)] for p in range(9)])
    )
    assert length_alone(always) < 0.02 < 0.5 < length_alone(made([0.0, 1.0]))
    with pytest.raises(ValueError, match="comparison"):
        rated(battles_of(["a", "b"], [], np.zeros((0, 2), int)))
