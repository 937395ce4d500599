"""Ratings of policies from pairwise comparisons: Bradley-Terry, with bootstrap intervals and a control for length."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse.csgraph import connected_components

SCALE, CENTRE = 400 / np.log(10), 1000.0  # of Elo: 400 points are odds of 10 to 1
_PRIOR = 0.01  # precision of ratings in logits: of a policy that wins or loses everything the likelihood has no maximum
_STEPS = 50  # of Newton's method
_DRAWS = 1000  # of the bootstrap


@dataclass(frozen=True)
class Battles:
    """Comparisons of two policies on a problem.

    Attributes:
      names: of the policies.
      first, second: the policies compared.
      problem: the number of the problem, by which the bootstrap draws.
      outcome: 1 if the first won, 0 if the second did; 0.5 for a tie, or between for a judge that is unsure.
      style: how much longer the first response is: the difference of the lengths over their sum, in [-1, 1].
    """

    names: tuple[str, ...]
    first: Int[np.ndarray, "n"]
    second: Int[np.ndarray, "n"]
    problem: Int[np.ndarray, "n"]
    outcome: Float[np.ndarray, "n"]
    style: Float[np.ndarray, "n"]


@dataclass(frozen=True)
class Rating:
    """A policy's rating on the scale of Elo, 1000 on average, with its 95 % bootstrap interval, None if there is none
    (see `tells_intervals`); and its share of wins, a tie being half of one."""

    name: str
    rating: float
    low: float | None
    high: float | None
    wins: float
    battles: int


@dataclass(frozen=True)
class Ratings:
    """The ratings of an arena, the best first.

    Attributes:
      ratings: of the policies.
      style: the weight of length in logits, and its interval, which may be None as that of ratings: what a response of
        twice the tokens gains is a third of it. Without a control 0.
    """

    ratings: tuple[Rating, ...]
    style: tuple[float, float | None, float | None]


def style_of(first: int, second: int) -> float:
    """The difference of the lengths of two responses over their sum, see `Battles`."""
    return (first - second) / (first + second) if first + second else 0.0


def fit(battles: Battles, weights: Float[np.ndarray, "n"], control: bool) -> Float[np.ndarray, "parameters"]:
    """The ratings in logits, their mean 0, and the weight of style if it is controlled for.

    Maximises sum of weight * (y log s(x) + (1 - y) log s(-x)) - _PRIOR / 2 * |ratings|^2 by Newton's method, where s is
    the logistic function and x = r_first - r_second + gamma * style.

    Source: Bradley & Terry 1952 (Biometrika 39, 324-345), ties as half a win; style as a covariate as in Chatbot Arena
    (Chiang et al. 2024, arXiv:2403.04132, and its "style control").
    """
    count, n = len(battles.names), len(battles.outcome)
    design = np.zeros((n, count + control))
    design[np.arange(n), battles.first] += 1
    design[np.arange(n), battles.second] -= 1
    if control:
        design[:, count] = battles.style
    found, prior = np.zeros(count + control), np.full(count + control, _PRIOR)
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(-design @ found))
        gradient = design.T @ (weights * (battles.outcome - chance)) - prior * found
        curvature = (design * (weights * chance * (1 - chance))[:, None]).T @ design + np.diag(prior)
        step = np.linalg.solve(curvature, gradient)
        found = found + step * min(1.0, 4.0 / np.max(np.abs(step), initial=1e-9))
        if np.max(np.abs(step)) < 1e-10:
            break
    found[:count] -= np.mean(found[:count])
    return found


def rated(battles: Battles, control: bool = True, draws: int = _DRAWS) -> Ratings:
    """The ratings of policies, with intervals from a bootstrap over problems by a fixed generator.

    All battles on a problem are drawn together: they are not independent.

    Args:
      battles: one at least.
      control: for length.
      draws: of the bootstrap.

    Raises:
      ValueError: there are no battles.
    """
    if not len(battles.outcome):
        raise ValueError("ratings need a comparison at least; all were left out")
    found = fit(battles, np.ones(len(battles.outcome)), control)
    rng, problems = np.random.default_rng(0), np.unique(battles.problem, return_inverse=True)[1]
    count = int(problems.max()) + 1
    drawn = [np.bincount(rng.integers(count, size=count), minlength=count)[problems] for _ in range(draws)]
    spread = np.array([fit(battles, weights.astype(float), control) for weights in drawn])
    ends = np.percentile(spread, [2.5, 97.5], axis=0)
    told = tells_intervals(battles)
    of = lambda i, scale, centre: tuple(float(centre + scale * x[i]) if told else None for x in ends)  # noqa: E731
    ratings = []
    for i, name in enumerate(battles.names):
        own = np.concatenate([battles.outcome[battles.first == i], 1 - battles.outcome[battles.second == i]])
        share = float(own.mean()) if own.size else float("nan")
        ratings.append(Rating(name, float(CENTRE + SCALE * found[i]), *of(i, SCALE, CENTRE), share, own.size))
    style = (float(found[-1]), *of(-1, 1.0, 0.0)) if control else (0.0, 0.0, 0.0)
    return Ratings(tuple(sorted(ratings, key=lambda x: -x.rating)), style)


def tells_intervals(battles: Battles) -> bool:
    """True if a bootstrap can tell how sure ratings are.

    A single problem has no spread. And unless a chain of battles that were not lost leads from each policy to each
    other one, the likelihood has no maximum (Ford 1957, American Mathematical Monthly 64, 28-33): where policies have
    won every battle with others, all draws agree, on a difference that is only the prior's.
    """
    count = len(battles.names)
    beats = np.zeros((count, count), bool)
    np.logical_or.at(beats, (battles.first, battles.second), battles.outcome > 0)
    np.logical_or.at(beats, (battles.second, battles.first), battles.outcome < 1)
    met = beats.any(0) | beats.any(1)
    parts, _ = connected_components(beats[met][:, met], directed=True, connection="strong")
    return bool(parts == 1 and len(np.unique(battles.problem)) > 1)


def length_alone(battles: Battles) -> float:
    """The share of the variation of style that does not follow from who plays whom; near 0 the weight of length can't
    be told from the strength of policies that always write more."""
    total = float(np.sum(battles.style**2))
    if total == 0:
        return 0.0
    design = np.zeros((len(battles.outcome), len(battles.names)))
    design[np.arange(len(design)), battles.first] += 1
    design[np.arange(len(design)), battles.second] -= 1
    explained = design @ np.linalg.lstsq(design, battles.style, rcond=None)[0]
    return float(np.sum((battles.style - explained) ** 2)) / total


def wins(battles: Battles) -> Float[np.ndarray, "policies policies"]:
    """The share of wins of each policy (row) over each other (column); NaN where they were not compared."""
    count = len(battles.names)
    total, number = np.zeros((count, count)), np.zeros((count, count))
    for i, j, y in zip(battles.first, battles.second, battles.outcome, strict=True):
        total[i, j] += y
        total[j, i] += 1 - y
        number[i, j] += 1
        number[j, i] += 1
    return np.divide(total, number, out=np.full((count, count), np.nan), where=number > 0)


def battles_of(
    names: Sequence[str], compared: Sequence[tuple[int, int, int, float]], lengths: Int[np.ndarray, "problems policies"]
) -> Battles:
    """The battles of (first, second, problem, outcome), with the style of their responses."""
    columns = [np.array(column) for column in zip(*compared, strict=True)] or [np.zeros(0)] * 4
    first, second, problem = (column.astype(int) for column in columns[:3])
    style = [style_of(int(lengths[p, i]), int(lengths[p, j])) for i, j, p, _ in compared]
    return Battles(tuple(names), first, second, problem, columns[3].astype(float), np.array(style, float))
