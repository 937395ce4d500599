"""Held-out evaluation: greedy accuracy, and pass@k from several samples of each problem."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from jaxtyping import Array, Key

from rlvr_jax.evaluation.best_of_n import best_of_n
from rlvr_jax.evaluation.estimators import majority_at_k, mean_and_interval, pass_at_k
from rlvr_jax.rollout.collector import Collector
from rlvr_jax.rollout.episode import Group, flattened
from rlvr_jax.rollout.streams import Stream
from rlvr_jax.tasks.task import Example

Problem = tuple[str, str]  # task and id
Score = Callable[[Sequence[Group]], list[Group]]  # groups -> the groups with a part more in their verdicts


@dataclass(frozen=True)
class Judging:
    """The judges that are asked about episodes after sampling, see `rlvr_jax.training.judging`.

    Attributes:
      names: of those that score every sample, from 0 to 1: parts of the verdicts.
      verdicts: groups -> the groups with the verdicts of tasks that leave them to a judge.
      score: name, groups -> the groups with the score of this judge.
    """

    names: tuple[str, ...]
    verdicts: Callable[[Sequence[Group]], list[Group]]
    score: Callable[[str, Sequence[Group]], list[Group]]

    def all(self, groups: Sequence[Group]) -> list[Group]:
        """The groups with the scores of all judges; a sample is unjudged if one fails on it."""
        groups = list(groups)
        for name in self.names:
            groups = self.score(name, groups)
        return groups


NO_JUDGES = Judging((), list, lambda _, groups: list(groups))


@dataclass(frozen=True)
class Evaluation:
    """Of a policy.

    Attributes:
      metrics: means with their intervals, `_low` and `_high`.
      greedy: the groups of the greedy episodes.
      values: of each metric, by problem.
      tokens: that the policy sampled.
      sampled: the groups of the samples for pass@k.
    """

    metrics: dict[str, float]
    greedy: list[Group]
    values: dict[str, dict[Problem, float]]
    tokens: int
    sampled: list[Group] = field(default_factory=list)


def evaluate(
    collector: Collector,
    examples: Sequence[Example],
    pass_examples: Sequence[Example],
    pass_samples: int,
    key: Key[Array, ""] | Stream,
    ks: Sequence[int],
    majority: bool = False,
    judging: Judging = NO_JUDGES,
    best_by: Mapping[str, Score] = MappingProxyType({}),
) -> Evaluation:
    """Metrics `eval/*` over all problems and `task/<task>/*` over those of each task, and what they are made of.

    Args:
      collector: of the policy's episodes, with nothing in flight.
      examples: held-out problems, answered greedily.
      pass_examples: problems sampled for pass@k; without any there is no pass@k.
      pass_samples: samples of each, at temperature 1.
      key: of the samples for pass@k, or its raw data.
      ks: the k of pass@k.
      majority: also maj@k of each k above 1, for tasks whose verifier extracts answers.
      judging: the judges; the metrics `judge/<name>` are mean scores of the greedy responses that each could judge,
        and its failures change no other metric.
      best_by: name -> scores of samples, each a part of that name; the metric `best@k/<name>` of each k above 1 is the
        probability that the sample of the highest score among k is right. Samples that can't be scored come last.
    """
    collector.start("greedy", examples, 1, key, 0.0)
    if pass_examples:
        collector.start("pass@k", pass_examples, pass_samples, key, 1.0)
    greedy = judging.verdicts(collector.take("greedy"))
    episodes, verdicts, _ = flattened(greedy)
    metrics = {"eval/response_length": float(np.mean([episode.length for episode in episodes]))}
    errors, tokens = sum(verdict.error is not None for verdict in verdicts), sum(x.length for x in episodes)
    values = {"greedy_accuracy": _by_problem(examples, [float(verdict.score == 1) for verdict in verdicts])}
    for name in judging.names:
        scored = judging.score(name, greedy)
        greedy = [_better(*pair) for pair in zip(greedy, scored, strict=True)]
        told = [group.verdicts[0] for group in scored]
        judged = [i for i, verdict in enumerate(told) if verdict.error is None]
        scores = _by_problem([examples[i] for i in judged], [told[i].parts[name] for i in judged])
        values |= {f"judge/{name}": scores} if scores else {}
        failed = sum(x.error is not None and y.error is None for x, y in zip(told, verdicts, strict=True))
        metrics[f"eval/judge/{name}_unjudged"] = float(failed)
    sampled: list[Group] = []
    if pass_examples:
        sampled = judging.verdicts(collector.take("pass@k"))
        errors += sum(verdict.error is not None for group in sampled for verdict in group.verdicts)
        tokens += sum(episode.length for group in sampled for episode in group.episodes)
        right = [[verdict.score == 1 for verdict in group.verdicts] for group in sampled]
        for k in ks:
            values[f"pass@{k}"] = _by_problem(pass_examples, [pass_at_k(pass_samples, sum(x), k) for x in right])
        if majority:
            answers = [[verdict.answer for verdict in group.verdicts] for group in sampled]
            answering = {
                x.task for x, said in zip(pass_examples, answers, strict=True) if any(y is not None for y in said)
            }
            for k in (k for k in ks if k > 1):
                voted = zip(pass_examples, answers, right, strict=True)
                found = {(x.task, x.id): majority_at_k(*y, k) for x, *y in voted if x.task in answering}
                values |= {f"maj@{k}": found} if found else {}
        for name, score in best_by.items():
            proxies, failed = _scores_of(name, score(sampled))
            metrics[f"eval/best/{name}_unjudged"] = float(failed)
            for k in (k for k in ks if k > 1):
                pairs = zip(right, proxies, strict=True)
                best = [best_of_n(np.array([x], float), np.array([y]), [k])[0] for x, y in pairs]
                values[f"best@{k}/{name}"] = _by_problem(pass_examples, [min(1.0, float(x)) for x in best])
    for name, by_problem in values.items():
        of_task: dict[str, list[float]] = {}
        for (task, _), value in by_problem.items():
            of_task.setdefault(f"task/{task}", []).append(value)
        for group, numbers in {"eval": [*by_problem.values()], **of_task}.items():
            where = f"{group}/{name}"
            metrics[where], metrics[f"{where}_low"], metrics[f"{where}_high"] = mean_and_interval(numbers)
    return Evaluation(metrics | {"eval/errors": float(errors)}, greedy, values, tokens, sampled)


def _better(before: Group, scored: Group) -> Group:
    """The group with a judge's score, unless the judge has failed on it."""
    return before if scored.verdicts[0].error is not None else scored


def _scores_of(name: str, groups: Sequence[Group]) -> tuple[list[list[float]], int]:
    """The scores of samples by problem, and the number of samples without one."""
    scores = [[-math.inf if x.error else float(x.parts[name]) for x in group.verdicts] for group in groups]
    return scores, sum(score == -math.inf for of in scores for score in of)


def _by_problem(examples: Sequence[Example], values: Sequence[float]) -> dict[Problem, float]:
    return {(example.task, example.id): value for example, value in zip(examples, values, strict=True)}
