"""Sums of several numbers, and the questions that a demonstration asks."""

import numpy as np
import pytest

from rlvr_jax.configs import subcalls
from rlvr_jax.envs import Ask, Done, Say, ToolResult, make_env
from rlvr_jax.tasks import make_task
from rlvr_jax.tasks.digit_sums import worked
from rlvr_jax.verifiers import verify

OPTIONS = subcalls.get_config().tasks.three.environment_options.to_dict()


@pytest.mark.parametrize("numbers", [1, 3])
def test_demonstrations_are_episodes_of_the_environment_that_ask_for_none_some_or_all(numbers):
    task, counts, scores = make_task("digit_sums", {"numbers": numbers}), [], []
    for index in range(300):
        example, env = task.example("train", index), make_env("subcalls", OPTIONS)
        found = example.prompt[:-1].split(".")
        sums = [sum(map(int, number)) % 10 for number in found]
        assert (len(found), example.reference) == (numbers, "".join(map(str, sums)))
        said = task.demonstration(example, index)
        state, _ = env.start(example)
        if not isinstance(said, str):
            asked, told, said = (message["content"] for message in said)
            state, action = env.step(state, asked)
            count = len(asked) // 6
            assert action == Ask(tuple(f"{number}=" for number in found[:count]))
            state, action = env.receive(state, tuple(ToolResult(worked(number)) for number in found[:count]))
            assert action == Say(told)
        state, action = env.step(state, said)
        assert isinstance(action, Done)
        counts.append(env.parts_of(state)["asks"])
        scores.append(verify(task.verifier, f"<1>\n{said}", example.reference).score)
        assert scores[-1] == 1 or counts[-1] < numbers > 1
    assert np.bincount(np.array(counts, int)).min() > 40
    assert len(np.bincount(np.array(counts, int))) == numbers + 1


def test_the_work_for_a_number():
    assert worked("3867") == "174#4"
    assert verify(make_task("digit_sums").verifier, "174#4", "4").score == 1


def test_a_question_may_come_with_the_problem():
    example = make_task("digit_sums").example("train", 0)
    env = make_env("subcalls", {**OPTIONS, "prompt": "{problem}{}:"})
    state, prompt = env.start(example)
    assert env.step(state, "<{problem}><2>")[1] == Ask((f"{prompt}{{problem}}:", f"{prompt}2:"))


def test_only_the_last_turn_is_judged():
    kind = make_task("digit_sums").verifier
    for completion, score in (
        ("#43", 1),
        ("12#43", 1),
        ("<1>\n#43", 1),
        ("#43\n#44", 0),
        ("#43#43", 0),
        ("43", 0),
        ("", 0),
    ):
        assert verify(kind, completion, "43").score == score


@pytest.mark.parametrize("options", [{"numbers": 0}, {"numbers": 10}, {"digits": 1}, {"digits": 10}])
def test_problems_that_can_not_be_made_are_refused(options):
    with pytest.raises(ValueError, match=str(next(iter(options.values())))):
        make_task("digit_sums", options)
