"""Episodes that a real policy plays, in whole batches and over slots."""

import dataclasses

import jax
import numpy as np
import pytest

from rlvr_jax import parallel
from rlvr_jax.envs import Done, Env, Say, single_turn
from rlvr_jax.parallel import MeshConfig
from rlvr_jax.rollout.collector import Collector
from rlvr_jax.rollout.episode import flattened
from rlvr_jax.rollout.playing import Limits, Source
from rlvr_jax.rollout.sampler import Sampler, SamplingConfig
from rlvr_jax.tasks import Example, Task
from rlvr_jax.text.tokenizers import character_tokenizer, encode
from rlvr_jax.verifiers.pool import Pool
from rlvr_jax.verifiers.verdict import Verdict
from tests.close import assert_close
from tests.policy import reference
from tests.policy.reference import TINY, random_params

ALPHABET = "0123456789+="
TOKENIZER = character_tokenizer(ALPHABET)
CONFIG = dataclasses.replace(TINY, vocab_size=len(ALPHABET) + 2, num_layers=1, mlp_width=24, qkv_bias=True)
EQUALS = ALPHABET.index("=") + 2
STOPS = (1, EQUALS)
LIMITS = Limits(prompt=7, response=16, turn=5, stop_tokens=STOPS)


def check(completion, reference):
    return Verdict(float(completion == reference))


def echo(turns):
    """Says what the policy has said, between two plus signs, until it has had its turns."""

    def step(left, text):
        return left - 1, Done() if left == 1 else Say(f"+{text}+")

    return Env(lambda _: (turns, ""), step)


def examples(count):
    return [Example(f"t/train/{i}", f"{17 * i}+{i}="[-7:], "12", "t") for i in range(count)]


def collect(env=None, count=4, key=0, temperature=1.0, group_size=2, begun=None, **settings):
    sampling = SamplingConfig(7, 16, group_size=2, batch_size=4, max_stop_tokens=2, **settings)
    sampler = Sampler(CONFIG, sampling, parallel.make_mesh(MeshConfig(data=1), jax.devices()[:1]))
    sampler.set_params(random_params(CONFIG), 3)
    task = Task("t", "tests.rollout.test_collected:check", None, None)
    observe = lambda text, _: encode(TOKENIZER, text)  # noqa: E731
    source = Source(task, env or single_turn(), observe)
    with Pool(0) as pool:
        collector = Collector(sampler, pool, {"t": source}, TOKENIZER, LIMITS)
        collector.start(1, examples(count), group_size, jax.random.key(key), temperature, begun)
        return collector.take(1)


@pytest.fixture(scope="module")
def single():
    return collect(count=8)


@pytest.fixture(scope="module")
def several():
    return collect(echo(3), slots=3, chunk=2)


def test_every_token_of_the_policy_has_the_logprob_that_it_has_after_all_before_it(single, several):
    finished = set()
    for episode in [*flattened(single)[0], *flattened(several)[0]]:
        (window,) = episode.sequences
        whole = np.concatenate([window.prompt, window.response])
        logprobs = reference.log_softmax(reference.logits(CONFIG, random_params(CONFIG), whole[:-1]))
        expected = logprobs[np.arange(len(window.prompt) - 1, len(whole) - 1), window.response]
        assert_close(window.logprobs[window.action_mask], expected[window.action_mask], terms=2.0)
        assert {span.version for span in window.spans if span.author == "policy"} == {3}
        finished.add((episode.finish_reason, len(episode.turns)))
    assert {("stop", 1), ("length", 1), ("length", 2)} <= finished  # so that the test has something to look at


def test_texts_leave_out_stop_tokens_and_what_the_environment_says(several):
    for episode in flattened(several)[0]:
        policy = [span for span in episode.sequences[0].spans if span.author == "policy"]
        heard = [span for span in episode.sequences[0].spans if span.author == "env"]
        for span, turn in zip(policy, episode.turns, strict=True):
            said = span.tokens[:-1] if span.tokens[-1] in STOPS else span.tokens
            assert turn == "".join(ALPHABET[token - 2] for token in said if token >= 2)
        for span, turn in zip(heard, episode.turns, strict=False):
            assert span.tokens.tolist() == encode(TOKENIZER, f"+{turn}+")
        assert episode.text == "\n".join(episode.turns)


def equal(groups, others):
    for a, b in zip(flattened(groups)[0], flattened(others)[0], strict=False):
        assert (a.example, a.sample, a.turns, a.finish_reason) == (b.example, b.sample, b.turns, b.finish_reason)
        np.testing.assert_array_equal(a.sequences[0].response, b.sequences[0].response)
        assert_close(a.sequences[0].logprobs, b.sequences[0].logprobs, terms=2.0)


def test_slots_and_the_number_of_examples_change_no_episode(single, several):
    equal(collect(count=3), single)
    equal(collect(count=8, slots=3, chunk=2), single)
    equal(collect(echo(3)), several)  # whole contexts are computed again for every turn


def test_key_and_temperature_decide_the_episodes(single):
    def texts(groups):
        return [[episode.text for episode in group.episodes] for group in groups]

    assert texts(collect(count=8, key=1)) != texts(single)
    greedy = texts(collect(count=8, temperature=0.0))
    assert greedy == texts(collect(count=8, key=1, temperature=0.0))
    assert all(a == b for a, b in greedy)


@pytest.fixture(scope="module")
def of_one():
    """Groups of one episode."""
    return collect(count=6, key=1, group_size=1)


@pytest.mark.parametrize("slots", [0, 1])
def test_an_episode_that_begins_with_the_first_tokens_of_another_goes_on_as_that_one_does(of_one, slots):
    whole = collect(count=6, key=1, group_size=1, slots=slots) if slots else of_one
    equal(whole, of_one)
    responses = [episode.sequences[0].response for episode in flattened(whole)[0]]
    begun = [response[: len(response) // 2] for response in responses]
    assert {len(tokens) for tokens in begun} >= {0, 2}
    again = collect(count=6, key=1, group_size=1, begun=begun, slots=slots)
    for (a,), (b,) in zip([group.episodes for group in whole], [group.episodes for group in again], strict=True):
        assert (a.turns, a.tokens.tolist(), a.finish_reason) == (b.turns, b.tokens.tolist(), b.finish_reason)
    assert [group.verdicts for group in again] == [group.verdicts for group in whole]
