"""The group sampler: what a sample depends on, when it ends, and its log-probabilities."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax import policy
from rlvr_jax.rollout.sampler import FINISH_REASONS, SamplingConfig, prompt_positions, sample
from tests.close import assert_close
from tests.policy import reference
from tests.policy.reference import TINY, left_padded, random_params, random_sequences

CONFIG = replace(TINY, vocab_size=13, qk_norm="head")
SAMPLING = SamplingConfig(group_size=3, max_response_length=8, stop_tokens=(1, 4), pad_token=12)
LENGTHS = [2, 6, 1, 4]
WINDOW = 6
KEY = jax.random.key(7)


@functools.cache
def compiled(sampling, config=CONFIG):
    return jax.jit(functools.partial(sample, config, sampling))


def run(prompts, sampling=SAMPLING, *, ids=None, window=WINDOW, key=KEY, temperature=1.0, config=CONFIG):
    tokens, _, segments = left_padded(prompts, window, pad=sampling.pad_token)
    ids = np.arange(len(prompts) * sampling.group_size) if ids is None else ids
    samples = compiled(sampling, config)(
        random_params(config), tokens, segments == 1, jnp.asarray(ids, jnp.int32), key, jnp.float32(temperature)
    )
    return jax.device_get(samples)


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
    for name in ("sampling_logprobs", "policy_logprobs"):
        assert_close(getattr(actual, name), getattr(expected, name), name=name, terms=2.0)


def take(samples, rows):
    return jax.tree.map(lambda x: x[rows], samples)


# What a sample depends on


def test_samples_of_a_group_differ_and_the_same_call_gives_the_same_bits(prompts, samples):
    jax.tree.map(np.testing.assert_array_equal, samples, run(prompts))
    assert len({row.tobytes() for row in samples.tokens}) > len(samples.tokens) / 2
    other = run(prompts, key=jax.random.key(8))
    assert not np.array_equal(other.tokens, samples.tokens)


def test_other_prompts_in_the_batch_change_no_bit_of_a_sample(prompts, samples):
    others = random_sequences([5, 6, 3, 1], CONFIG.vocab_size, seed=9)
    mixed = run([prompts[0], others[1], prompts[2], others[3]])
    rows = [0, 1, 2, 6, 7, 8]
    jax.tree.map(np.testing.assert_array_equal, take(mixed, rows), take(samples, rows))
    assert not np.array_equal(mixed.tokens, samples.tokens)


def test_the_size_of_the_batch_does_not_change_a_samples_tokens(prompts, samples):
    group = SAMPLING.group_size
    for i in (0, 2):
        alone = run([prompts[i]], ids=np.arange(i * group, (i + 1) * group))
        assert_same_tokens(alone, take(samples, slice(i * group, (i + 1) * group)))


def test_the_padding_of_the_prompts_does_not_change_a_samples_tokens(prompts, samples):
    assert_same_tokens(run(prompts, window=11), samples)


def test_the_sample_id_names_the_random_stream_wherever_the_sample_stands(prompts, samples):
    group = SAMPLING.group_size
    ids = np.arange(len(prompts) * group)
    # The group's members backwards, and the prompts backwards with them.
    assert_same_tokens(run(prompts[::-1], ids=ids[::-1]), take(samples, ids[::-1]))
    # The same samples, each with a prefill of its own instead of a group's.
    singly = run([prompts[i // group] for i in ids], replace(SAMPLING, group_size=1))
    assert_same_tokens(singly, samples)


def test_two_samples_of_one_id_are_the_same_and_ids_may_be_large(prompts):
    top = 2**31 - 1
    samples = run([prompts[0]] * 4, ids=np.array([5, top, 5] * 4))
    jax.tree.map(lambda x: np.testing.assert_array_equal(x[0], x[2]), samples)
    jax.tree.map(lambda x: np.testing.assert_array_equal(x[:3], x[3:6]), samples)
    assert not np.array_equal(samples.tokens[0], samples.tokens[1])


# When a sample ends


def assert_well_formed(samples, sampling):
    for tokens, length, finish, *logprobs in zip(
        samples.tokens,
        samples.lengths,
        samples.finish,
        samples.sampling_logprobs,
        samples.policy_logprobs,
        strict=True,
    ):
        stops = np.isin(tokens[:length], sampling.stop_tokens)
        assert not stops[:-1].any()
        assert 1 <= length <= sampling.max_response_length
        assert FINISH_REASONS[int(finish)] == ("stop" if stops[-1] else "length")
        assert stops[-1] or length == sampling.max_response_length
        assert (tokens[length:] == sampling.pad_token).all()
        for x in logprobs:
            assert (x[:length] <= 0).all()
            assert (x[length:] == 0).all()


def test_a_response_ends_at_its_first_stop_token_or_with_its_budget(samples):
    assert_well_formed(samples, SAMPLING)
    last = samples.tokens[np.arange(len(samples.lengths)), samples.lengths - 1]
    assert set(SAMPLING.stop_tokens) <= set(last)  # each of the stop tokens has ended some response,
    assert (samples.finish == 2).any()  # and the budget, too
    assert len(set(samples.lengths)) > 2


def test_without_stop_tokens_every_response_uses_its_budget(prompts, samples):
    endless = run(prompts, replace(SAMPLING, stop_tokens=()))
    assert (endless.lengths == SAMPLING.max_response_length).all()
    assert {FINISH_REASONS[int(finish)] for finish in endless.finish} == {"length"}
    for i, length in enumerate(samples.lengths):  # and up to the first stop token it is the same response
        np.testing.assert_array_equal(endless.tokens[i, :length], samples.tokens[i, :length])


def test_a_budget_of_one_token_gives_the_first_token(prompts, samples):
    short = replace(SAMPLING, max_response_length=1)
    first = run(prompts, short)
    assert_well_formed(first, short)
    np.testing.assert_array_equal(first.tokens, samples.tokens[:, :1])
    assert_close(first.policy_logprobs, samples.policy_logprobs[:, :1], terms=2.0)


QUICK = replace(SAMPLING, stop_tokens=tuple(range(9)), max_response_length=10)


def test_decoding_ends_with_the_last_response_and_a_longer_budget_changes_nothing(prompts, monkeypatch):
    samples = run(prompts, QUICK)
    calls = []
    forward = policy.forward

    def counting(*args):
        jax.debug.callback(lambda: calls.append(1))
        return forward(*args)

    monkeypatch.setattr(policy, "forward", counting)
    longer = run(prompts, replace(QUICK, max_response_length=20))
    jax.effects_barrier()
    assert {FINISH_REASONS[int(finish)] for finish in longer.finish} == {"stop"}
    assert_well_formed(longer, replace(QUICK, max_response_length=20))
    assert len(calls) == longer.lengths.max()  # one prefill, and one step for each token but the first
    cut = {name: getattr(longer, name)[:, :10] for name in ("tokens", "sampling_logprobs", "policy_logprobs")}
    assert_same_tokens(longer.replace(**cut), samples)


# What it reports


def test_logprobs_equal_those_of_the_decoder_in_float64(prompts, samples):
    for i, (tokens, length) in enumerate(zip(samples.tokens, samples.lengths, strict=True)):
        prompt = prompts[i // SAMPLING.group_size]
        whole = np.concatenate([prompt, tokens[:length]])
        logprobs = reference.log_softmax(reference.logits(CONFIG, random_params(CONFIG), whole[:-1]))
        expected = logprobs[np.arange(len(prompt) - 1, len(whole) - 1), tokens[:length]]
        assert_close(samples.policy_logprobs[i, :length], expected, terms=2.0)
        assert_close(samples.policy_logprobs[i].sum(), expected.sum(), terms=2.0)
    assert_close(samples.sampling_logprobs, samples.policy_logprobs, terms=2.0)


@pytest.mark.parametrize("head_chunk", [0, 16])
def test_logprobs_equal_the_trainers_forward_on_the_padded_batch(prompts, samples, head_chunk):
    config = replace(CONFIG, head_chunk=head_chunk)
    lengths = np.repeat(LENGTHS, SAMPLING.group_size)
    whole = [
        np.concatenate([prompts[i // SAMPLING.group_size], tokens[:length]])
        for i, (tokens, length) in enumerate(zip(samples.tokens, samples.lengths, strict=True))
    ]
    inputs = left_padded(whole, WINDOW + SAMPLING.max_response_length)

    @jax.jit
    def trainer(params, tokens, positions, segments):
        hidden, _ = policy.forward(config, params, tokens, positions, segments)
        return policy.logprobs_and_entropy(config, params, hidden[:, :-1], tokens[:, 1:])[0]

    logprobs = np.asarray(trainer(random_params(CONFIG), *inputs))
    for i, (prompt_length, length) in enumerate(zip(lengths, samples.lengths, strict=True)):
        assert len(whole[i]) == prompt_length + length
        assert_close(logprobs[i, -length:], samples.policy_logprobs[i, :length], terms=2.0)


def test_temperature_and_filters_show_in_the_sampling_logprobs_only(prompts):
    sampling = replace(SAMPLING, top_k=4, top_p=0.9, policy_temperature=1.5)
    samples = run(prompts, sampling, temperature=0.7)
    assert_well_formed(samples, sampling)
    for i, (tokens, length) in enumerate(zip(samples.tokens, samples.lengths, strict=True)):
        prompt = prompts[i // sampling.group_size]
        logits = reference.logits(CONFIG, random_params(CONFIG), np.concatenate([prompt, tokens[: length - 1]]))
        for t, token in enumerate(tokens[:length]):
            row = logits[len(prompt) - 1 + t]
            policy_logprob = reference.log_softmax(row / 1.5)[token]
            order = np.argsort(-row)[:4]
            mass = np.exp(reference.log_softmax(row[order] / 0.7))
            kept = order[: np.searchsorted(np.cumsum(mass), 0.9) + 1]
            assert token in kept
            sampling_logprob = reference.log_softmax(row[kept] / 0.7)[list(kept).index(token)]
            assert samples.policy_logprobs[i, t] == pytest.approx(policy_logprob, abs=2e-5)
            assert samples.sampling_logprobs[i, t] == pytest.approx(sampling_logprob, abs=4e-5)


def test_greedy_samples_are_the_argmax_of_the_logits_step_by_step(prompts):
    samples = run(prompts, replace(SAMPLING, stop_tokens=()), temperature=0.0)
    texts = np.zeros((len(prompts), WINDOW + SAMPLING.max_response_length), np.int32)
    for row, prompt in enumerate(prompts):
        texts[row, : len(prompt)] = prompt
    rows, ends = np.arange(len(prompts)), np.array(LENGTHS)
    logits = jax.jit(functools.partial(policy.logits, CONFIG))
    for _ in range(SAMPLING.max_response_length):  # what stands after a token does not reach its logits
        texts[rows, ends] = np.asarray(logits(random_params(CONFIG), jnp.asarray(texts)))[rows, ends - 1].argmax(axis=1)
        ends = ends + 1
    for i, tokens in enumerate(samples.tokens):
        row = i // SAMPLING.group_size
        np.testing.assert_array_equal(tokens, texts[row, LENGTHS[row] : ends[row]])
    assert (samples.sampling_logprobs == 0).all()


def test_bfloat16_compute_samples_with_float32_logprobs(prompts):
    config = replace(CONFIG, dtype="bfloat16")
    samples = run(prompts, config=config)
    assert samples.policy_logprobs.dtype == samples.sampling_logprobs.dtype == np.float32
    assert_well_formed(samples, SAMPLING)


def test_positions_count_real_tokens():
    mask = jnp.array([[False, False, True, True], [True, True, True, True]])
    positions, segments = prompt_positions(mask)
    np.testing.assert_array_equal(positions, [[0, 0, 0, 1], [0, 1, 2, 3]])
    np.testing.assert_array_equal(segments, [[0, 0, 1, 1], [1, 1, 1, 1]])
