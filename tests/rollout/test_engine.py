"""From examples to trajectories, on one device and on meshes of eight."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from rlvr_jax import parallel
from rlvr_jax.parallel import MeshConfig
from rlvr_jax.rollout.engine import collected, make_stream
from rlvr_jax.rollout.sampler import Sampler, SamplingConfig
from rlvr_jax.tasks.task import Example
from rlvr_jax.text.tokenizers import character_tokenizer
from tests.close import assert_close
from tests.policy import reference
from tests.policy.reference import TINY, random_params

ALPHABET = "0123456789+="
TOKENIZER = character_tokenizer(ALPHABET)
CONFIG = replace(TINY, vocab_size=len(ALPHABET) + 2, width=16, mlp_width=24, qkv_bias=True)
EQUALS = ALPHABET.index("=") + 2
WINDOW, STOPS = 7, (1, EQUALS)
SAMPLING = SamplingConfig(WINDOW, max_response_length=6, group_size=2)
KEY = jax.random.key(0)


def examples(count):
    prompts = [f"{17 * i}+{i}="[-WINDOW:] for i in range(count)]
    return [Example(f"sums/train/{i}", prompt, 18 * i, "sums") for i, prompt in enumerate(prompts)]


def rollout_on(
    mesh_config,
    num_devices,
    batch_size,
    sampling=SAMPLING,
    config=CONFIG,
    make=collected,
):
    """A function examples, ... -> trajectories on a mesh; with `make` = list, -> the items of the stream."""
    mesh = parallel.make_mesh(mesh_config, jax.devices()[:num_devices])
    sampler = Sampler(config, replace(sampling, batch_size=batch_size), mesh)
    stream = make_stream(sampler, TOKENIZER, sampling.group_size, STOPS)
    run = make(stream) if make is collected else lambda *args, **kwargs: make(stream(*args, **kwargs))
    return lambda examples, key=KEY, **kwargs: run(random_params(config), examples, key, **kwargs)


@pytest.fixture(scope="module")
def rollout():
    return rollout_on(MeshConfig(), 1, batch_size=4)


@pytest.fixture(scope="module")
def trajectories(rollout):
    return rollout(examples(8))


def test_a_rollout_of_a_prompt_that_does_not_fit_is_an_error(rollout):
    long = Example("sums/train/0", "1" * (WINDOW + 1), 0, "sums")
    with pytest.raises(ValueError, match=f"the prompt of sums/train/0 has {WINDOW + 1} tokens"):
        rollout([*examples(2), long])


def test_a_prompt_with_a_character_without_token_is_an_error_that_names_it(rollout):
    with pytest.raises(ValueError, match="'x'"):
        rollout([Example("sums/train/0", "1x", 0, "sums")])


def test_every_trajectory_belongs_to_its_own_example(trajectories):
    assert [t.sample for t in trajectories] == list(range(16))
    assert [t.example for t in trajectories] == [example for example in examples(8) for _ in range(2)]
    for t in trajectories:
        assert "".join(ALPHABET[token - 2] for token in t.prompt) == t.example.prompt
        # Only the policy's log-probs on this very prompt are these.
        whole = np.concatenate([t.prompt, t.tokens])
        logprobs = reference.log_softmax(reference.logits(CONFIG, random_params(CONFIG), whole[:-1]))
        expected = logprobs[np.arange(len(t.prompt) - 1, len(whole) - 1), t.tokens]
        assert_close(t.policy_logprobs, expected, terms=2.0)


@pytest.mark.parametrize("count", [1, 3, 4, 5])
def test_the_number_of_examples_does_not_change_their_trajectories(rollout, trajectories, count):
    fewer = rollout(examples(count))
    assert len(fewer) == count * SAMPLING.group_size
    for a, b in zip(fewer, trajectories, strict=False):
        assert (a.example, a.sample, a.text, a.finish_reason) == (b.example, b.sample, b.text, b.finish_reason)
        np.testing.assert_array_equal(a.tokens, b.tokens)
        np.testing.assert_array_equal(a.policy_logprobs, b.policy_logprobs)


def test_no_examples_give_no_trajectories(rollout):
    assert rollout([]) == []


def test_arrays_end_with_the_response_and_every_token_is_an_action(trajectories):
    for t in trajectories:
        assert 1 <= len(t.tokens) <= SAMPLING.max_response_length
        shapes = {x.shape for x in (t.tokens, t.action_mask, t.policy_logprobs)}
        assert shapes == {t.tokens.shape}
        assert t.action_mask.all()
        assert (t.finish_reason == "stop") == (t.tokens[-1] in STOPS)
        assert t.finish_reason == "stop" or len(t.tokens) == SAMPLING.max_response_length


def test_the_text_leaves_out_the_stop_token_and_nothing_else(trajectories):
    stopped_by = set()
    for t in trajectories:
        spoken = t.tokens
        if t.finish_reason == "stop":
            stopped_by.add(int(spoken[-1]))
            spoken = spoken[:-1]
        assert t.text == "".join(ALPHABET[token - 2] for token in spoken if token >= 2)
    assert EQUALS in stopped_by  # a stop token that the tokenizer would decode
    assert any(t.finish_reason == "length" for t in trajectories)


def test_key_and_temperature_decide_the_responses(rollout, trajectories):
    def tokens(trajectories):
        return [t.tokens.tolist() for t in trajectories]

    assert tokens(rollout(examples(8))) == tokens(trajectories)
    assert tokens(rollout(examples(8), jax.random.key(1))) != tokens(trajectories)
    greedy = tokens(rollout(examples(8), temperature=0.0))
    assert greedy == tokens(rollout(examples(8), jax.random.key(1), temperature=0.0))
    assert greedy[::2] == greedy[1::2]


@pytest.mark.parametrize("mesh", [MeshConfig(data=8), MeshConfig(data=2, fsdp=2, tensor=2)], ids=["data", "all"])
def test_every_mesh_gives_the_same_tokens_as_one_device(trajectories, mesh):
    sharded = rollout_on(mesh, 8, batch_size=8)(examples(8))
    assert len(sharded) == len(trajectories)
    for a, b in zip(sharded, trajectories, strict=True):
        np.testing.assert_array_equal(a.tokens, b.tokens)
        assert (a.text, a.finish_reason) == (b.text, b.finish_reason)
        assert_close(a.policy_logprobs, b.policy_logprobs, terms=2.0)


def assert_equal(actual, expected):
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        assert (a.example, a.sample, a.text, a.finish_reason) == (b.example, b.sample, b.text, b.finish_reason)
        for name in ("prompt", "tokens", "action_mask"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        assert_close(a.policy_logprobs, b.policy_logprobs, terms=2.0)


def test_a_rollout_over_slots_gives_the_same_trajectories_in_the_same_order(trajectories):
    rollout = rollout_on(MeshConfig(), 1, batch_size=4, sampling=replace(SAMPLING, slots=3, chunk=2))
    assert_equal(rollout(examples(8)), trajectories)
    assert rollout([]) == []
    with pytest.raises(ValueError, match=f"the prompt of sums.train.0 has {WINDOW + 1} tokens"):
        rollout([Example("sums/train/0", "1" * (WINDOW + 1), 0, "sums")])


def test_a_stream_of_whole_batches_hands_out_each_batch_and_counts_its_steps(trajectories):
    items = rollout_on(MeshConfig(), 1, batch_size=4, make=list)(examples(6))
    assert_equal([t for part, _ in items for t in part], trajectories[:12])
    assert [len(part) for part, _ in items] == [8, 4]
    longest = [max(len(t.tokens) for t in trajectories[a:b]) for a, b in ((0, 8), (8, 12))]
    stats = items[-1][1]
    assert stats.steps == sum(longest)  # the second batch is filled up with samples that end at once
    assert stats.slot_steps == 8 * stats.steps
    assert stats.active_slot_steps == sum(len(t.tokens) for t in trajectories[:12])
    assert stats.prefill_tokens == sum(len(t.prompt) for t in trajectories[:12:2])


def test_a_budget_ends_a_sample_and_leaves_the_others(rollout, trajectories):
    budgets = np.where(np.arange(16) % 3 == 0, 2, SAMPLING.max_response_length)
    for t, b, budget in zip(rollout(examples(8), budgets=budgets), trajectories, budgets, strict=True):
        np.testing.assert_array_equal(t.tokens, b.tokens[:budget])
        assert t.finish_reason == ("stop" if t.tokens[-1] in STOPS else "length")
