"""Whole batches on the device: what a sample depends on, when it ends, and its log-probabilities."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax import policy
from rlvr_jax.policy import model
from rlvr_jax.rollout.batches import pad_prompts, prompt_positions, sample
from rlvr_jax.rollout.layout import prepare
from rlvr_jax.rollout.requests import Request, draws_of
from rlvr_jax.rollout.sampling import FINISH_REASONS, SamplingConfig
from tests.close import assert_close
from tests.policy import reference
from tests.policy.reference import TINY, left_padded, random_params, random_sequences

CONFIG = replace(TINY, vocab_size=13, num_layers=1, qk_norm="head")  # the sampler unrolls its layers
LENGTHS = [2, 6, 1, 4]
WINDOW, GROUP, LENGTH, STOPS = 6, 3, 8, (1, 4)
SAMPLING = SamplingConfig(WINDOW, LENGTH)


@functools.cache
def prepared(config):
    return prepare(config, random_params(config))


def keys(ids, seed=7):
    streams = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), np.asarray(ids, np.uint32))
    return np.asarray(jax.random.key_data(streams))


def run(
    prompts,
    sampling=SAMPLING,
    *,
    group=GROUP,
    ids=None,
    seed=7,
    temperature=1.0,
    budget=None,
    stops=STOPS,
    config=CONFIG,
):
    ids = np.arange(len(prompts) * group) if ids is None else ids
    budget = budget or sampling.max_response_length
    requests = [
        Request(i, key, budget=budget, temperature=temperature, stop_tokens=stops)
        for i, key in enumerate(keys(ids, seed))
    ]
    inputs = pad_prompts(prompts, sampling.prompt_length)
    return jax.device_get(sample(config, sampling, prepared(config), *inputs, draws_of(requests, 9)))


@pytest.fixture(scope="module")
def prompts():
    return random_sequences(LENGTHS, CONFIG.vocab_size)


@pytest.fixture(scope="module")
def samples(prompts):
    return run(prompts)


def assert_same_tokens(actual, expected):
    """Tokens, lengths and finish reasons are equal; log-probs up to what shapes change in the rounding of sums."""
    for name in ("tokens", "lengths", "finish"):
        np.testing.assert_array_equal(getattr(actual, name), getattr(expected, name), err_msg=name)
    assert_close(actual.logprobs, expected.logprobs, terms=2.0)


def take(samples, rows):
    return jax.tree.map(lambda x: x[rows], samples)


# What a sample depends on


def test_samples_of_a_group_differ_and_the_same_call_gives_the_same_bits(prompts, samples):
    jax.tree.map(np.testing.assert_array_equal, samples, run(prompts))
    assert len({row.tobytes() for row in samples.tokens}) > len(samples.tokens) / 2
    other = run(prompts, seed=8)
    assert not np.array_equal(other.tokens, samples.tokens)


def test_other_prompts_in_the_batch_change_no_bit_of_a_sample(prompts, samples):
    others = random_sequences([5, 6, 3, 1], CONFIG.vocab_size, seed=9)
    mixed = run([prompts[0], others[1], prompts[2], others[3]])
    rows = [0, 1, 2, 6, 7, 8]
    jax.tree.map(np.testing.assert_array_equal, take(mixed, rows), take(samples, rows))
    assert not np.array_equal(mixed.tokens, samples.tokens)


def test_the_size_of_the_batch_does_not_change_a_samples_tokens(prompts, samples):
    for i in (0, 2):
        alone = run([prompts[i]], ids=np.arange(i * GROUP, (i + 1) * GROUP))
        assert_same_tokens(alone, take(samples, slice(i * GROUP, (i + 1) * GROUP)))


WIDER = replace(SAMPLING, prompt_length=WINDOW + 1)


def test_neither_a_prefill_of_its_own_nor_the_padding_of_its_prompt_changes_a_samples_tokens(prompts, samples):
    singly = run([prompts[i // GROUP] for i in range(len(samples.lengths))], WIDER, group=1)
    assert_same_tokens(singly, samples)


def test_the_key_names_the_random_stream_wherever_the_sample_stands(prompts, samples):
    ids = np.arange(len(prompts) * GROUP)
    # The group's members backwards, and the prompts backwards with them.
    assert_same_tokens(run(prompts[::-1], ids=ids[::-1]), take(samples, ids[::-1]))


def test_two_samples_of_one_key_are_the_same(prompts):
    samples = run([prompts[0]] * 4, ids=np.array([5, 2**31 - 1, 5] * 4))
    jax.tree.map(lambda x: np.testing.assert_array_equal(x[0], x[2]), samples)
    jax.tree.map(lambda x: np.testing.assert_array_equal(x[:3], x[3:6]), samples)
    assert not np.array_equal(samples.tokens[0], samples.tokens[1])


def test_the_random_stream_counts_the_tokens_that_were_drawn_before(prompts, samples):
    rows = list(range(len(samples.lengths)))
    contexts = [np.r_[prompts[i // GROUP], samples.tokens[i, :1]] for i in rows]
    requests = [Request(i, keys([i])[0], budget=LENGTH - 1, stop_tokens=STOPS, drawn=1) for i in rows]
    inputs = pad_prompts(contexts, WIDER.prompt_length)
    rest = jax.device_get(sample(CONFIG, WIDER, prepared(CONFIG), *inputs, draws_of(requests, 9)))
    for i in np.flatnonzero(samples.lengths > 1):
        np.testing.assert_array_equal(rest.tokens[i, : rest.lengths[i]], samples.tokens[i, 1 : samples.lengths[i]])


# When a sample ends


def assert_well_formed(samples, stops=STOPS, most=LENGTH):
    rows = zip(samples.tokens, samples.lengths, samples.finish, samples.logprobs, strict=True)
    for tokens, length, finish, logprobs in rows:
        ends = np.isin(tokens[:length], stops)
        assert not ends[:-1].any()
        assert 1 <= length <= most
        assert FINISH_REASONS[int(finish)] == ("stop" if ends[-1] else "length")
        assert ends[-1] or length == most
        assert (tokens[length:] == 0).all()
        assert (logprobs[:length] <= 0).all()
        assert (logprobs[length:] == 0).all()


def test_a_response_ends_at_its_first_stop_token_or_with_its_budget(samples):
    assert_well_formed(samples)
    last = samples.tokens[np.arange(len(samples.lengths)), samples.lengths - 1]
    assert set(STOPS) <= set(last)  # each of the stop tokens has ended some response,
    assert (samples.finish == 2).any()  # and the budget, too
    assert len(set(samples.lengths)) > 2


def test_without_stop_tokens_every_response_uses_its_budget(prompts, samples):
    endless = run(prompts, stops=())
    assert (endless.lengths == LENGTH).all()
    assert {FINISH_REASONS[int(finish)] for finish in endless.finish} == {"length"}
    for i, length in enumerate(samples.lengths):  # and up to the first stop token it is the same response
        np.testing.assert_array_equal(endless.tokens[i, :length], samples.tokens[i, :length])


def test_a_budget_of_one_token_gives_the_first_token(prompts, samples):
    for sampling in (SAMPLING, replace(SAMPLING, max_response_length=1)):
        first = run(prompts, sampling, budget=1)
        assert_well_formed(first, most=1)
        np.testing.assert_array_equal(first.tokens[:, 0], samples.tokens[:, 0])
        assert_close(first.logprobs[:, 0], samples.logprobs[:, 0], terms=2.0)


QUICK = tuple(range(9))


def test_decoding_ends_with_the_last_response_and_a_longer_budget_changes_nothing(prompts, monkeypatch):
    samples = run(prompts, stops=QUICK)
    calls = []
    forward = policy.forward

    def counting(*args):
        jax.debug.callback(lambda: calls.append(1))
        return forward(*args)

    monkeypatch.setattr(policy, "forward", counting)
    longer = run(prompts, replace(SAMPLING, max_response_length=20), stops=QUICK)
    jax.effects_barrier()
    assert {FINISH_REASONS[int(finish)] for finish in longer.finish} == {"stop"}
    assert_well_formed(longer, QUICK, 20)
    assert len(calls) == longer.lengths.max()  # one prefill, and one step for each token but the first
    assert_same_tokens(longer.replace(tokens=longer.tokens[:, :LENGTH], logprobs=longer.logprobs[:, :LENGTH]), samples)


def test_a_cache_that_grows_gives_the_samples_of_a_whole_one(prompts, samples, monkeypatch):
    monkeypatch.setattr(model, "KEY_BLOCK", 3)
    assert policy.cache_widths(LENGTH) == (3, 6, 8)
    grown = run(prompts, replace(SAMPLING, max_response_length=LENGTH + 1), budget=LENGTH)
    assert grown.lengths.max() == LENGTH
    assert_same_tokens(grown.replace(tokens=grown.tokens[:, :LENGTH], logprobs=grown.logprobs[:, :LENGTH]), samples)


# What it reports


def test_logprobs_equal_those_of_the_decoder_in_float64(prompts, samples):
    for i, (tokens, length) in enumerate(zip(samples.tokens, samples.lengths, strict=True)):
        prompt = prompts[i // GROUP]
        whole = np.concatenate([prompt, tokens[:length]])
        logprobs = reference.log_softmax(reference.logits(CONFIG, random_params(CONFIG), whole[:-1]))
        expected = logprobs[np.arange(len(prompt) - 1, len(whole) - 1), tokens[:length]]
        assert_close(samples.logprobs[i, :length], expected, terms=2.0)
        assert_close(samples.logprobs[i].sum(), expected.sum(), terms=2.0)


def test_logprobs_equal_the_trainers_forward_on_the_padded_batch(prompts, samples):
    lengths = np.repeat(LENGTHS, GROUP)
    whole = [
        np.concatenate([prompts[i // GROUP], tokens[:length]])
        for i, (tokens, length) in enumerate(zip(samples.tokens, samples.lengths, strict=True))
    ]
    inputs = left_padded(whole, WINDOW + LENGTH)

    @jax.jit
    def trainer(params, tokens, positions, segments):
        hidden, _ = policy.forward(CONFIG, params, tokens, positions, segments)
        return policy.logprobs_and_entropy(CONFIG, params, hidden[:, :-1], tokens[:, 1:])[0]

    logprobs = np.asarray(trainer(random_params(CONFIG), *inputs))
    for i, (prompt_length, length) in enumerate(zip(lengths, samples.lengths, strict=True)):
        assert len(whole[i]) == prompt_length + length
        assert_close(logprobs[i, -length:], samples.logprobs[i, :length], terms=2.0)


def test_filters_and_temperature_decide_what_is_drawn_and_not_the_logprobs(prompts):
    sampling = replace(SAMPLING, top_k=4, top_p=0.9, policy_temperature=1.5)
    samples = run(prompts, sampling, temperature=0.7)
    assert_well_formed(samples)
    drawn = jax.random.wrap_key_data(keys(range(len(samples.lengths))))
    for i, (tokens, length) in enumerate(zip(samples.tokens, samples.lengths, strict=True)):
        prompt = prompts[i // GROUP]
        logits = reference.logits(CONFIG, random_params(CONFIG), np.concatenate([prompt, tokens[: length - 1]]))
        for t, token in enumerate(tokens[:length]):
            row = logits[len(prompt) - 1 + t]
            assert samples.logprobs[i, t] == pytest.approx(reference.log_softmax(row / 1.5)[token], abs=2e-5)
            order = np.argsort(-row)[:4]
            mass = np.exp(reference.log_softmax(row[order] / 0.7))
            kept = np.sort(order[: np.searchsorted(np.cumsum(mass), 0.9) + 1])
            ends = np.cumsum(np.exp(reference.log_softmax(row[kept] / 0.7)))
            uniform = float(jax.random.uniform(jax.random.fold_in(drawn[i], t)))
            if np.abs(ends - uniform).min() > 1e-5:  # not on the border of two tokens
                assert token == kept[np.searchsorted(ends, uniform, side="right")]


def test_greedy_samples_are_the_argmax_of_the_logits_step_by_step(prompts):
    samples = run(prompts, stops=(), temperature=0.0)
    texts = np.zeros((len(prompts), WINDOW + LENGTH), np.int32)
    for row, prompt in enumerate(prompts):
        texts[row, : len(prompt)] = prompt
    rows, ends = np.arange(len(prompts)), np.array(LENGTHS)
    logits = jax.jit(functools.partial(policy.logits, CONFIG))
    for _ in range(LENGTH):  # what stands after a token does not reach its logits
        texts[rows, ends] = np.asarray(logits(random_params(CONFIG), jnp.asarray(texts)))[rows, ends - 1].argmax(axis=1)
        ends = ends + 1
    for i, tokens in enumerate(samples.tokens):
        row = i // GROUP
        np.testing.assert_array_equal(tokens, texts[row, LENGTHS[row] : ends[row]])


def test_bfloat16_compute_samples_with_float32_logprobs(prompts):
    config = replace(CONFIG, dtype="bfloat16")
    samples = run(prompts, config=config)
    assert samples.logprobs.dtype == np.float32
    assert_well_formed(samples)


def test_prompts_are_padded_on_the_left():
    tokens, mask = pad_prompts([[5, 6], [7, 8, 9]], 3)
    np.testing.assert_array_equal(tokens, [[0, 5, 6], [7, 8, 9]])
    np.testing.assert_array_equal(mask, [[False, True, True], [True, True, True]])


def test_positions_count_real_tokens():
    mask = jnp.array([[False, False, True, True], [True, True, True, True]])
    positions, segments = prompt_positions(mask)
    np.testing.assert_array_equal(positions, [[0, 0, 0, 1], [0, 1, 2, 3]])
    np.testing.assert_array_equal(segments, [[0, 0, 1, 1], [1, 1, 1, 1]])
