"""Held-out evaluation: greedy accuracy, and pass@k from several samples of each problem."""

from collections.abc import Sequence

import jax
import numpy as np

from rlvr_jax.evaluation.estimators import mean_and_interval, pass_at_k
from rlvr_jax.rollout.collector import Collector
from rlvr_jax.rollout.episode import Group, flattened
from rlvr_jax.tasks.task import Example


def evaluate(
    collector: Collector,
    examples: Sequence[Example],
    pass_examples: Sequence[Example],
    pass_samples: int,
    key: jax.Array,
    ks: Sequence[int],
) -> tuple[dict[str, float], list[Group]]:
    """Metrics `eval/*` over all problems and `task/<task>/*` over those of each task, and the greedy episodes.

    Args:
      collector: of the policy's episodes, with nothing in flight.
      examples: held-out problems, answered greedily.
      pass_examples: problems sampled for pass@k; without any there is no pass@k.
      pass_samples: samples of each, at temperature 1.
      key: of the samples for pass@k.
      ks: the k of pass@k.

    Returns:
      The metrics, and the groups of the greedy episodes.
    """
    collector.start("greedy", examples, 1, key, 0.0)
    if pass_examples:
        collector.start("pass@k", pass_examples, pass_samples, key, 1.0)
    greedy = collector.take("greedy")
    episodes, verdicts, _ = flattened(greedy)
    metrics = {"eval/response_length": float(np.mean([episode.length for episode in episodes]))}
    errors = sum(verdict.error is not None for verdict in verdicts)
    values = {"greedy_accuracy": [float(verdict.score == 1) for verdict in verdicts]}
    tasks = {"greedy_accuracy": [example.task for example in examples]}
    if pass_examples:
        sampled = collector.take("pass@k")
        errors += sum(verdict.error is not None for group in sampled for verdict in group.verdicts)
        right = [sum(verdict.score == 1 for verdict in group.verdicts) for group in sampled]
        for k in ks:
            values[f"pass@{k}"] = [pass_at_k(pass_samples, count, k) for count in right]
            tasks[f"pass@{k}"] = [example.task for example in pass_examples]
    for name in values:
        of_task: dict[str, list[float]] = {}
        for task, value in zip(tasks[name], values[name], strict=True):
            of_task.setdefault(f"task/{task}", []).append(value)
        for group, numbers in {"eval": values[name], **of_task}.items():
            where = f"{group}/{name}"
            metrics[where], metrics[f"{where}_low"], metrics[f"{where}_high"] = mean_and_interval(numbers)
    return metrics | {"eval/errors": float(errors)}, greedy
