"""Filters, the draw of one token, and its log-probabilities against float64 NumPy."""

import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from rlvr_jax.rollout.sampling import MASKED, _first_beyond, draw_token, filter_logits, first_largest, inverse_cdf
from tests.close import assert_close
from tests.policy.reference import log_softmax

BATCH, VOCAB = 40, 13
searched, filtered_logits = jax.jit(inverse_cdf), jax.jit(filter_logits, static_argnums=(1, 2))


def random_logits(seed=0, batch=BATCH, vocab=VOCAB):
    return np.random.default_rng(seed).normal(scale=2, size=(batch, vocab)).astype(np.float32)


def kept_by_loops(logits, top_k, top_p):
    """True on the tokens that the filters keep, one row at a time."""
    kept = np.ones(logits.shape, bool)
    for row, x in enumerate(logits.astype(np.float64)):
        if 0 < top_k < len(x):
            kept[row] = x >= sorted(x)[-top_k]
        if top_p < 1:
            order = [i for i in np.argsort(-x, kind="stable") if kept[row, i]]
            mass = np.exp(x[order]) / np.exp(x[order]).sum()
            count = next(n for n in range(1, len(order) + 1) if mass[:n].sum() >= top_p or n == len(order))
            kept[row] &= x >= x[order[count - 1]]
    return kept


FILTERS = [(0, 1.0), (1, 1.0), (5, 1.0), (VOCAB, 1.0), (VOCAB + 9, 1.0), (0, 0.9), (0, 0.3), (0, 1e-6), (6, 0.7)]


@pytest.mark.parametrize(("top_k", "top_p"), FILTERS)
def test_filters_keep_what_loops_keep(top_k, top_p):
    logits = random_logits()
    filtered = np.asarray(filtered_logits(jnp.asarray(logits), top_k, top_p))
    kept = kept_by_loops(logits, top_k, top_p)
    np.testing.assert_array_equal(filtered, np.where(kept, logits, np.float32(MASKED)))
    assert kept.any(axis=1).all()


def test_filters_that_are_off_keep_everything_and_the_tightest_keep_one():
    logits = random_logits(1)
    for top_k, top_p, count in [(0, 1.0, VOCAB), (VOCAB, 1.0, VOCAB), (1, 1.0, 1), (0, 1e-9, 1), (3, 1.0, 3)]:
        filtered = np.asarray(filtered_logits(jnp.asarray(logits), top_k, top_p))
        assert ((filtered > MASKED).sum(axis=1) == count).all()


def test_tokens_that_tie_with_the_last_one_kept_are_kept():
    logits = jnp.asarray([[3.0, 1, 2, 2, 2, 0], [2, 2, 2, 2, 2, 2]])
    by_count = np.asarray(filtered_logits(logits, 2, 1.0)) > MASKED
    by_mass = np.asarray(filtered_logits(logits, 0, 0.5)) > MASKED  # the likeliest has 0.44, each of the tied 0.16
    for kept in (by_count, by_mass):
        np.testing.assert_array_equal(kept, [[True, False, True, True, True, False], [True] * 6])


EDGES = np.array([0, 2**-24, 0.5, 1 - 2**-23, 1 - 2**-24], np.float32)


def random_weights(seed, batch, vocab, zeros):
    """Weights of which the share `zeros` is 0, in places of their own and in whole stretches; at least one is not."""
    rng = np.random.default_rng(seed)
    weights = rng.exponential(size=(batch, vocab)) * (rng.random((batch, vocab)) >= zeros)
    stretch = max(1, round(vocab**0.5))
    weights[::2] *= np.repeat(rng.random((len(weights[::2]), vocab)) >= zeros, stretch, axis=1)[:, :vocab]
    weights[np.arange(batch), rng.integers(vocab, size=batch)] = 1
    return weights.astype(np.float32), rng


@pytest.mark.parametrize("vocab", [1, 2, 5, 16, 19, 1000, 5003])
@pytest.mark.parametrize("zeros", [0.0, 0.8])
def test_inverse_cdf_equals_a_search_in_float64_sums(vocab, zeros):
    weights, rng = random_weights(vocab, 500, vocab, zeros)
    uniform = rng.random(500).astype(np.float32)
    uniform[: len(EDGES)] = EDGES
    ends = np.cumsum(weights, axis=1, dtype=np.float64)
    tokens = np.asarray(searched(jnp.asarray(weights), jnp.asarray(uniform)))
    expected = [np.searchsorted(row, u * row[-1], side="right") for row, u in zip(ends, uniform, strict=True)]
    # Rounded sums may take the neighbour where the uniform number falls on the border of two tokens.
    distance = np.abs(ends / ends[:, -1:] - uniform[:, None]).min(axis=1)
    clear = distance > 2e-6
    assert clear.mean() > 0.95 or vocab > 1000
    np.testing.assert_array_equal(tokens[clear], np.array(expected)[clear])
    assert (weights[np.arange(500), tokens] > 0).all()


