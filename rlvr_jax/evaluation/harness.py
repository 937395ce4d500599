"""The same problems in several settings of one evaluation: with and without a tool, a thought, examples."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rlvr_jax.config import TaskConfig
from rlvr_jax.evaluation.estimators import mean_and_interval, paired_difference

_OF_PROBLEMS = ("options", "file", "prompt", "reference", "heldout_file", "heldout_share")


@dataclass(frozen=True)
class Column:
    """A metric in one setting, over the problems that all settings have.

    Attributes:
      task: label of the setting.
      mean, low, high: of the metric.
      difference: from the first setting, problem by problem, with its 95 % interval and p-value as
        `paired_difference`; None for the first.
    """

    task: str
    mean: float
    low: float
    high: float
    difference: tuple[float, float, float, float] | None = None


def settings_of(tasks: Mapping[str, TaskConfig]) -> list[tuple[str, ...]]:
    """The labels of tasks with the same problems, in groups of at least two; the first label is the base."""
    groups: dict[str, list[str]] = {}
    for label, task in tasks.items():
        of = [task.name or label, *(getattr(task, key) for key in _OF_PROBLEMS)]
        groups.setdefault(json.dumps(of, sort_keys=True, default=str), []).append(label)
    return [tuple(labels) for labels in groups.values() if len(labels) > 1]


def columns(
    values: Mapping[str, Mapping[str, float]], groups: Sequence[Sequence[str]]
) -> list[tuple[str, tuple[Column, ...]]]:
    """(metric, a column for each setting) of each group, over the problems that all of its settings have.

    Args:
      values: by metric and problem, as evaluation.json has them: "label: label/heldout/7".
      groups: of labels.
    """
    found = []
    for labels in groups:
        for metric, by_problem in values.items():
            of = [_of_setting(by_problem, f"{label}: {label}/") for label in labels]
            same = [name for name in of[0] if all(name in other for other in of)]
            if same:
                found.append((metric, _columns(labels, [[x[name] for name in same] for x in of])))
    return found


def _of_setting(by_problem: Mapping[str, float], start: str) -> dict[str, float]:
    return {name.removeprefix(start): x for name, x in by_problem.items() if name.startswith(start)}


def _columns(labels: Sequence[str], values: Sequence[Sequence[float]]) -> tuple[Column, ...]:
    return tuple(
        Column(label, *mean_and_interval(own), paired_difference(own, values[0]) if i else None)
        for i, (label, own) in enumerate(zip(labels, values, strict=True))
    )
