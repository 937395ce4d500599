"""`evaluate` with episodes that are made up: what is asked, and what comes out."""

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
            episodes = [episode(i + 1 if size == 1 else j + 1, example=example) for j in range(size)]
            groups += grouped([Verdict(1.0) if x else wrong for x in right], episodes, size)
        return groups


def run(pass_problems=4, ks=(1, 2, 4)):
    collector = MadeUp()
    return evaluate(collector, EXAMPLES, EXAMPLES[:pass_problems], 4, KEY, ks), collector.started


def test_greedy_accuracy_counts_full_scores_only_with_its_interval():
    (metrics, _), _ = run()
    low, high = metrics["eval/greedy_accuracy_low"], metrics["eval/greedy_accuracy_high"]
    assert (metrics["eval/greedy_accuracy"], low, high) == mean_and_interval(list(map(float, RIGHT_GREEDY)))


@pytest.mark.parametrize("k", [1, 2, 4])
def test_pass_at_k_is_the_mean_over_problems_with_its_interval(k):
    (metrics, _), _ = run()
    expected = mean_and_interval([pass_at_k(4, sum(row), k) for row in RIGHT_SAMPLED])
    assert tuple(metrics[f"eval/pass@{k}{end}"] for end in ("", "_low", "_high")) == pytest.approx(expected)


def test_each_task_has_its_accuracy_and_pass_at_k_over_its_own_problems():
    (metrics, _), _ = run()
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
    (_, groups), _ = run()
    assert [group.example for group in groups] == EXAMPLES
    assert [group.verdicts[0].score == 1 for group in groups] == RIGHT_GREEDY


def test_response_length_is_the_mean_of_the_greedy_completions():
    (metrics, _), _ = run()
    assert metrics["eval/response_length"] == np.mean([1, 2, 3, 4, 5, 6])


def test_judgements_that_failed_are_counted_greedy_and_sampled():
    (metrics, _), _ = run()
    assert metrics["eval/errors"] == 1 + 4


def test_without_pass_problems_nothing_is_sampled_and_no_pass_at_k_is_reported():
    (metrics, _), started = run(pass_problems=0)
    assert set(started) == {"greedy"}
    assert not any("pass@" in name for name in metrics)
    assert metrics["eval/errors"] == 1
