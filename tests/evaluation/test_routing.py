"""Frontiers of routers on problems whose best policy is known."""

import numpy as np
import pytest
from scipy.optimize import minimize

from rlvr_jax.evaluation.routing import Point, accuracy_at, features, frontiers, hull, is_heldout, logistic


def world(count=240):
    """The cheap policy solves sums, the dear one everything but riddles of "blue", which the cheap one solves."""
    rng = np.random.default_rng(0)
    tasks = ["sums" if i % 2 else "riddles" for i in range(count)]
    blue = rng.uniform(size=count) < 0.5
    texts = [
        f"{i} plus {i + 1}" if i % 2 else f"a {'blue' if blue[i] else 'red'} riddle number {i}" for i in range(count)
    ]
    cheap = np.array([1.0 if i % 2 or blue[i] else 0.0 for i in range(count)])
    dear = np.array([1.0 if i % 2 or not blue[i] else 0.0 for i in range(count)])
    cost = np.stack([np.full(count, 1.0), np.full(count, 10.0)], axis=1)
    return np.stack([cheap, dear], axis=1), cost, tasks, texts


def test_routers_that_see_more_reach_more():
    right, cost, tasks, texts = world()
    heldout = is_heldout(texts)
    assert 0.4 < heldout.mean() < 0.6
    mixture, by_task, by_prompt, oracle = frontiers(right, cost, tasks, texts, heldout)
    assert [x.name for x in (mixture, by_task, by_prompt, oracle)] == ["mixture", "by task", "by prompt", "oracle"]
    assert oracle.points[-1].accuracy == 1.0
    assert by_prompt.points[-1].accuracy == 1.0
    assert (
        by_prompt.points[-1].cost
        == oracle.points[-1].cost
        == pytest.approx(float(np.where(right[heldout, 0] == 1, 1.0, 10.0).mean()))
    )
    assert max(x.accuracy for x in mixture.points) == right[heldout].mean(0).max()
    for budget in (1.0, 2.0, 4.0, 10.0):
        reached = [accuracy_at(x, budget) for x in (mixture, by_task, by_prompt, oracle)]
        assert reached == sorted(reached)
    assert np.isnan(accuracy_at(oracle, 0.5))
    for x in (mixture, by_task, by_prompt, oracle):
        assert all(sum(point.shares) == pytest.approx(1) for point in x.points)
    assert features(["\ud800 a", "\ud801 a"])[:, :-1].any(1).all()  # lone surrogates, which JSON may hold
    with pytest.raises(ValueError, match="too few"):
        frontiers(right[:1], cost[:1], tasks[:1], texts[:1], np.array([True]))


def test_a_hull_has_the_points_that_no_mixture_beats():
    points = [Point(float(x), y, ()) for x, y in ((1, 0.2), (2, 0.3), (3, 0.7), (4, 0.65), (5, 0.8), (6, 0.8))]
    assert [(x.cost, x.accuracy) for x in hull(points)] == [(1, 0.2), (3, 0.7), (5, 0.8)]


def test_the_regression_is_the_minimum_of_its_loss():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(50, 4)), (rng.uniform(size=50) < 0.4).astype(float)

    def loss(w):
        chance = 1 / (1 + np.exp(-(x @ w[:4] + w[4])))
        return -np.sum(y * np.log(chance) + (1 - y) * np.log(1 - chance)) + 0.35 * np.sum(w[:4] ** 2)

    np.testing.assert_allclose(logistic(x, y, 0.7), minimize(loss, np.zeros(5), method="BFGS").x, atol=1e-3)
    assert np.isfinite(logistic(x, np.ones(50))).all()


def test_features_do_not_depend_on_numbers_or_case():
    a, b, c = features(["Add 12 and 30.", "add 7 and 999.", "Subtract 12"])
    np.testing.assert_array_equal(a, b)
    assert np.abs(a - c).max() > 0.1
