"""Curricula: the problems of a training step by the pass rates of a run's own samples.

Pure functions: a choice depends on the pass rates so far and on hashes of (seed, step), see `task.draw`. The rates are
a part of the run's checkpointed state, see `rlvr_jax.training.history`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
from jaxtyping import Float

from rlvr_jax.errors import ConfigError
from rlvr_jax.tasks.mixture import Mixture, Place, places
from rlvr_jax.tasks.task import Example, Task, draw, uniform

_MOST_DRAWS = 10_000  # to find a problem of a level


@dataclass(frozen=True)
class CurriculumConfig:
    """The choice of training problems by pass rates; by default there is none.

    p is the running pass rate of a level or problem: the share of samples with score 1. One that has not been seen yet
    has p = 1/2 for `sampling`, and passes the filter.

    Attributes:
      by: what has a pass rate: a "level", that is the `Example.level` of problems or, where they have none, their task;
        or a "problem" of a finite task.
      decay: weight of the samples seen before relative to those of a step, each time that a level or problem is seen.
      sampling: "mixture" takes problems in the order of the mixture, by the weights of the tasks. "towards_half" draws
        each from all levels (or problems) of the open tasks, with a weight of (p (1 - p))^power + floor, and then a
        problem of the level, all with the same chance; so does "towards_failure", with (1 - p)^power + floor.
      power: exponent in the weights of `sampling`.
      floor: what is added to the weights of `sampling`; also the chance of a problem that the filter would leave out.
      low, high: the filter: problems with p outside of [low, high] are replaced by others.
      tries: candidates for one place of a step at most; if all are left out, the first is taken.
      threshold: the running pass rate that all tasks of a stage need for the next one to open. Tasks with
        `config.tasks.NAME.stage` = 0 are open from the start.
    """

    by: Literal["level", "problem"] = "level"
    decay: float = 0.8
    sampling: Literal["mixture", "towards_half", "towards_failure"] = "mixture"
    power: float = 1.0
    floor: float = 0.02
    low: float = 0.0
    high: float = 1.0
    tries: int = 10
    threshold: float = 0.8


@dataclass(frozen=True)
class Counts:
    """Numbers of right and wrong samples of a level or problem, of which older ones count less."""

    right: float
    wrong: float

    @property
    def rate(self) -> float:
        """The running pass rate; 1/2 without any sample."""
        return self.right / (self.right + self.wrong) if self.right + self.wrong > 0 else 0.5


Rates = Mapping[str, Counts]  # by key, see `key_of`


def observed(before: Counts, right: float, wrong: float, decay: float) -> Counts:
    """The counts after further samples: decay * before + new."""
    return Counts(decay * before.right + right, decay * before.wrong + wrong)


def key_of(by: Literal["level", "problem"], place: Place, example: Example) -> str:
    """The key of a problem's pass rate: `task/index`, `task/level`, or `task` without a level."""
    name, index = place
    return f"{name}/{index}" if by == "problem" else f"{name}/{example.level}".rstrip("/")


@dataclass(frozen=True)
class Pool:
    """Training problems that are drawn with the same chance.

    Attributes:
      task: theirs.
      level: theirs; empty for all problems of the task.
      indices: those of the level; None for an unbounded task, or all problems.
    """

    task: Task
    level: str = ""
    indices: Sequence[int] | None = None

    @property
    def key(self) -> str:
        """That of the pass rate of a level."""
        return f"{self.task.name}/{self.level}".rstrip("/")

    def index(self, *path: str | int) -> int:
        """The index of a problem, drawn by a hash of `path`.

        Raises:
          ConfigError: the task has no problem of the level.
        """
        if self.indices is not None:
            return self.indices[draw(*path) % len(self.indices)]
        length = self.task.num_examples("train")
        for attempt in range(_MOST_DRAWS):
            drawn = draw(*path, attempt)
            index = drawn >> 449 if length is None else drawn % length
            if not self.level or self.task.example("train", index).level == self.level:
                return index
        raise ConfigError(f"{self.task.name}: none of {_MOST_DRAWS} training problems has the level {self.level!r}")


def pools(mixture: Mixture) -> list[Pool]:
    """The levels of the tasks, in order; a task without levels is a pool of its own. Reads all problems of finite
    tasks."""
    found = []
    for task in mixture.tasks:
        length = task.num_examples("train")
        if length is None:
            found += [Pool(task, level) for level in task.levels or ("",)]
            continue
        of_level: dict[str, list[int]] = {}
        for index in range(length):
            of_level.setdefault(task.example("train", index).level, []).append(index)
        found += [Pool(task, level, indices) for level, indices in sorted(of_level.items())]
    return found


