"""The schedule of slots: what is refilled, computed, kept and handed out when."""

import jax
import numpy as np
import pytest

from rlvr_jax.parallel import MeshConfig, make_mesh
from rlvr_jax.rollout.continuous import ring_widths
from rlvr_jax.rollout.sampler import Request, RolloutStats
from rlvr_jax.rollout.sampling import SamplingConfig
from tests.policy.reference import random_params
from tests.rollout.requests import CONFIG, GROUP, KEYS, LENGTH, PROMPTS, SAMPLING, drained, groups, make, polled

SLOTS = 4
NUMBER = GROUP * len(PROMPTS)


@pytest.fixture(scope="module")
def sampler():
    return make(slots=SLOTS, window=40)


@pytest.fixture(scope="module")
def parts(sampler):
    """What each call of poll gives, and the stats behind it."""
    before = sampler.stats
    sampler.submit(groups())
    return [(turns, sampler.stats - before) for turns in iter(sampler.poll, [])]


def queue_steps(lengths, slots, chunk):
    """How many steps a queue of sequences of these lengths takes, one step after the other."""
    waiting, left, steps = list(lengths), [0] * slots, 0
    while waiting or any(left):
        left = [n or (waiting.pop(0) if waiting else 0) for n in left]
        for _ in range(chunk):
            if any(left):
                steps, left = steps + 1, [max(n - 1, 0) for n in left]
    return steps


def test_free_slots_are_refilled_at_the_next_chunk_and_all_steps_are_counted(parts):
    turns = {turn.id: turn for part, _ in parts for turn in part}
    lengths = [len(turns[i].tokens) for i in range(NUMBER)]
    stats = parts[-1][1]
    assert stats.steps == queue_steps(lengths, SLOTS, SAMPLING.chunk)
    assert stats.slot_steps == SLOTS * stats.steps
    assert stats.active_slot_steps == sum(lengths)
    assert stats.occupancy == sum(lengths) / (SLOTS * stats.steps) > 0.7


def test_turns_are_handed_out_while_others_decode(parts):
    seen = [turn.id for turns, _ in parts for turn in turns]
    assert sorted(seen) == list(range(NUMBER))
    assert len(parts) > 3
    steps = [stats.steps for _, stats in parts]
    assert steps == sorted(steps)
    assert steps[0] <= SAMPLING.chunk * -(-LENGTH // SAMPLING.chunk) < steps[-1]


def test_a_prompt_is_computed_once_whatever_the_group(parts):
    assert parts[-1][1].prefill_tokens == sum(len(prompt) - 1 for prompt in PROMPTS)


def test_the_requests_behind_a_turn_and_those_that_come_later_do_not_change_it(sampler, parts):
    turns = {turn.id: turn for part, _ in parts for turn in part}
    sampler.submit(groups()[: 2 * GROUP])
    found = sampler.poll()
    found += [turn for part in polled(sampler, groups()[2 * GROUP :]) for turn in part]
    assert sorted(turn.id for turn in found) == list(range(NUMBER))
    for turn in found:
        np.testing.assert_array_equal(turn.tokens, turns[turn.id].tokens)


def second(ids, observation, turns):
    new = np.arange(1, 1 + observation, dtype=np.int32)
    return [Request(i, KEYS[i], new=new, budget=3) for i in ids], sum(len(turns[i].tokens) for i in ids)


@pytest.mark.parametrize("observation", [1, 5])
def test_going_on_costs_the_observation_and_the_whole_context_only_if_it_is_not_held(sampler, observation):
    ids = range(SLOTS)  # as many as are held
    turns = drained(sampler, groups([1] * SLOTS, PROMPTS[:SLOTS], keep=True, budget=6))
    before = sampler.stats
    requests, _ = second(ids, observation, turns)
    held = drained(sampler, requests)
    # A row holds all tokens but a turn's last, which is computed with all of the observation but its last.
    assert (sampler.stats - before).prefill_tokens == SLOTS * observation

    drained(sampler, groups([1] * SLOTS, PROMPTS[:SLOTS], keep=True, budget=6))
    sampler.set_params(random_params(CONFIG), 6)  # what is held is another policy's
    before = sampler.stats
    requests, drawn = second(ids, observation, turns)
    anew = drained(sampler, requests)
    whole = sum(len(prompt) - 1 for prompt in PROMPTS[:SLOTS]) + drawn + SLOTS * observation
    assert (sampler.stats - before).prefill_tokens == whole
    for i in ids:
        np.testing.assert_array_equal(held[i].tokens, anew[i].tokens)
        assert (held[i].version, anew[i].version) == (5, 6)
    sampler.set_params(random_params(CONFIG), 5)


def test_stats_add_up():
    a, b = RolloutStats(3, 12, 7, 5), RolloutStats(1, 4, 4, 2)
    assert a + b == RolloutStats(4, 16, 11, 7)
    assert (a + b) - b == a
    assert RolloutStats().occupancy == 0


def test_the_ring_is_narrow_while_sequences_are_short():
    def of(longest, chunk, platform):
        mesh = make_mesh(MeshConfig(), [jax.sharding.AbstractDevice("any", None, platform)])
        return ring_widths(SamplingConfig(longest - 1, 1, chunk=chunk), mesh)

    assert of(1000, 24, "cpu") == (256, 512, 1024)
    assert of(4096, 16, "gpu") == (1032, 2056, 4112)
    assert of(4096, 16, "tpu") == (1152, 2176, 4224)
    for longest in range(1, 60):
        assert of(longest, 4, "cpu")[-1] >= longest + 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"slots": 6}, "slots = 6 .* among the 4 "),
        ({"chunk": 0}, "chunk = 0"),
        ({"prefill_chunk": 0}, "prefill_chunk = 0"),
        ({"slots": 0, "batch_size": 6}, "batch_size = 6 .* among the 4 parts"),
    ],
)
def test_numbers_that_do_not_go_together_are_an_error_before_anything_runs(change, message):
    with pytest.raises(ValueError, match=message):
        make(MeshConfig(data=2, fsdp=2, tensor=2), slice(8), **{"slots": 4} | change)
