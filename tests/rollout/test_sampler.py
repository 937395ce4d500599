"""The sampler as a service: both engines give the same turns, whatever is asked of them together."""

import itertools
from dataclasses import replace

import jax
import numpy as np
import pytest

from rlvr_jax import parallel, policy
from rlvr_jax.parallel import MeshConfig
from rlvr_jax.rollout.sampler import Request, Sampler
from tests.close import assert_close
from tests.policy import reference
from tests.policy.reference import random_params
from tests.rollout.requests import CONFIG, KEYS, LENGTH, PROMPT, PROMPTS, SAMPLING, drained, groups, make, polled

WINDOW = 40
SIZES = (3, 1, 5, 2, 3, 3)  # of the groups; one is larger than those that share their keys and values
NUMBER = sum(SIZES)
ENGINES = {"batches": {}, "small batches": {"batch_size": 1}, "four slots": {"slots": 4}}
# Of episodes that go on, small ones: all of their later turns have contexts that batches pad to one length.
BUDGETS = np.random.default_rng(0).integers(1, np.where(np.arange(NUMBER) % 3, 10, 6)).tolist()


def first_turns():
    return groups(
        SIZES,
        budget=lambda i: BUDGETS[i],
        temperature=lambda i: (0.0, 1.0, 0.7, 1.0)[i % 4],
        stop_tokens=lambda i: ((1,), (), (1, 4))[i % 3],
        keep=lambda i: i % 3 == 0,
    )