@dataclass(frozen=True)
class Chosen:
    """The problems of a step.

    Attributes:
      places: of the problems.
      left_out: candidates that the filter left out.
      exhausted: places of the step for which it left all candidates out.
    """

    places: tuple[Place, ...]
    left_out: int = 0
    exhausted: int = 0


def choose(
    config: CurriculumConfig,
    mixture: Mixture,
    of_levels: Sequence[Pool],
    rates: Rates,
    seed: int,
    step: int,
    size: int,
    number: int = 0,
) -> Chosen:
    """The problems of a step.

    Args:
      config: the choices.
      mixture: the open tasks.
      of_levels: their `pools`; not read with `by` "problem" or `sampling` "mixture".
      rates: the counts so far.
      seed, step: of the run; steps count from 1.
      size: problems of the step.
      number: of the draw, if a step has several.
    """
    by_name = {task.name: task for task in mixture.tasks}
    shares = _shares(config, mixture, of_levels, rates) if config.sampling != "mixture" else None

    @cache
    def stream(attempt: int) -> list[Place]:
        other = draw("replacements", seed, number, *[attempt] * bool(attempt)) >> 449 if number or attempt else seed
        return places(mixture, "train", other, step - 1, size)

    def candidate(slot: int, attempt: int) -> Place:
        if shares is None:
            return stream(attempt)[slot]
        path = ("curriculum", seed, step, number, slot, attempt)
        k = min(int(np.searchsorted(shares, uniform("pool", *path) * shares[-1], "right")), len(shares) - 1)
        if config.by == "level":
            return of_levels[k].task.name, of_levels[k].index("problem", *path)
        for task in mixture.tasks:
            if k < (length := task.num_examples("train") or 0):
                return task.name, k
            k -= length
        raise AssertionError("the shares are those of all problems")

    def passes(place: Place, slot: int, attempt: int) -> bool:
        example = by_name[place[0]].example("train", place[1])
        counts = rates.get(key_of(config.by, place, example))
        if counts is None or config.low <= counts.rate <= config.high:
            return True
        return uniform("filter", seed, step, number, slot, attempt) < config.floor

    found: list[Place] = []
    left_out = exhausted = 0
    for slot in range(size):
        chosen = None
        for attempt in range(config.tries):
            place = candidate(slot, attempt)
            if shares is not None and place in found and attempt + 1 < config.tries:
                continue  # drawn with replacement: rather another one
            if (config.low, config.high) == (0, 1) or passes(place, slot, attempt):
                chosen = place
                break
            left_out += 1
        exhausted += chosen is None
        found.append(candidate(slot, 0) if chosen is None else chosen)
    return Chosen(tuple(found), left_out, exhausted)


def weight(config: CurriculumConfig, rate: float) -> float:
    """Of "towards_half" (p (1 - p))^power + floor: largest at p = 1/2, where samples of a group differ most. With a
    power of 1/2 and a floor of 0.05 it is that of SPO (Xu & Ding 2025, arXiv:2509.13232).

    Of "towards_failure" (1 - p)^power + floor, the prioritised sampling of Kimi k1.5 (arXiv:2501.12599, from
    secondary sources) with a power of 1 and a floor of 0.
    """
    chance = rate * (1 - rate) if config.sampling == "towards_half" else 1 - rate
    return chance**config.power + config.floor


def _shares(
    config: CurriculumConfig, mixture: Mixture, of_levels: Sequence[Pool], rates: Rates
) -> Float[np.ndarray, "keys"]:
    """The cumulative weights of all levels, or of all problems."""
    if config.by == "level":
        unseen = Counts(0, 0)
        return np.cumsum([weight(config, rates.get(pool.key, unseen).rate) for pool in of_levels])
    lengths = [task.num_examples("train") or 0 for task in mixture.tasks]
    first = dict(zip((task.name for task in mixture.tasks), np.cumsum([0, *lengths]).tolist(), strict=False))
    weights = np.full(sum(lengths), weight(config, 0.5))
    for key, counts in rates.items():
        name, _, index = key.rpartition("/")
        if name in first:
            weights[first[name] + int(index)] = weight(config, counts.rate)
    return np.cumsum(weights)
