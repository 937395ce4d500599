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
    greedy_rollout: Rollout,
    pass_rollout: Rollout,
    judge: Judge,
    key: jax.Array,
    pass_problems: int,
    ks: Sequence[int],
) -> tuple[dict[str, float], list[Trajectory], list[Verdict]]:
    """Metrics `eval/*` by their public names, and the greedy completions with their verdicts.

    Args:
      params: the policy's parameters.
      examples: held-out problems.
      greedy_rollout: gives one sample for each problem.
      pass_rollout: gives as many as pass@k is estimated from.
      judge: trajectories -> verdicts.
      key: of the samples for pass@k.
      pass_problems: how many of the examples are sampled for pass@k; 0 leaves it out.
      ks: the k of pass@k.
    """
    greedy = greedy_rollout(params, examples, key, temperature=0.0)
    verdicts = judge(greedy)
    metrics = {"eval/response_length": float(np.mean([len(t.tokens) for t in greedy]))}
    errors = sum(verdict.error is not None for verdict in verdicts)
    named = {"eval/greedy_accuracy": [float(verdict.score == 1) for verdict in verdicts]}
    if pass_problems:
        sampled = judge(pass_rollout(params, examples[:pass_problems], key))
        errors += sum(verdict.error is not None for verdict in sampled)
        right = np.array([verdict.score == 1 for verdict in sampled]).reshape(pass_problems, -1)
        for k in ks:
            named[f"eval/pass@{k}"] = [pass_at_k(right.shape[1], int(row.sum()), k) for row in right]
    for name, values in named.items():
        metrics[name], metrics[f"{name}_low"], metrics[f"{name}_high"] = mean_and_interval(values)
    return metrics | {"eval/errors": float(errors)}, greedy, verdicts