@pytest.mark.parametrize("vocab", [7, 64, 1000])
def test_a_token_of_weight_zero_is_never_drawn_though_sums_round(vocab):
    weights, rng = random_weights(vocab, 5000, vocab, 0.7)
    ends = np.cumsum(weights, axis=1, dtype=np.float64)
    rows = np.arange(len(weights))
    borders = ends[rows, rng.integers(vocab, size=len(rows))] / ends[:, -1]
    uniform = borders * (1 + rng.integers(-3, 4, size=len(rows)) * 2.0**-24)
    uniform = np.clip(uniform.astype(np.float32), 0, EDGES[-1])
    tokens = np.asarray(searched(jnp.asarray(weights), jnp.asarray(uniform)))
    assert (weights[rows, tokens] > 0).all()
    starts = np.where(tokens > 0, ends[rows, tokens - 1], 0) / ends[:, -1]
    miss = np.maximum(starts - uniform, uniform - ends[rows, tokens] / ends[:, -1])
    assert miss.max() < 1e-6  # and the token is the one at the border


def test_ends_and_targets_that_rounded_past_a_weight_of_zero_do_not_choose_it():
    weights = jnp.asarray([[0.0, 1, 0, 2, 0]] * 4)
    ends = jnp.asarray([[0.0, 1, 1.0000001, 3, 3.0000002]] * 4)  # as if sums of other orders had grown over the zeros
    places = _first_beyond(weights, ends, jnp.asarray([-1e-7, 0.5, 1.0, 3.0]))
    np.testing.assert_array_equal(places, [1, 1, 3, 3])


def test_the_only_token_with_weight_is_drawn_whatever_the_uniform_number():
    weights = jnp.asarray(np.eye(VOCAB, dtype=np.float32)[np.arange(VOCAB)] * 0.3)
    for uniform in EDGES:
        tokens = searched(weights, jnp.full(VOCAB, uniform))
        np.testing.assert_array_equal(tokens, np.arange(VOCAB))


def draw(seed, logits, temperature, top_k=0, top_p=1.0, policy_temperature=1.0):
    keys = jax.random.split(jax.random.key(seed), len(logits))
    function = jax.jit(partial(draw_token, top_k=top_k, top_p=top_p, policy_temperature=policy_temperature))
    temperatures = jnp.broadcast_to(jnp.float32(temperature), len(logits))
    return [np.asarray(x) for x in function(keys, jnp.asarray(logits), temperatures)]


@pytest.mark.parametrize(("temperature", "top_k", "top_p"), [(1.0, 0, 1.0), (0.7, 5, 1.0), (1.3, 0, 0.8)])
def test_tokens_are_drawn_as_often_as_the_softmax_says(temperature, top_k, top_p):
    logits = random_logits(2, batch=1)
    draws = 50_000
    tokens, *_ = draw(0, np.repeat(logits, draws, axis=0), temperature, top_k, top_p)
    scaled = logits / np.float32(temperature)
    kept = kept_by_loops(scaled, top_k, top_p)[0]
    expected = draws * np.exp(log_softmax(np.where(kept, scaled, -np.inf).astype(np.float64)))[0]
    counts = np.bincount(tokens, minlength=VOCAB)
    assert not counts[~kept].any()
    assert expected[kept].min() > 5  # what the chi-square test asks for
    statistic = np.sum((counts[kept] - expected[kept]) ** 2 / expected[kept])
    assert statistic < stats.chi2.ppf(0.99, kept.sum() - 1)


@pytest.mark.parametrize("policy_temperature", [1.0, 0.5])
@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"), [(1.0, 0, 1.0), (0.6, 4, 1.0), (1.5, 0, 0.7), (0.8, 6, 0.9)]
)
def test_tokens_are_among_those_kept_and_logprobs_those_of_the_policy(temperature, top_k, top_p, policy_temperature):
    logits = random_logits(3)
    tokens, logprobs = draw(1, logits, temperature, top_k, top_p, policy_temperature)
    kept = kept_by_loops(logits / np.float32(temperature), top_k, top_p)
    rows = np.arange(BATCH)
    assert kept[rows, tokens].all()
    expected = log_softmax(logits.astype(np.float64) / policy_temperature)
    assert_close(logprobs, expected[rows, tokens], terms=2.0)


