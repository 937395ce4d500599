"""Continuous batching: whatever the slots, each sample is what it would be alone, and free slots are refilled."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax import parallel, policy
from rlvr_jax.parallel import MeshConfig
from rlvr_jax.rollout.continuous import make_generate, ring_widths
from rlvr_jax.rollout.sampler import FINISH_REASONS, SamplingConfig, sample
from tests.close import assert_close
from tests.policy.reference import TINY, left_padded, random_params, random_sequences

CONFIG = replace(TINY, vocab_size=13, qk_norm="head")
WINDOW, GROUP, LENGTH = 6, 3, 20
SAMPLING = SamplingConfig(GROUP, LENGTH, stop_tokens=(1,), pad_token=12, chunk=4, prefill_chunk=4)
PROMPTS = random_sequences([2, 6, 1, 4, 6, 3], CONFIG.vocab_size)
NUMBER = GROUP * len(PROMPTS)
KEY = jax.random.key(7)


ONE = MeshConfig(data=1)


@functools.cache
def make(sampling, mesh=ONE, devices=1):
    """`generate` on the test's parameters, its items as a list."""
    mesh = parallel.make_mesh(mesh, jax.devices()[:devices])
    params = random_params(CONFIG)
    shardings = parallel.param_shardings(mesh, policy.logical_axes(CONFIG), jax.eval_shape(lambda: params))
    generate = make_generate(CONFIG, sampling, WINDOW, shardings, parallel.batch_sharding(mesh))
    params = jax.device_put(params, shardings)

    def run(prompts=PROMPTS, **kwargs):
        with parallel.use_mesh(mesh):
            return list(generate(params, prompts, KEY, **kwargs))

    return run


def in_order(items):
    return sorted((response for responses, _ in items for response in responses), key=lambda r: r.sample)


@pytest.fixture(scope="module")
def at_once():
    """The responses of the sampler that decodes all of them side by side."""
    tokens, _, segments = left_padded(PROMPTS, WINDOW)
    ids = jnp.arange(NUMBER, dtype=jnp.int32)
    samples = jax.jit(functools.partial(sample, CONFIG, SAMPLING))(
        random_params(CONFIG), tokens, segments == 1, ids, KEY, jnp.float32(1)
    )
    return jax.device_get(samples)


@pytest.fixture(scope="module")
def items():
    return make(replace(SAMPLING, slots=4))()


def assert_same(responses, samples):
    """Tokens and reasons are equal; log-probs up to what shapes change in the rounding of sums."""
    assert [r.sample for r in responses] == list(range(NUMBER))
    for i, r in enumerate(responses):
        length = samples.lengths[i]
        np.testing.assert_array_equal(r.tokens, samples.tokens[i, :length])
        assert r.finish_reason == FINISH_REASONS[int(samples.finish[i])]
        for name in ("sampling_logprobs", "policy_logprobs"):
            assert_close(getattr(r, name), getattr(samples, name)[i, :length], terms=2.0)


def test_a_sample_is_the_same_with_four_slots_and_without(items, at_once):
    assert len(set(at_once.lengths)) > 5
    assert set(at_once.finish) == set(FINISH_REASONS)
    assert_same(in_order(items), at_once)


def test_a_sample_is_the_same_with_32_slots_and_other_chunks_and_pieces(at_once):
    assert_same(in_order(make(replace(SAMPLING, slots=32, chunk=7, prefill_chunk=100))()), at_once)


def test_a_sample_is_the_same_on_a_mesh(at_once):
    run = make(replace(SAMPLING, slots=4), MeshConfig(data=2, fsdp=2, tensor=2), 8)
    assert_same(in_order(run()), at_once)


def test_the_prompts_behind_a_sample_do_not_change_it(at_once):
    fewer = in_order(make(replace(SAMPLING, slots=4))(PROMPTS[:2]))
    assert len(fewer) == 2 * GROUP
    for i, r in enumerate(fewer):
        np.testing.assert_array_equal(r.tokens, at_once.tokens[i, : at_once.lengths[i]])


