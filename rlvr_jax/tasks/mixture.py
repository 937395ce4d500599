"""The problems of a training step: a pure function of (tasks, split, seed, step), with no iterator to save.

Every task has its own stream. For a task with n examples, position p is the (p mod n)-th of epoch p // n, and each
epoch is a permutation. For an unbounded task each position draws an index from the seed.
A mixture interleaves the streams of its tasks by their weights: after any number of positions, each task has had its
share of them, up to a remainder below the number of tasks.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from rlvr_jax.tasks.task import Example, Split, Task, draw

Place = tuple[str, int]  # a task's name and the index of one of its problems


@dataclass(frozen=True)
class Mixture:
    """Tasks with different names, and their relative weights, at least one of them above 0."""

    tasks: tuple[Task, ...]
    weights: tuple[float, ...]


def batch(mixture: Mixture, split: Split, seed: int, step: int, size: int) -> list[Example]:
    """The examples of one step: the positions step * size to step * size + size - 1 of the mixture.

    A batch that spans two epochs of a task may contain an example twice.

    Raises:
      ValueError: `size` is below 1, `step` is negative, or a task has no examples.
    """
    if size < 1:
        raise ValueError(f"a batch needs at least one example, size is {size}")
    if step < 0:
        raise ValueError(f"steps count from 0, step is {step}")
    return examples_of(mixture, split, places(mixture, split, seed, step, size))


def places(mixture: Mixture, split: Split, seed: int, step: int, size: int) -> list[Place]:
    """The places of the examples of `batch`."""
    found = []
    for position in range(step * size, step * size + size):
        before, after = counts(mixture.weights, position), counts(mixture.weights, position + 1)
        (k,) = (k for k in range(len(before)) if after[k] > before[k])
        found.append((mixture.tasks[k].name, index_at(mixture.tasks[k], split, seed, before[k])))
    return found


def examples_of(mixture: Mixture, split: Split, places: Sequence[Place]) -> list[Example]:
    """The examples at these places."""
    by_name = {task.name: task for task in mixture.tasks}
    return [by_name[name].example(split, index) for name, index in places]


def counts(weights: tuple[float, ...], length: int) -> tuple[int, ...]:
    """The number of the first `length` positions that belong to each task.

    The first task gets its share rounded down, and the others divide the rest by the same rule. Each count increases by
    0 or 1 with the length, so each position belongs to one task.
    """
    found = []
    for share in _shares(weights):
        found.append(length * share.numerator // share.denominator)
        length -= found[-1]
    return tuple(found)


@functools.cache
def _shares(weights: tuple[float, ...]) -> tuple[Fraction, ...]:
    """The exact share of each task among itself and the later ones, so that rounding is the same everywhere."""
    exact = [Fraction(weight) for weight in weights]
    rests = [sum(exact[k:]) for k in range(len(exact))]
    return tuple(weight / rest if rest else Fraction(0) for weight, rest in zip(exact, rests, strict=True))


def example_at(task: Task, split: Split, seed: int, position: int) -> Example:
    """The example at a position of a task's stream; raises as `index_at`."""
    return task.example(split, index_at(task, split, seed, position))


def index_at(task: Task, split: Split, seed: int, position: int) -> int:
    """The index of the example at a position of a task's stream.

    Raises:
      ValueError: the task has no examples in this split.
    """
    length = task.num_examples(split)
    if length is None:
        return draw("mixture", seed, task.name, split, position) >> 449
    if length < 1:
        raise ValueError(f"task {task.name!r} has no examples in split {split!r}")
    return _order(seed, task.name, split, position // length, length)[position % length]


@functools.lru_cache(maxsize=32)
def _order(seed: int, name: str, split: Split, epoch: int, length: int) -> tuple[int, ...]:
    """The order of one epoch: the indices sorted by a hash. Cached because the steps of an epoch share it."""
    return tuple(sorted(range(length), key=lambda index: draw("mixture", seed, name, split, epoch, index)))
