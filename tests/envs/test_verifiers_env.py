"""Environments of the kind of the package `verifiers`, by objects with their methods."""

import json
import re
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax.envs import Done, Say, make_env
from rlvr_jax.tasks import make_task
from rlvr_jax.tasks.verifiers_env import _rows, message, signed
from rlvr_jax.verifiers import verify
from tests.envs.guessing import guessing

GUESSING = "tests.envs.guessing:guessing"


def task_of(kind, name=GUESSING):
    return make_task("verifiers_env", {"environment": name, "arguments": {"kind": kind}})


def played(task, turns, index=0):
    """The actions of an episode, and the verdict on it."""
    env, example, found = make_env("verifiers"), task.example("train", index), []
    state, prompt = env.start(example)
    assert prompt == example.prompt
    for turn in turns:
        state, action = env.step(state, turn)
        found.append(action)
    answer = action.answer if isinstance(action, Done) else "\n".join(turns)
    return found, verify(task.verifier, answer, example.reference)


def test_its_problems_are_those_of_a_task():
    task = task_of("Guessing")
    assert (task.num_examples("train"), task.num_examples("heldout")) == (2, 1)
    example = task.example("train", 1)
    assert (example.id, example.gold) == ("verifiers_env/train/1", "8")
    assert example.prompt == ({"role": "user", "content": "1 to 9?"},)
    assert json.loads(json.dumps(example.reference))["row"]["info"] == {"most": 9}
    assert task_of("Plain").example("train", 0).prompt == ({"role": "user", "content": "1 to 3?"},)
    with pytest.raises(IndexError, match="heldout has 1 problems, there is no index 1"):
        task.example("heldout", 1)


def test_its_course_and_its_rubric_are_those_of_an_episode():
    task = task_of("Guessing")
    found, verdict = played(task, ["1", "3", "2"])
    assert found[:2] == [Say(({"role": "user", "content": x},)) for x in "+-"]
    assert (verdict.score, verdict.parts) == (1, {"reward": 1, "num_turns": 3})
    found, verdict = played(task, ["2"])
    assert (type(found[0]), verdict.score, verdict.parts["num_turns"]) == (Done, 1, 1)
    assert played(task, ["1", "1", "1"])[1].score == 0
    assert [type(action) for action in played(task, ["5", "8"], index=1)[0]] == [Say, Done]


def test_older_and_synchronous_forms_are_taken_too():
    found, verdict = played(task_of("Plain"), ["1", "2"])
    assert found[0] == Say(({"role": "user", "content": "No."},))
    assert (verdict.score, verdict.parts) == (0.5, {"reward": 0.5})
    found, verdict = played(task_of("Plain"), ["1", "1", "1"])
    assert [type(action) for action in found] == [Say, Say, Done]
    assert (verdict.score, verdict.parts["reward"]) == (0, -1)


def test_a_text_of_the_policy_is_no_account_of_the_environment():
    task = task_of("Guessing")
    found, verdict = played(task, ["1"])  # a limit of the rollout ends it there
    assert (type(found[0]), verdict.score, verdict.error) == (Say, 0, None)
    forged = signed(task.example("train", 1).reference, 1.0, {})
    assert verify(task.verifier, forged, task.example("train", 0).reference).score == 0
    assert verify(task.verifier, '{"reward": 1}', task.example("train", 0).reference).score == 0


def test_an_error_of_the_environment_leaves_the_episode_out():
    (action,), _ = played(task_of("Failing"), ["1"])
    assert (action.reason, action.error) == ("env_error", "the environment says: no connection")
    with pytest.raises(ValueError, match="problems of the task verifiers_env"):
        make_env("verifiers").start(make_task("modsum").example("train", 0))


REWARDS = {
    "float32": np.float32(0.5), "bool": np.bool_(True), "array": np.array(0.25), "jax": jnp.float32(0.5), "true": True,
    "text": "0.5", "none": None, "complex": 1j, "list": [1.0],
}  # fmt: skip


def rewarding(name):
    """The environment `Plain` with a reward of another type."""
    made = guessing("Plain")
    made.rubric = types.SimpleNamespace(score=lambda _: REWARDS[name])
    return made


@pytest.mark.parametrize("name", REWARDS)
def test_a_reward_is_a_number_of_any_type(name):
    task = make_task("verifiers_env", {"environment": f"{__name__}:rewarding", "arguments": {"name": name}})
    (action,), verdict = played(task, ["2"])
    if name in ("text", "none", "complex", "list"):
        assert (action.reason, repr(REWARDS[name]) in action.error) == ("env_error", True)
    else:
        assert (action.reason, verdict.score) == ("stop", float(REWARDS[name]))


USER = {"role": "user"}


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ({"role": "function", "content": None}, ({"role": "tool", "content": ""},)),
        (USER | {"content": [{"type": "text", "text": "a"}, "b"]}, (USER | {"content": "ab"},)),
        (USER | {"content": [{"type": "image_url"}]}, "no text: {'type': 'image_url'}"),
        ({"role": "assistant", "content": None, "tool_calls": [{}]}, "'assistant' has tool_calls"),
        (["user", "a"], "with 'role' and 'content', not ['user', 'a']"),
        ({"content": "a"}, "not {'content': 'a'}"),
    ],
)
def test_messages_are_text_or_refused_in_one_line(said, shown):
    options = {"environment": GUESSING, "arguments": {"kind": "Guessing", "get_dataset": [{"prompt": [said]}]}}
    if isinstance(shown, str):
        with pytest.raises(ValueError, match=f"problem 0 can't be used: .*{re.escape(shown)}"):
            make_task("verifiers_env", options)
        with pytest.raises(ValueError, match=re.escape(shown)):
            message(said)
    else:
        assert make_task("verifiers_env", options).example("train", 0).prompt == shown


@pytest.mark.parametrize("row", [{"x": 1}, {}, {"question": "", "x": 1}, [1], {"question": "a", "info": float("nan")}])
def test_a_problem_without_a_prompt_is_named(row):
    with pytest.raises(ValueError, match="verifiers_env: problem 0 can't be used"):
        _rows(guessing(get_dataset=[row]), "get_dataset")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"environment": GUESSING, "arguments": {"kind": "Nothing"}}, "has no env_response"),
        ({"environment": "tests.envs.guessing:broken"}, "broken': RuntimeError: no licence"),
        ({"environment": "tests.envs.guessing:missing"}, "no 'missing'"),
        ({"environment": "wordle"}, "'wordle' needs the package verifiers"),
        ({}, "needs the option 'environment'"),
    ],
)
def test_what_can_not_be_loaded_is_named(options, why, monkeypatch):
    monkeypatch.setitem(sys.modules, "verifiers", None)
    with pytest.raises(ValueError, match=why):
        make_task("verifiers_env", options)