def test_greedy_samples_of_a_group_are_equal():
    responses = in_order(make(replace(SAMPLING, slots=4))(temperature=0.0))
    for first in range(0, NUMBER, GROUP):
        assert len({r.tokens.tobytes() for r in responses[first : first + GROUP]}) == 1
    assert all((r.sampling_logprobs == 0).all() for r in responses)


# The queue


def queue_steps(lengths, slots, chunk, refill):
    """How many steps a queue of sequences of these lengths takes, one step after the other."""
    waiting, left, steps = list(lengths), [0] * slots, 0
    while waiting or any(left):
        if refill or not any(left):
            left = [n or (waiting.pop(0) if waiting else 0) for n in left]
        for _ in range(chunk):
            if any(left):
                steps, left = steps + 1, [max(n - 1, 0) for n in left]
    return steps


@pytest.fixture(scope="module")
def items_without_refilling():
    return make(replace(SAMPLING, slots=4))(refill=False)


def test_free_slots_are_refilled_at_the_next_chunk_and_all_steps_are_counted(items, items_without_refilling, at_once):
    for refill, part in ((True, items), (False, items_without_refilling)):
        stats = part[-1][1]
        assert stats.steps == queue_steps(at_once.lengths, 4, SAMPLING.chunk, refill)
        assert stats.slot_steps == 4 * stats.steps
        assert stats.active_slot_steps == at_once.lengths.sum()
        assert stats.occupancy == at_once.lengths.sum() / (4 * stats.steps)
    assert items[-1][1].occupancy > 1.1 * items_without_refilling[-1][1].occupancy


def test_without_refilling_a_sample_is_the_same(items_without_refilling, at_once):
    assert_same(in_order(items_without_refilling), at_once)


def test_a_budget_ends_its_own_sample_only(at_once):
    budgets = np.random.default_rng(3).integers(1, LENGTH + 1, NUMBER)
    responses = in_order(make(replace(SAMPLING, slots=4))(budgets=budgets))
    for i, r in enumerate(responses):
        length = min(budgets[i], at_once.lengths[i])
        np.testing.assert_array_equal(r.tokens, at_once.tokens[i, :length])
        assert r.finish_reason == ("stop" if r.tokens[-1] == 1 else "length")
    assert [len(r.tokens) for r in responses] != at_once.lengths.tolist()


def test_responses_are_handed_out_while_others_decode(items):
    seen = [r.sample for responses, _ in items for r in responses]
    assert sorted(seen) == list(range(NUMBER))
    assert len(items) > 3
    steps = [stats.steps for _, stats in items]
    assert steps == sorted(steps)
    assert steps[0] <= 2 * SAMPLING.chunk < steps[-1]


def test_a_prompt_is_computed_once_whatever_the_group(items):
    assert items[-1][1].prefill_tokens == sum(len(prompt) - 1 for prompt in PROMPTS)


def test_the_ring_is_narrow_while_sequences_are_short():
    widths = ring_widths(1000, 24)
    assert widths == (256, 512, 1024)
    for longest in range(1, 60):
        assert ring_widths(longest, 4)[-1] >= longest + 4


# Errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slots": 0}, "slots = 0"),
        ({"slots": 6}, "slots = 6 .* among the 4 parts"),
        ({"chunk": 0}, "chunk = 0"),
        ({"prefill_chunk": 0}, "prefill_chunk = 0"),
    ],
)
def test_numbers_that_do_not_go_together_are_an_error_before_anything_runs(change, message):
    with pytest.raises(ValueError, match=message):
        make(replace(SAMPLING, **{"slots": 4} | change), MeshConfig(data=2, fsdp=2, tensor=2), 8)


@pytest.mark.parametrize("budgets", [[5] * (NUMBER - 1), [0] + [5] * (NUMBER - 1), [LENGTH + 1] * NUMBER])
def test_budgets_that_do_not_fit_are_an_error_that_says_what_would(budgets):
    with pytest.raises(ValueError, match=f"budgets must be {NUMBER} numbers from 1 to {LENGTH}"):
        make(replace(SAMPLING, slots=4))(budgets=budgets)
