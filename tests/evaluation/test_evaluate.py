"""`evaluate` with episodes that are made up: what is asked, and what comes out."""

import itertools
from dataclasses import replace

import jax
import numpy as np
import pytest

from rlvr_jax.evaluation import evaluate, mean_and_interval, pass_at_k
from rlvr_jax.rollout.collector import Collector
from rlvr_jax.tasks import Example
from rlvr_jax.verifiers.verdict import Verdict
from tests.episodes import episode, grouped

EXAMPLES = [Example(f"{task}/heldout/{i}", f"{i}=", str(i), task) for i, task in enumerate("abbaba")]
KEY = jax.random.key(3)
RIGHT_GREEDY = [True, False, True, True, False, True]
RIGHT_SAMPLED = [[True, False, False, False], [False] * 4, [True] * 4, [True, True, False, False]]  # of 4 problems


class MadeUp(Collector):
    """Sample j of a problem answers `j`, in a response of j + 1 tokens; the greedy answer to problem i has i + 1."""

    def __init__(self):
        self.started = {}

    def start(self, name, examples, group_size, key, temperature):
        self.started[name] = (list(examples), group_size, key, temperature)

    def take(self, name):
        examples, size, _, _ = self.started[name]
        groups = []
        for i, example in enumerate(examples):
            right = [RIGHT_GREEDY[i]] if size == 1 else RIGHT_SAMPLED[i]
            # A wrong answer may still have part of the score; problem 1 can't be judged at all.
            wrong = Verdict(0.5) if i != 1 else Verdict(0.0, error="it died")
            answer = lambda j, x, task=example.task: None if task == "b" else "right" if x else str(j)  # noqa: E731
            episodes = [episode(i + 1 if size == 1 else j + 1, example=example) for j in range(size)]
            verdicts = [replace(Verdict(1.0) if x else wrong, answer=answer(j, x)) for j, x in enumerate(right)]
            groups += grouped(verdicts, episodes, size)
        return groups


def run(pass_problems=4, ks=(1, 2, 4), majority=False):
    collector = MadeUp()
    found = evaluate(collector, EXAMPLES, EXAMPLES[:pass_problems], 4, KEY, ks, majority)
    return found, collector.started


def test_greedy_accuracy_counts_full_scores_only_with_its_interval():
    metrics = run()[0].metrics
    low, high = metrics["eval/greedy_accuracy_low"], metrics["eval/greedy_accuracy_high"]
    assert (metrics["eval/greedy_accuracy"], low, high) == mean_and_interval(list(map(float, RIGHT_GREEDY)))


@pytest.mark.parametrize("k", [1, 2, 4])
def test_pass_at_k_is_the_mean_over_problems_with_its_interval(k):
    metrics = run()[0].metrics
    expected = mean_and_interval([pass_at_k(4, sum(row), k) for row in RIGHT_SAMPLED])
    assert tuple(metrics[f"eval/pass@{k}{end}"] for end in ("", "_low", "_high")) == pytest.approx(expected)


def test_each_task_has_its_accuracy_and_pass_at_k_over_its_own_problems():
    metrics = run()[0].metrics
    for task in "ab":
        own = [i for i, example in enumerate(EXAMPLES) if example.task == task]
        found = tuple(metrics[f"task/{task}/greedy_accuracy{end}"] for end in ("", "_low", "_high"))
        assert found == mean_and_interval([float(RIGHT_GREEDY[i]) for i in own])
        pass_at_2 = [pass_at_k(4, sum(RIGHT_SAMPLED[i]), 2) for i in own if i < 4]
        assert metrics[f"task/{task}/pass@2"] == mean_and_interval(pass_at_2)[0]


def test_all_problems_are_answered_greedily_and_the_first_ones_sampled_at_temperature_1():
    _, started = run()
    assert started == {"greedy": (EXAMPLES, 1, KEY, 0.0), "pass@k": (EXAMPLES[:4], 4, KEY, 1.0)}


def test_the_greedy_episodes_come_back_with_their_verdicts():
    groups = run()[0].greedy
    assert [group.example for group in groups] == EXAMPLES
    assert [group.verdicts[0].score == 1 for group in groups] == RIGHT_GREEDY


def test_response_length_is_the_mean_of_the_greedy_completions():
    metrics = run()[0].metrics
    assert metrics["eval/response_length"] == np.mean([1, 2, 3, 4, 5, 6])


def test_judgements_that_failed_are_counted_greedy_and_sampled():
    metrics = run()[0].metrics
    assert metrics["eval/errors"] == 1 + 4


def test_without_pass_problems_nothing_is_sampled_and_no_pass_at_k_is_reported():
    found, started = run(pass_problems=0)
    metrics = found.metrics
    assert set(started) == {"greedy"}
    assert not any("pass@" in name for name in metrics)
    assert metrics["eval/errors"] == 1


def test_results_are_kept_by_problem_and_tokens_are_counted():
    found, _ = run()
    assert found.values["greedy_accuracy"] == {
        (example.task, example.id): float(x) for example, x in zip(EXAMPLES, RIGHT_GREEDY, strict=True)
    }
    assert list(found.values["pass@4"].values()) == [1.0, 0.0, 1.0, 1.0]
    assert found.tokens == sum(range(1, 7)) + 4 * sum(range(1, 5))
    assert not any("maj@" in name for name in found.values)


def test_the_most_frequent_answer_counts_for_tasks_whose_verifier_extracts_one():
    found, _ = run(majority=True)
    assert list(found.values["maj@4"]) == [("a", EXAMPLES[0].id), ("a", EXAMPLES[3].id)]
    assert list(found.values["maj@4"].values()) == [pytest.approx(1 / 4), 1.0]
    assert found.metrics["eval/maj@4"] == found.metrics["task/a/maj@4"] == pytest.approx(5 / 8)
    assert "maj@1" not in found.values


def test_best_of_k_takes_the_sample_of_the_highest_score_and_what_has_none_comes_last():
    scores = [[0, 1, 2, 3]] * 3 + [[0, 1, 2, -1]]  # the judge fails on the last sample of the last problem

    def by_length(groups):
        scored = []
        for group, row in zip(groups, scores, strict=True):
            pairs = zip(group.verdicts, row, strict=True)
            told = [
                replace(x, parts={**x.parts, "long": y}, error=x.error or "no score" * (y < 0) or None)
                for x, y in pairs
            ]
            scored.append(replace(group, verdicts=tuple(told)))
        return scored

    best = {"long": by_length}
    found = evaluate(MadeUp(), EXAMPLES, EXAMPLES[:4], 4, KEY, (1, 2, 4), best_by=best)
    assert "best@1/long" not in found.values
    for k in (2, 4):
        subsets = list(itertools.combinations(range(4), k))
        pairs = zip(RIGHT_SAMPLED, scores, strict=True)
        expected = [np.mean([right[max(x, key=row.__getitem__)] for x in subsets]) for right, row in pairs]
        assert [*found.values[f"best@{k}/long"].values()] == pytest.approx(expected)
    assert found.metrics["eval/best/long_unjudged"] == 1 + sum(not x for x in RIGHT_SAMPLED[1])
    assert found.metrics["eval/pass@2"] == run()[0].metrics["eval/pass@2"]