@pytest.mark.parametrize(("top_k", "top_p"), [(0, 1.0), (4, 1.0), (0, 0.7), (6, 0.9)])
def test_filtered_logprobs_are_those_of_the_distribution_that_is_sampled(top_k, top_p):
    logits = random_logits(3)
    keys, temperatures = jax.random.split(jax.random.key(1), BATCH), jnp.full(BATCH, 0.6)
    found = jax.jit(partial(draw_token, top_k=top_k, top_p=top_p, policy_temperature=0.6, filtered_logprobs=True))
    tokens, logprobs = map(np.asarray, found(keys, jnp.asarray(logits), temperatures))
    np.testing.assert_array_equal(tokens, draw(1, logits, 0.6, top_k, top_p)[0])
    scaled = logits / np.float32(0.6)
    kept = np.where(kept_by_loops(scaled, top_k, top_p), scaled.astype(np.float64), -np.inf)
    assert_close(logprobs, log_softmax(kept)[np.arange(BATCH), tokens], terms=2.0)


def test_each_row_has_a_temperature_and_zero_takes_the_likeliest_token():
    logits = random_logits(4)
    temperatures = np.resize(np.float32([0, 0.7, 1.5]), BATCH)
    for top_k, top_p in [(0, 1.0), (3, 0.5)]:
        tokens, logprobs = draw(2, logits, temperatures, top_k, top_p, 0.5)
        for temperature in (0, 0.7, 1.5):
            rows = temperatures == np.float32(temperature)
            np.testing.assert_array_equal(tokens[rows], draw(2, logits, temperature, top_k, top_p, 0.5)[0][rows])
        np.testing.assert_array_equal(tokens[temperatures == 0], logits.argmax(axis=1)[temperatures == 0])
        expected = log_softmax(logits.astype(np.float64) / 0.5)[np.arange(BATCH), tokens]
        assert_close(logprobs, expected, terms=2.0)


def test_a_row_is_drawn_by_its_own_key_alone():
    logits = random_logits(5)
    keys = jax.random.split(jax.random.key(0), BATCH)
    order = np.random.default_rng(0).permutation(BATCH)
    function = jax.jit(partial(draw_token, top_k=0, top_p=1.0, policy_temperature=1.0))
    straight = function(keys, jnp.asarray(logits), jnp.ones(BATCH))
    shuffled = function(keys[order], jnp.asarray(logits[order]), jnp.ones(BATCH))
    for a, b in zip(straight, shuffled, strict=True):
        np.testing.assert_array_equal(np.asarray(a)[order], b)


def test_the_draw_uses_one_uniform_number_of_the_key():
    """So that streams can be reproduced outside: token = first whose cumulative weight exceeds uniform(key) * total."""
    logits = random_logits(6)
    tokens, *_ = draw(3, logits, 1.0)
    keys = jax.random.split(jax.random.key(3), BATCH)
    for row, key in enumerate(keys):
        ends = np.cumsum(np.exp(logits[row].astype(np.float64)))
        assert tokens[row] == np.searchsorted(ends, float(jax.random.uniform(key)) * ends[-1], side="right")


def test_the_first_of_the_largest_entries_is_taken():
    x = np.random.default_rng(0).integers(0, 4, (200, 9)).astype(np.float32)
    np.testing.assert_array_equal(first_largest(jnp.asarray(x)), x.argmax(axis=1))
    np.testing.assert_array_equal(first_largest(jnp.asarray(x > 2)), (x > 2).argmax(axis=1))
    assert 0 <= int(first_largest(jnp.full((1, 9), jnp.nan))[0]) < 9


COMPILE_DRAWS = """
import resource
resource.setrlimit(resource.RLIMIT_CPU, (120, 120))  # it takes 2 seconds, or else minutes
import jax, jax.numpy as jnp
from rlvr_jax.rollout.sampling import draw_token

def draw(keys, temperature, *logits):  # of a group's first tokens, from the logits of its prompt
    return [draw_token(keys, jnp.repeat(x, 8, axis=0), temperature, 0, 1.0, 1.0) for x in logits]

logits = [jax.ShapeDtypeStruct((16, vocab), jnp.float32) for vocab in (22, 27)]  # see `first_largest`
keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0, impl="rbg"), 128))
jax.jit(draw).lower(keys, jax.ShapeDtypeStruct((128,), jnp.float32), *logits).compile()
"""


def test_draws_compile_for_vocabularies_of_any_size():
    # A process of its own, since a compilation can't be interrupted, and CPU seconds, which no busy machine stretches.
    # With the optimizations that users have: without them it always ends.
    optimized = {**os.environ, "JAX_DISABLE_MOST_OPTIMIZATIONS": "0", "JAX_ENABLE_COMPILATION_CACHE": "0"}
    optimized.pop("XLA_FLAGS")
    subprocess.run([sys.executable, "-c", COMPILE_DRAWS], env=optimized, check=True)
