"""Routers: functions from a prompt to the policy that answers it, and the frontiers of accuracy over cost they reach.

A router predicts the chance of each policy to be right, and takes the policy with the largest chance - price * cost.
Each price is a point of its frontier. Predictions are fitted on half of the problems, and frontiers are of the other
half; the oracle, which knows who is right, is the bound.

Source of the setting: Hu et al. 2024 (RouterBench, arXiv:2403.12031), whose frontier is the hull of such points.
"""

import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.optimize import minimize

from rlvr_jax.tasks.task import draw

_FEATURES = 4096
_PENALTY = 1.0  # of the squared weights
_PRICES = 200
_WORD = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True)
class Point:
    """A router at one price: mean cost and accuracy on the held-out problems, and each policy's share of them."""

    cost: float
    accuracy: float
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Frontier:
    """The points of a router that no mixture of its others beats, the cheapest first."""

    name: str
    points: tuple[Point, ...]


def is_heldout(problems: Sequence[str], seed: int = 0) -> Bool[np.ndarray, "problems"]:
    """Half of the problems, by a hash of their names."""
    return np.array([draw("routing", seed, problem) % 2 == 1 for problem in problems], bool)


def features(texts: Sequence[str]) -> Float[np.ndarray, "texts features"]:
    """The words and pairs of words that a text has, hashed, and the logarithm of its length; rows of norm 1."""
    found = np.zeros((len(texts), _FEATURES + 1))
    for row, text in zip(found, texts, strict=True):
        words = ["0" if word.isdigit() else word.lower() for word in _WORD.findall(text)]
        for gram in {*words, *map(" ".join, itertools.pairwise(words))}:
            row[draw("gram", gram) % _FEATURES] = 1.0
        row[:_FEATURES] /= max(1.0, float(np.linalg.norm(row[:_FEATURES])))
        row[_FEATURES] = np.log1p(len(words)) / 8
    return found


def logistic(
    x: Float[np.ndarray, "n features"], y: Float[np.ndarray, "n"], penalty: float = _PENALTY
) -> Float[np.ndarray, "parameters"]:
    """Weights and, last, the bias of a logistic regression: minimises sum of log losses + penalty / 2 * |weights|^2."""

    def objective(w: Float[np.ndarray, "parameters"]) -> tuple[float, Float[np.ndarray, "parameters"]]:
        z = x @ w[:-1] + w[-1]
        error = 1 / (1 + np.exp(-z)) - y
        loss = np.sum(np.logaddexp(0, z) - y * z) + penalty / 2 * np.sum(w[:-1] ** 2)
        return float(loss), np.append(x.T @ error + penalty * w[:-1], np.sum(error))

    return minimize(objective, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B").x


def by_task(
    right: Float[np.ndarray, "problems policies"], tasks: Sequence[str], trained: Bool[np.ndarray, "problems"]
) -> Float[np.ndarray, "problems policies"]:
    """The accuracy of each policy on the training problems of the same task; on all of them without any."""
    names, chances = np.array(tasks), np.tile(right[trained].mean(0), (len(tasks), 1))
    for name in sorted(set(tasks)):
        own = (names == name) & trained
        if own.any():
            chances[names == name] = right[own].mean(0)
    return chances


def by_prompt(
    right: Float[np.ndarray, "problems policies"], texts: Sequence[str], trained: Bool[np.ndarray, "problems"]
) -> Float[np.ndarray, "problems policies"]:
    """The chance that a logistic regression on the words of the prompt gives each policy."""
    x = features(texts)
    weights = np.stack([logistic(x[trained], column) for column in right[trained].T], axis=1)
    return 1 / (1 + np.exp(-(x @ weights[:-1] + weights[-1])))


def frontier(
    name: str,
    chances: Float[np.ndarray, "n policies"],
    expected: Float[np.ndarray, "n policies"],
    right: Float[np.ndarray, "n policies"],
    cost: Float[np.ndarray, "n policies"],
) -> Frontier:
    """The frontier of a router.

    Args:
      name: of the router.
      chances, expected: chance to be right and cost that it expects of each policy.
      right, cost: what they are.
    """
    rows, scale = np.arange(len(right)), float(np.mean(cost)) or 1.0
    prices = [0.0, *(np.logspace(-5, 4, _PRICES) / scale)]
    points = set()
    for price in prices:
        value = chances - price * expected
        best = np.lexsort((expected, -value), axis=1)[:, 0]  # of equal ones the cheapest
        shares = np.bincount(best, minlength=right.shape[1]) / len(best)
        points.add(Point(float(cost[rows, best].mean()), float(right[rows, best].mean()), tuple(shares.tolist())))
    return Frontier(name, hull(sorted(points, key=lambda x: (x.cost, -x.accuracy))))


def hull(points: Sequence[Point]) -> tuple[Point, ...]:
    """The points, by ascending cost, that lie above all lines between others, up to the most accurate."""
    kept: list[Point] = []
    for point in points:
        if kept and point.accuracy <= max(x.accuracy for x in kept):
            continue
        while len(kept) > 1 and _slope(kept[-2], kept[-1]) <= _slope(kept[-1], point):
            kept.pop()
        kept.append(point)
    return tuple(kept)


def _slope(a: Point, b: Point) -> float:
    return (b.accuracy - a.accuracy) / (b.cost - a.cost) if b.cost > a.cost else np.inf


def accuracy_at(found: Frontier, budget: float) -> float:
    """The accuracy at a mean cost, by a mixture of the two points around it; NaN below the cheapest."""
    points = found.points
    if budget < points[0].cost:
        return float("nan")
    return float(np.interp(budget, [x.cost for x in points], [x.accuracy for x in points]))


def frontiers(
    right: Float[np.ndarray, "problems policies"],
    cost: Float[np.ndarray, "problems policies"],
    tasks: Sequence[str],
    texts: Sequence[str],
    heldout: Bool[np.ndarray, "problems"],
) -> list[Frontier]:
    """Of the router that mixes policies without looking ("mixture"), by task, by prompt, and of the oracle.

    The learned ones expect each policy's mean cost on the training problems of the task.

    Raises:
      ValueError: one half has no problem.
    """
    trained = ~heldout
    if not trained.any() or not heldout.any():
        raise ValueError("routing needs problems to fit routers on and others to measure them on; there are too few")
    mean_cost = by_task(cost, tasks, trained)
    same = lambda values: np.tile(values[trained].mean(0), (len(values), 1))  # noqa: E731
    predicted = {
        "mixture": (same(right), same(cost)),
        "by task": (by_task(right, tasks, trained), mean_cost),
        "by prompt": (by_prompt(right, texts, trained), mean_cost),
        "oracle": (right, cost),
    }
    of = lambda values: values[heldout]  # noqa: E731
    return [frontier(name, of(p), of(c), of(right), of(cost)) for name, (p, c) in predicted.items()]