def second_turns():
    """Of every third episode, behind 1 to 6 tokens; all but one go on after that."""
    observed = lambda i: np.arange(1, 2 + i // 3, dtype=np.int32)  # noqa: E731
    return [
        Request(i, KEYS[i], new=observed(i), budget=BUDGETS[i], stop_tokens=(2,), keep=i != 9)
        for i in range(0, NUMBER, 3)
    ]


def third_turns():
    return [Request(i, KEYS[i], new=np.int32([7, 8]), budget=2) for i in range(0, NUMBER, 3) if i != 9]


TURNS = (first_turns(), second_turns(), third_turns())


@pytest.fixture(scope="module")
def samplers():
    return {name: make(window=WINDOW, **settings) for name, settings in ENGINES.items()}


@pytest.fixture(scope="module")
def found(samplers):
    """The turns of each engine, turn by turn."""
    return {name: [drained(sampler, turns) for turns in TURNS] for name, sampler in samplers.items()}


def assert_same(actual, expected):
    """Tokens and reasons are equal; log-probs up to what shapes change in the rounding of sums."""
    assert sorted(actual) == sorted(expected)
    for i, turn in actual.items():
        np.testing.assert_array_equal(turn.tokens, expected[i].tokens)
        assert turn.finish == expected[i].finish
        assert_close(turn.logprobs, expected[i].logprobs, terms=2.0)


@pytest.mark.parametrize("engine", ["four slots", "small batches"])
def test_both_engines_and_batches_of_any_size_give_the_same_turns(found, engine):
    for actual, expected in zip(found[engine], found["batches"], strict=True):
        assert_same(actual, expected)


def episodes(turns):
    """(prompt and turn, where the turn begins) of each turn: what the policy saw when it sampled it."""
    contexts = {}
    for requests, answers in zip(TURNS, turns, strict=False):
        for request in requests:
            before = np.concatenate([contexts.get(request.id, request.prompt), request.new]).astype(np.int32)
            contexts[request.id] = np.concatenate([before, answers[request.id].tokens])
            yield request, answers[request.id], before


def test_turns_end_as_their_request_says(found):
    finishes = set()
    for request, turn, _ in episodes(found["batches"]):
        ends = np.isin(turn.tokens, request.stop_tokens)
        assert not ends[:-1].any()
        assert turn.finish == ("stop" if ends[-1] else "length")
        assert ends[-1] or len(turn.tokens) == request.budget
        assert turn.version == 5
        finishes.add((turn.finish, request.stop_tokens))
    assert len(finishes) == 7


@jax.jit
def _logits(tokens):
    return policy.logits(CONFIG, random_params(CONFIG), tokens)


def trained_logprobs(before, turn):
    """Those of a turn's tokens by the trainer's forward pass over the whole episode."""
    whole = np.zeros((1, WINDOW), np.int32)  # what stands behind a token does not reach it
    whole[0, : len(before) + len(turn.tokens)] = np.concatenate([before, turn.tokens])
    rows = np.arange(len(before) - 1, len(before) - 1 + len(turn.tokens))
    return reference.log_softmax(np.asarray(_logits(whole)[0], np.float64))[rows, turn.tokens]


def test_logprobs_are_those_of_the_trainers_forward_pass_over_the_whole_episode(found):
    for _, turn, before in episodes(found["four slots"]):
        assert_close(turn.logprobs, trained_logprobs(before, turn), terms=2.0)


def test_every_token_is_drawn_from_its_own_number_of_the_episodes_stream(found):
    """One uniform number of fold_in(key, t) draws token t of the episode, over all of its turns."""
    params, drawn, checked = random_params(CONFIG), {}, 0
    for request, turn, before in episodes(found["batches"]):
        key = jax.random.wrap_key_data(request.key)
        first = drawn.get(request.id, 0)
        drawn[request.id] = first + len(turn.tokens)
        if not request.temperature:
            continue
        logits = reference.logits(CONFIG, params, np.concatenate([before, turn.tokens[:-1]]))[len(before) - 1 :]
        ends = np.cumsum(np.exp(reference.log_softmax(logits / request.temperature)), axis=-1)
        for t, token in enumerate(turn.tokens):
            uniform = float(jax.random.uniform(jax.random.fold_in(key, first + t)))
            if np.abs(ends[t] - uniform).min() > 1e-5:
                assert token == np.searchsorted(ends[t], uniform, side="right")
                checked += first > 0
    assert checked > 5


def test_the_same_calls_give_the_same_bits_in_the_same_order(samplers):
    for sampler in samplers.values():
        parts, again = ([polled(sampler, requests) for requests in TURNS] for _ in range(2))
        jax.tree.map(np.testing.assert_array_equal, parts, again)  # in as many calls of poll


def test_with_a_cache_in_8_bits_both_engines_sample_nearly_the_trained_policy():
    """A number that the engines' rounding takes to another one of the 8 bits changes log-probs by up to 1e-3."""
    config, mesh = replace(CONFIG, cache_dtype="int8"), parallel.make_mesh(MeshConfig(data=1), jax.devices()[:1])
    of_engines, gaps = [], []
    for settings, asked in ((ENGINES["batches"], TURNS[:1]), (ENGINES["four slots"], TURNS)):
        sampler = Sampler(config, replace(SAMPLING, window=WINDOW, **settings), mesh)
        sampler.set_params(random_params(CONFIG), 5)
        turns = [drained(sampler, requests) for requests in asked]
        found = [*episodes(turns)]
        of_engines.append({(len(before), request.id): turn for request, turn, before in found})
        gaps += [np.abs(turn.logprobs - trained_logprobs(before, turn)) for _, turn, before in found]
    gaps = np.concatenate(gaps)
    assert gaps.mean() < 0.01
    assert 1e-3 < gaps.max() < 0.1
    batches, slots = of_engines
    same = [key for key in batches if key in slots and batches[key].tokens.tolist() == slots[key].tokens.tolist()]
    assert len(same) > 0.8 * len(batches)
    for key in same:
        np.testing.assert_allclose(batches[key].logprobs, slots[key].logprobs, rtol=0, atol=2e-3)


def test_eight_devices_give_the_same_turns_in_the_layout_of_sampling(found):
    trainer = parallel.make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    mesh = parallel.rollout_mesh(trainer.devices.flat, 4)  # two for each key/value head
    sampler = Sampler(CONFIG, replace(SAMPLING, window=WINDOW, slots=4), mesh)
    sampler.set_params(jax.device_put(random_params(CONFIG), shardings_on(trainer)), 5)
    assert sampler.received_bytes > 0
    with parallel.use_mesh(trainer):
        for requests, expected in zip(TURNS[:2], found["batches"], strict=False):
            assert_same(drained(sampler, requests), expected)


# Parameters


def test_parameters_are_copied_so_that_the_training_step_may_reuse_their_memory(samplers):
    sampler = samplers["batches"]
    expected = drained(sampler, groups())
    params = jax.device_put(jax.device_get(random_params(CONFIG)))
    sampler.set_params(params, 6)
    jax.tree.map(lambda x: x.delete(), params)
    found = drained(sampler, groups())
    assert_same(found, expected)
    assert {turn.version for turn in found.values()} == {6}
    sampler.set_params(random_params(CONFIG), 5)


def shardings_on(mesh):
    shapes = jax.eval_shape(lambda: random_params(CONFIG))
    return parallel.param_shardings(mesh, policy.logical_axes(CONFIG), shapes)


def test_parameters_may_come_from_other_devices(found):
    """The sampler's mesh is one half of the devices, the trainer's the other."""
    trainer = parallel.make_mesh(MeshConfig(data=1, fsdp=2, tensor=2), jax.devices()[:4])
    sampler = make(MeshConfig(data=2, tensor=2), slice(4, 8), window=WINDOW)
    with parallel.use_mesh(trainer):
        sampler.set_params(jax.device_put(random_params(CONFIG), shardings_on(trainer)), 5)
        assert_same(drained(sampler, TURNS[0]), found["batches"][0])


def test_parameters_do_not_change_while_turns_are_in_flight_nor_are_needed_before_any(samplers):
    for sampler, count in itertools.product(samplers.values(), (18, 12)):
        sampler.submit(groups()[:count])
        with pytest.raises(RuntimeError, match=f"{count} turns are in flight"):
            sampler.set_params(random_params(CONFIG), 6)
        drained(sampler)
        assert not sampler.flying
    with pytest.raises(RuntimeError, match="set_params"):
        Sampler(CONFIG, SAMPLING, parallel.make_mesh(MeshConfig(data=1), jax.devices()[:1])).submit(groups())


def test_other_parameters_give_other_turns_and_the_same_ones_again_the_first(samplers):
    sampler = samplers["batches"]
    first = drained(sampler, groups())
    sampler.set_params(random_params(CONFIG, seed=1), 6)
    other = drained(sampler, groups())
    sampler.set_params(random_params(CONFIG), 5)
    assert_same(drained(sampler, groups()), first)
    assert any(first[i].tokens.tolist() != other[i].tokens.tolist() for i in first)


# Bad requests


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"id": 1}, "one id"),
        ({"id": 50}, "episode 50: .* in flight"),
        ({"prompt": np.zeros(0, np.int32)}, "episode 9 needs .*prompt"),
        ({"new": np.int32([3])}, "episode 9 needs .*prompt"),
        ({"prompt": np.zeros(0, np.int32), "new": np.int32([3])}, "episode 9 .* not kept"),
        ({"id": 60}, "episode 60 has a prompt"),
        ({"prompt": np.ones(PROMPT + 1, np.int32)}, f"episode 9: .* {PROMPT + 1} tokens; 1 to {PROMPT} "),
        ({"prompt": np.ones(WINDOW + 1, np.int32), "drawn": 7}, f"episode 9: .* {WINDOW + 1} tokens; 1 to {WINDOW} "),
        ({"prompt": np.ones(WINDOW, np.int32), "drawn": 7}, f"episode 9: {WINDOW} tokens and .* 5 exceed {WINDOW}"),
        ({"budget": 0}, f"episode 9: .* 0, not from 1 to {LENGTH}"),
        ({"budget": LENGTH + 1}, f"episode 9: .* {LENGTH + 1}, not from 1 to {LENGTH}"),
        ({"temperature": -0.5}, "episode 9: .* -0.5"),
        ({"temperature": float("nan")}, "episode 9: .* nan"),
        ({"stop_tokens": tuple(range(9))}, "episode 9 has 9 stop tokens; 8 fit"),
    ],
)
def test_a_bad_request_is_named_and_nothing_of_its_call_is_sampled(samplers, change, message):
    for name in ("batches", "four slots"):
        sampler = samplers[name]
        drained(sampler, [Request(60, KEYS[60], PROMPTS[0], keep=True)])
        good = [Request(i, KEYS[i], PROMPTS[0], budget=2) for i in (1, 2)]
        sampler.submit([good[0]._replace(id=50)])
        try:
            with pytest.raises(ValueError, match=message):
                sampler.submit([*good, Request(9, KEYS[9], PROMPTS[1], budget=5)._replace(**change)])
            with pytest.raises(ValueError, match="episode 50 is in flight"):
                sampler.release([50])
        finally:  # the other tests share the samplers
            assert list(drained(sampler)) == [50]
            sampler.release([50, 60])


def test_nothing_in_flight_gives_nothing(samplers):
    for sampler in samplers.values():
        sampler.submit([])
        assert sampler.poll() == []


def test_a_context_of_an_earlier_process_goes_on_as_if_it_had_been_kept(samplers, found):
    """`drawn` says how many of its tokens the episode's stream has given."""
    first, second = found["batches"][:2]
    again = []
    for request in TURNS[1]:
        prompt, drawn = TURNS[0][request.id].prompt, first[request.id].tokens
        whole = np.concatenate([prompt, drawn, request.new]).astype(np.int32)
        again.append(request._replace(prompt=whole, new=np.zeros(0, np.int32), drawn=len(drawn), keep=False))
    for sampler in samplers.values():
        assert_same(drained(sampler, again), second)
