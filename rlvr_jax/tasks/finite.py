"""Tasks made of a list of records per split, and tasks with a subset of another's problems."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlvr_jax.errors import ConfigError
from rlvr_jax.tasks.task import Example, Split, Task, draw, place_of
from rlvr_jax.text.messages import Messages


def subset(task: Task, indices: Mapping[Split, Sequence[int]]) -> Task:
    """The task with only these of its problems, indexed from 0, with unchanged ids."""

    def example(split: Split, index: int) -> Example:
        if index < 0:
            raise IndexError(f"{task.name}: index must be at least 0, not {index}")
        return task.example(split, indices[split][index])

    return dataclasses.replace(task, example=example, num_examples=lambda split: len(indices[split]))


def redrawn(task: Task, fits: Callable[[str], bool], tries: int = 100) -> Task:
    """The task with each problem whose prompt does not fit replaced by another, drawn from its index.

    For unbounded tasks, whose problems can't all be checked. The task raises ConfigError if none fits.
    """

    def example(split: Split, index: int) -> Example:
        length, first = task.num_examples(split), task.example(split, index)
        found = first
        for attempt in range(tries):
            if fits(found.prompt):
                return found
            drawn = draw("redrawn", task.name, split, index, attempt) >> 449
            found = task.example(split, drawn if length is None else drawn % length)
        raise ConfigError(
            f"the prompt of {first.id} is too long, and those of {tries} other problems of {task.name}; raise "
            "config.rollout.max_prompt_length"
        )

    return dataclasses.replace(task, example=example)


def finite_task(
    name: str,
    verifier: str,
    splits: Mapping[Split, Sequence[Any]],
    prompt: Callable[[Any], str | Messages],
    reference: Callable[[Any], Any],
    demonstration: Callable[[Any], str] | None = None,
    verifier_options: Mapping[str, Any] | None = None,
    gold: Callable[[Any], str] | None = None,
    level: Callable[[Any], str] = lambda _: "",
) -> Task:
    """The task whose problems are the records of `splits`, by their index.

    Args:
      name: of the task.
      verifier: name of its verifier.
      splits: the records of each split; a list may be empty.
      prompt: record -> prompt.
      reference: record -> gold answer for the verifier.
      demonstration: record -> a correct completion.
      verifier_options: keyword arguments of the verifier.
      gold: record -> the gold answer for human readers; None if the reference shows it.
      level: record -> `Example.level`.
    """

    def record(split: Split, index: int) -> Any:
        records = splits[split]
        if not 0 <= index < len(records):
            known = f"has the indices 0 to {len(records) - 1}" if records else "has no problems"
            raise IndexError(f"{name}: {split} {known}, there is no index {index}")
        return records[index]

    def example(split: Split, index: int) -> Example:
        found = record(split, index)
        shown = gold(found) if gold else ""
        id = f"{name}/{split}/{index}"
        return Example(id, prompt(found), reference(found), name, shown, level=level(found))

    def demonstrate(example: Example, index: int) -> str:
        del index  # each problem has one
        return demonstration(record(*place_of(example)))

    return Task(
        name,
        verifier,
        example,
        num_examples=lambda split: len(splits[split]),
        demonstration=demonstrate if demonstration else None,
        verifier_options=dict(verifier_options or {}),
    )
