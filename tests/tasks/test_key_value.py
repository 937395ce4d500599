"""The key-value world: problems, demonstrations, and its environment."""

import numpy as np
import pytest

from rlvr_jax import tasks
from rlvr_jax.envs import Done, Say, make_env
from rlvr_jax.tasks import make_task
from rlvr_jax.tasks.key_value import KEYS, value
from rlvr_jax.verifiers import verify

ENV = make_env("key_value")
HOPS = {hops: make_task("key_value", {"hops": hops}) for hops in (1, 2)}


def play(example, *turns):
    """The actions of the environment, up to its `Done`."""
    (state, prompt), actions = ENV.start(example), []
    assert prompt == example.prompt
    for turn in turns:
        state, action = ENV.step(state, turn)
        actions.append(action)
    return actions


def test_problems_are_the_same_in_every_process_and_version():
    first, second = (task.example("train", 0) for task in HOPS.values())
    assert (first.prompt, first.reference) == ("1cf?", {"world": "1/train/0", "start": "cf", "answer": "jf"})
    assert (second.prompt, second.reference) == ("2da?", {"world": "2/train/0", "start": "da", "answer": "gg"})
    with pytest.raises(ValueError, match="hops must be 1 or 2, not 3"):
        make_task("key_value", {"hops": 3})


@pytest.mark.parametrize("hops", HOPS)
def test_as_many_searches_as_hops_lead_to_the_answer(hops):
    for split in ("train", "heldout"):
        example = HOPS[hops].example(split, 7)
        key = example.prompt[1:3]
        for _ in range(hops):
            (said,) = play(example, f"<{key}>")
            assert said == Say(f"{value(example.reference['world'], key)}|")
            key = said.observation[:2]
        assert verify("key_value", f"<ab>\n#{key}", example.reference).score == 1
        assert verify("key_value", f"#{key}\n<ab>", example.reference).score == 0
        assert verify("key_value", f"#{key}a", example.reference).score == 0


def test_every_problem_has_a_function_of_its_own():
    worlds = [HOPS[1].example(split, i).reference["world"] for split in ("train", "heldout") for i in range(20)]
    assert len({tuple(value(world, key) for key in KEYS) for world in worlds}) == 40
    counts = np.bincount([KEYS.index(value(world, key)) for world in worlds for key in KEYS], minlength=100)
    assert abs(counts - 40).max() < 5 * 40**0.5


def test_turns_that_are_neither_search_nor_answer_are_said_to_be_malformed_and_counted():
    example = HOPS[1].example("train", 0)
    wrong = ("", "<cf", "<cf>>", "<ck>", "cf", "<cf>#jf")
    assert [play(example, turn)[0] for turn in wrong] == [Say("!!|")] * len(wrong)
    state, _ = ENV.start(example)
    for turn, outcome, malformed in (("<cf", "malformed", 1), ("<cf>", "ok", 1)):
        state, _ = ENV.step(state, turn)
        assert ENV.calls_of(state)[-1].outcome == outcome
        assert ENV.parts_of(state) == {"calls": len(ENV.calls_of(state)), "malformed": malformed}
    with pytest.raises(ValueError, match="modsum/train/0 has no world"):
        ENV.start(tasks.modsum().example("train", 0))


def test_demonstrations_show_the_format_and_not_when_to_search():
    numbers = {hops: [] for hops in HOPS}
    for hops, task in HOPS.items():
        for index in range(1000):
            example = task.example("train", index)
            *searches, answer = task.demonstration(example, index)
            asked, said = searches[::2], searches[1::2]
            actions = play(example, *(message["content"] for message in (*asked, answer)))
            assert [message["content"] for message in said] == [action.observation for action in actions[:-1]]
            assert actions[-1] == Done()
            assert {message["role"] for message in asked} <= {"assistant"}
            right = verify("key_value", answer["content"], example.reference).score
            assert set("".join(message["content"] for message in (*searches, answer))) <= set(task.alphabet)
            numbers[hops].append((len(asked), right))
    shares = {hops: np.bincount([calls for calls, _ in found]) / 1000 for hops, found in numbers.items()}
    for found in shares.values():
        np.testing.assert_allclose(found, [0.4, 0.36, 0.24], atol=0.05)
    right = {hops: np.mean([x for _, x in found]) for hops, found in numbers.items()}
    assert abs(right[1] - 0.6 * 0.7 * 0.6) < 0.04  # one search, of the right key
    assert abs(right[2] - 0.6 * 0.7 * 0.4 * 0.7) < 0.04
