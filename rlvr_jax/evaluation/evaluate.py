"""Held-out evaluation: greedy accuracy, and pass@k from several samples of each problem."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from rlvr_jax.evaluation.estimators import mean_and_interval, pass_at_k
from rlvr_jax.rollout.engine import Rollout
from rlvr_jax.rollout.trajectory import Trajectory
from rlvr_jax.tasks.task import Example
from rlvr_jax.verifiers.verdict import Verdict

Judge = Callable[[Sequence[Trajectory]], list[Verdict]]


def evaluate(
    params: Any,
    examples: Sequence[Example],
    pass_examples: Sequence[Example],
    greedy_rollout: Rollout,
    pass_rollout: Rollout,
    judge: Judge,
    key: jax.Array,
    ks: Sequence[int],
) -> tuple[dict[str, float], list[Trajectory], list[Verdict]]:
    """Metrics `eval/*` over all problems and `task/<task>/*` over those of each task, and the greedy completions.

    Args:
      params: the policy's parameters.
      examples: held-out problems, answered greedily.
      pass_examples: those that are sampled for pass@k; none leaves it out.
      greedy_rollout: gives one sample for each problem.
      pass_rollout: gives as many as pass@k is estimated from.
      judge: trajectories -> verdicts.
      key: of the samples for pass@k.
      ks: the k of pass@k.

    Returns:
      The metrics, the greedy completions and the verdicts on them.
    """
    greedy = greedy_rollout(params, examples, key, temperature=0.0)
    verdicts = judge(greedy)
    metrics = {"eval/response_length": float(np.mean([len(t.tokens) for t in greedy]))}
    errors = sum(verdict.error is not None for verdict in verdicts)
    values = {"greedy_accuracy": [float(verdict.score == 1) for verdict in verdicts]}
    tasks = {"greedy_accuracy": [example.task for example in examples]}
    if pass_examples:
        sampled = judge(pass_rollout(params, pass_examples, key))
        errors += sum(verdict.error is not None for verdict in sampled)
        right = np.array([verdict.score == 1 for verdict in sampled]).reshape(len(pass_examples), -1)
        for k in ks:
            values[f"pass@{k}"] = [pass_at_k(right.shape[1], int(row.sum()), k) for row in right]
            tasks[f"pass@{k}"] = [example.task for example in pass_examples]
    for name in values:
        of_task: dict[str, list[float]] = {}
        for task, value in zip(tasks[name], values[name], strict=True):
            of_task.setdefault(f"task/{task}", []).append(value)
        for group, numbers in {"eval": values[name], **of_task}.items():
            where = f"{group}/{name}"
            metrics[where], metrics[f"{where}_low"], metrics[f"{where}_high"] = mean_and_interval(numbers)
    return metrics | {"eval/errors": float(errors)}, greedy, verdicts
