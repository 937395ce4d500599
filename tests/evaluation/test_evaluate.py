"""`evaluate` with rollouts and a judge that are made up: what is asked, and what comes out."""

import jax
import numpy as np
import pytest

from rlvr_jax.evaluation import evaluate, mean_and_interval, pass_at_k
from rlvr_jax.rollout.trajectory import Trajectory
from rlvr_jax.tasks import Example
from rlvr_jax.verifiers.verdict import Verdict

EXAMPLES = [Example(f"{task}/heldout/{i}", f"{i}=", str(i), task) for i, task in enumerate("abbaba")]
KEY = jax.random.key(3)
RIGHT_GREEDY = [True, False, True, True, False, True]
RIGHT_SAMPLED = [[True, False, False, False], [False] * 4, [True] * 4, [True, True, False, False]]  # of 4 problems


def made_up_rollout(group, calls):
    """Sample j of a problem answers `j`, in a response of j + 1 tokens."""

    def rollout(params, examples, key, temperature=1.0):
        calls.append((params, list(examples), key, temperature))
        return [
            Trajectory(
                example=example,
                sample=i * group + j,
                prompt=np.arange(2, dtype=np.int32),
                tokens=np.arange(j + 1 if group > 1 else i + 1, dtype=np.int32),
                action_mask=np.ones(j + 1 if group > 1 else i + 1, bool),
                policy_logprobs=np.zeros(j + 1 if group > 1 else i + 1, np.float32),
                finish_reason="stop",
                text=f"{'sampled' if group > 1 else 'greedy'} {j}",
            )
            for i, example in enumerate(examples)
            for j in range(group)
        ]

    return rollout


def judge(trajectories):
    verdicts = []
    for trajectory in trajectories:
        kind, j = trajectory.text.split()
        problem = int(trajectory.example.reference)
        right = RIGHT_GREEDY[problem] if kind == "greedy" else RIGHT_SAMPLED[problem][int(j)]
        # A wrong answer may still have part of the score; problem 1 can't be judged at all.
        verdicts.append(Verdict(1.0) if right else Verdict(0.5) if problem != 1 else Verdict(0.0, error="it died"))
    return verdicts


def run(pass_problems=4, ks=(1, 2, 4)):
    greedy_calls, pass_calls = [], []
    result = evaluate(
        "params",
        EXAMPLES,
        EXAMPLES[:pass_problems],
        made_up_rollout(1, greedy_calls),
        made_up_rollout(4, pass_calls),
        judge,
        KEY,
        ks,
    )
    return result, greedy_calls, pass_calls


def test_greedy_accuracy_counts_full_scores_only_with_its_interval():
    (metrics, _, _), _, _ = run()
    low, high = metrics["eval/greedy_accuracy_low"], metrics["eval/greedy_accuracy_high"]
    assert (metrics["eval/greedy_accuracy"], low, high) == mean_and_interval(list(map(float, RIGHT_GREEDY)))


@pytest.mark.parametrize("k", [1, 2, 4])
def test_pass_at_k_is_the_mean_over_problems_with_its_interval(k):
    (metrics, _, _), _, _ = run()
    expected = mean_and_interval([pass_at_k(4, sum(row), k) for row in RIGHT_SAMPLED])
    assert tuple(metrics[f"eval/pass@{k}{end}"] for end in ("", "_low", "_high")) == pytest.approx(expected)


def test_each_task_has_its_accuracy_and_pass_at_k_over_its_own_problems():
    (metrics, _, _), _, _ = run()
    for task in "ab":
        own = [i for i, example in enumerate(EXAMPLES) if example.task == task]
        found = tuple(metrics[f"task/{task}/greedy_accuracy{end}"] for end in ("", "_low", "_high"))
        assert found == mean_and_interval([float(RIGHT_GREEDY[i]) for i in own])
        pass_at_2 = [pass_at_k(4, sum(RIGHT_SAMPLED[i]), 2) for i in own if i < 4]
        assert metrics[f"task/{task}/pass@2"] == mean_and_interval(pass_at_2)[0]


def test_all_problems_are_answered_greedily_and_the_first_ones_sampled_at_temperature_1():
    _, greedy_calls, pass_calls = run()
    assert greedy_calls == [("params", EXAMPLES, KEY, 0.0)]
    assert pass_calls == [("params", EXAMPLES[:4], KEY, 1.0)]


def test_the_greedy_completions_come_back_with_their_verdicts():
    (_, trajectories, verdicts), _, _ = run()
    assert [t.example for t in trajectories] == EXAMPLES
    assert [v.score == 1 for v in verdicts] == RIGHT_GREEDY


def test_response_length_is_the_mean_of_the_greedy_completions():
    (metrics, _, _), _, _ = run()
    assert metrics["eval/response_length"] == np.mean([1, 2, 3, 4, 5, 6])


def test_judgements_that_failed_are_counted_greedy_and_sampled():
    (metrics, _, _), _, _ = run()
    assert metrics["eval/errors"] == 1 + 4


def test_without_pass_problems_nothing_is_sampled_and_no_pass_at_k_is_reported():
    (metrics, _, _), _, pass_calls = run(pass_problems=0)
    assert pass_calls == []
    assert not any("pass@" in name for name in metrics)
    assert metrics["eval/errors"] == 1
