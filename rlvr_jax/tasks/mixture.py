"""Which problems a training step uses: a pure function of (task, split, seed, step), with no iterator to save.

Step s takes the positions s*size to s*size + size - 1 of a stream. For a task with n examples, position p is the
(p mod n)-th of epoch p // n, and each epoch is a permutation of its own. For a task without end each position draws an
index of its own from the seed.
"""

import functools

from rlvr_jax.tasks.task import Example, Split, Task, draw


def batch(task: Task, split: Split, seed: int, step: int, size: int) -> list[Example]:
    """The examples of one step.

    A batch that crosses from one epoch into the next may hold an example twice.

    Raises:
      ValueError: `size` is below 1, `step` is negative, or the task has no examples.
    """
    if size < 1:
        raise ValueError(f"a batch needs at least one example, size is {size}")
    if step < 0:
        raise ValueError(f"steps count from 0, step is {step}")
    length = task.num_examples(split)
    positions = range(step * size, step * size + size)
    if length is None:
        return [task.example(split, draw("mixture", seed, task.name, split, place) >> 449) for place in positions]
    if length < 1:
        raise ValueError(f"task {task.name!r} has no examples in split {split!r}")
    indices = [_order(seed, task.name, split, place // length, length)[place % length] for place in positions]
    return [task.example(split, index) for index in indices]


@functools.lru_cache(maxsize=8)
def _order(seed: int, name: str, split: Split, epoch: int, length: int) -> tuple[int, ...]:
    """The order of one epoch: the indices sorted by a hash. Cached because the steps of an epoch share it."""
    return tuple(sorted(range(length), key=lambda index: draw("mixture", seed, name, split, epoch, index)))
