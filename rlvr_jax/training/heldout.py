"""The held-out problems of a run, and their evaluation."""

import json
from collections.abc import Callable
from typing import Any

from rlvr_jax import tasks
from rlvr_jax.errors import ConfigError
from rlvr_jax.evaluation.evaluate import NO_JUDGES, Judging, evaluate
from rlvr_jax.rollout.collector import Collector
from rlvr_jax.rollout.streams import Stream
from rlvr_jax.tasks import Task
from rlvr_jax.training.record import sample_rows
from rlvr_jax.training.setup import Setup

_DRAWS_PER_PROBLEM = 50  # to find different held-out problems


def heldout_examples(task: Task, count: int) -> list[tasks.Example]:
    """The first `count` distinct held-out problems, or all if the task has fewer; independent of the seed."""
    length = task.num_examples("heldout")
    count = count if length is None else min(count, length)
    found: dict[tuple[str, str], tasks.Example] = {}
    for position in range(_DRAWS_PER_PROBLEM * count):
        example = tasks.example_at(task, "heldout", 0, position)
        # With environments, problems with the same prompt may differ.
        found.setdefault((example.prompt, json.dumps(example.reference, sort_keys=True)), example)
        if len(found) == count:
            break
    return list(found.values())


def heldout_problems(setup: Setup) -> tuple[list[tasks.Example], list[tasks.Example]]:
    """The held-out problems of all tasks, and those of them that are also sampled.

    Raises:
      ConfigError: no task has held-out problems.
    """
    config = setup.config.evaluation
    of_tasks = [heldout_examples(task, config.problems) for task in setup.tasks.values()]
    examples = [example for found in of_tasks for example in found]
    if not examples:
        raise ConfigError(
            f"config.tasks: none of {', '.join(setup.tasks)} has held-out problems; with a file of your own give "
            "heldout_file, or more problems or a larger heldout_share"
        )
    return examples, [example for found in of_tasks for example in found[: config.pass_problems]]


def make_evaluation(setup: Setup, judging: Judging | None = None) -> Callable:
    """A function (collector, step, key) -> (metrics, rows of samples) over the held-out problems of all tasks.

    These don't depend on the seed, so that runs are comparable. Raises as `heldout_problems`.

    Args:
      setup: of the run.
      judging: its judges; None for none.
    """
    config = setup.config.evaluation
    examples, pass_examples = heldout_problems(setup)
    of_task = {label: [example.id for example in examples if example.task == label] for label in setup.tasks}
    shown = {id for ids in of_task.values() for id in ids[: config.shown]}

    def run(collector: Collector, step: int, key: Stream) -> tuple[dict[str, float], list[dict[str, Any]]]:
        found = evaluate(
            collector, examples, pass_examples, config.pass_samples, key, config.ks, judging=judging or NO_JUDGES
        )
        groups = [group for group in found.greedy if group.example.id in shown]
        return found.metrics, sample_rows(step, "heldout", groups, setup.tokenizer)

    return run
