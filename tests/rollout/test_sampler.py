"""The sampler as a service: both engines give the same turns, whatever is asked of them together."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax import policy
from rlvr_jax.parallel import MeshConfig
from rlvr_jax.rollout.sampler import Request
from tests.close import assert_close
from tests.policy import reference
from tests.policy.reference import random_params
from tests.rollout.requests import CONFIG, KEYS, LENGTH, drained, groups, make, polled

WINDOW = 64
SIZES = (3, 1, 5, 2, 3, 3)  # of the groups; one is larger than those that share their keys and values
NUMBER = sum(SIZES)
ENGINES = {"batches": {}, "four slots": {"slots": 4}, "one slot": {"slots": 1, "chunk": 7}}
BUDGETS = np.random.default_rng(0).integers(1, LENGTH + 1, NUMBER).tolist()


def first_turns():
    return groups(
        SIZES,
        budget=lambda i: BUDGETS[i],
        temperature=lambda i: (0.0, 1.0, 0.7)[i % 3],
        stop_tokens=lambda i: ((1,), (), (1, 4))[i % 3],
        keep=lambda i: i % 2 == 0,
    )


def second_turns():
    """Of every second episode, behind 1 to 7 tokens; some go on after that."""
    observed = lambda i: np.arange(1, 2 + i % 7, dtype=np.int32)  # noqa: E731
    return [
        Request(i, KEYS[i], new=observed(i), budget=BUDGETS[i - 1], stop_tokens=(2,), keep=i % 4 == 0)
        for i in range(0, NUMBER, 2)
    ]


def third_turns():
    return [Request(i, KEYS[i], new=np.int32([7, 8]), budget=5) for i in range(0, NUMBER, 4)]


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


@pytest.mark.parametrize("name", list(ENGINES)[1:])
def test_both_engines_give_the_same_turns(found, name):
    for actual, expected in zip(found[name], found["batches"], strict=True):
        assert_same(actual, expected)


def episodes(turns):
    """(prompt and turn, where the turn begins) of each turn: what the policy saw when it sampled it."""
    contexts = {}
    for requests, answers in zip(TURNS, turns, strict=True):
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
    assert len(finishes) == 6


def test_logprobs_are_those_of_the_trainers_forward_pass_over_the_whole_episode(found):
    params = random_params(CONFIG)
    logits = jax.jit(lambda tokens: policy.logits(CONFIG, params, tokens))
    for _, turn, before in episodes(found["four slots"]):
        whole = np.zeros(WINDOW, np.int32)  # what stands behind a token does not reach it
        whole[: len(before) + len(turn.tokens)] = np.concatenate([before, turn.tokens])
        rows = np.arange(len(before) - 1, len(before) - 1 + len(turn.tokens))
        expected = reference.log_softmax(np.asarray(logits(jnp.asarray(whole)[None])[0], np.float64))
        assert_close(turn.logprobs, expected[rows, turn.tokens], terms=2.0)


def test_every_token_is_drawn_from_its_own_number_of_the_episodes_stream(found):
    """One uniform number of fold_in(key, t) draws token t of the episode, over all of its turns."""
    params, drawn, checked = random_params(CONFIG), {}, 0
    for request, turn, before in episodes(found["batches"]):
        key = jax.random.wrap_key_data(request.key)
        first = drawn.get(request.id, 0)
        drawn[request.id] = first + len(turn.tokens)
        if request.id % 4 or not request.temperature:
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
        assert jax.tree.structure(parts) == jax.tree.structure(again)  # in as many calls of poll
        for a, b in zip(jax.tree.leaves(parts), jax.tree.leaves(again), strict=True):
            assert (a.id, a.finish) == (b.id, b.finish)
            np.testing.assert_array_equal(a.tokens, b.tokens)
            np.testing.assert_array_equal(a.logprobs, b.logprobs)


@pytest.mark.parametrize("settings", [{"batch_size": 8}, {"slots": 4}], ids=["batches", "slots"])
def test_a_mesh_gives_the_same_turns(found, settings):
    sampler = make(MeshConfig(data=2, fsdp=2, tensor=2), slice(8), window=WINDOW, **settings)
    for requests, expected in zip(TURNS[:2], found["batches"], strict=False):
        assert_same(drained(sampler, requests), expected)
