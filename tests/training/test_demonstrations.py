"""Demonstrations of several turns: their tokens, what is trained on, and a warm start on them."""

import dataclasses

import jax
import numpy as np
import pytest

from rlvr_jax.config import TaskConfig
from rlvr_jax.errors import ConfigError
from rlvr_jax.tasks import shots_of
from rlvr_jax.text.tokenizers import decode
from rlvr_jax.training import sft
from rlvr_jax.training.demonstrations import responses
from rlvr_jax.training.setup import make_setup
from tests.training.test_loop import TINY, changed

CONFIG = changed(
    dataclasses.replace(
        TINY,
        tasks={"hops": TaskConfig("key_value", {"hops": 2}, environment="key_value")},
        reward=(("score", 1.0), ("calls", -0.05)),
    ),
    policy={"max_length": 32},
    rollout={"max_response_length": 28, "max_turn_length": 5},
)


@pytest.fixture(scope="module")
def setup():
    return make_setup(CONFIG, run="sft")


def test_turns_end_as_in_episodes_and_observations_are_not_trained_on(setup):
    task = setup.tasks["hops"]
    examples = [task.example("train", i) for i in range(12)]
    found = responses(setup, examples)
    assert len({len(tokens) for tokens, _ in found}) == 3  # none, one or two searches
    for number, (example, (tokens, trained)) in enumerate(zip(examples, found, strict=True)):
        messages = task.demonstration(example, number)
        expected, own = [], []
        for message in messages:
            is_turn = message["role"] == "assistant"
            part = [2 + task.alphabet.index(x) for x in message["content"]] + [1] * (
                is_turn and message["content"][-1] != ">"
            )
            expected, own = expected + part, own + [is_turn] * len(part)
        assert tokens.tolist() == expected
        assert trained.tolist() == own
        assert decode(setup.tokenizer, [tokens]) == ["".join(message["content"] for message in messages)]


def test_a_batch_of_the_warm_start_has_actions_on_the_turns_alone(setup):
    batches = sft._batches(setup, 0, CONFIG.sft.updates_per_call)
    tokens, actions = np.asarray(batches.tokens)[..., 4:], np.asarray(batches.action_mask) > 0
    bar = 2 + setup.tasks["hops"].alphabet.index("|")
    observed = (tokens == bar) & ~actions
    assert observed.any()
    assert not (tokens == bar)[actions].any()
    real = np.asarray(batches.segment_ids)[..., 4:] > 0
    assert (real & ~actions).sum() == 3 * observed.sum()  # two letters and the bar
    assert jax.tree.leaves(batches)[0].shape[:2] == (CONFIG.sft.updates_per_call, CONFIG.sft.batch_size)


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ((), "none"),
        (({"role": "user", "content": "a"},), "user"),
        (({"role": "assistant", "content": "a"}, {"role": "user", "content": "b"}), "assistant, user"),
        (
            (
                {"role": "assistant", "content": "a"},
                {"role": "tool", "content": "b"},
                {"role": "assistant", "content": "a"},
            ),
            "tool",
        ),
    ],
)
def test_other_messages_are_refused_with_the_name_of_the_example(setup, messages, message):
    task = dataclasses.replace(setup.tasks["hops"], demonstration=lambda *_: messages)
    wrong = dataclasses.replace(setup, tasks={"hops": task})
    with pytest.raises(ConfigError, match=f"hops/train/0.*{message}"):
        responses(wrong, [task.example("train", 0)])
    with pytest.raises(ValueError, match="several turns"):
        shots_of(task, 1)
