"""Rows that share a prompt: where everything stands, and that log-probs and gradients are those of separate rows."""

import functools
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import optax
import pytest

from rlvr_jax import policy
from rlvr_jax.learner.aggregation import group_tokens
from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.batch import Batch, in_groups, layout, split
from rlvr_jax.learner.losses import policy_gradient
from rlvr_jax.learner.packing import pack, savings, unpack
from rlvr_jax.learner.ratios import sample_means, sample_sums
from rlvr_jax.learner.scores import score
from rlvr_jax.learner.step import new_state, train_step
from rlvr_jax.policy import LoraConfig, PolicyConfig
from tests.close import assert_close

PLAIN = PolicyConfig(
    vocab_size=17, num_layers=1, width=16, num_heads=4, num_kv_heads=2, head_dim=4, mlp_width=20, init_scale=0.4
)
WINDOWS = replace(PLAIN, num_layers=2, window_pattern=(3, 0), rope_pattern=("scaled", "none"), norm_placement="post")
CHUNKS = replace(PLAIN, attention="xla", remat="full", lora=LoraConfig(rank=2, alpha=2.0))
# With the multiples of the packed rows' lengths. Of the plain policy below, in microbatches.
SHAPES = {"sliding windows": (WINDOWS, (0, 1)), "queries in chunks and adapters": (CHUNKS, (0,))}
PROMPTS, GROUP, PROMPT, RESPONSE = 4, 3, 6, 5
ALGORITHM = AlgorithmConfig(kl_coef=0.25, reference="initial")


def random_batch(seed: int = 0) -> Batch:
    """Ragged groups; one has an empty response, one only such but one."""
    rng = np.random.default_rng(seed)
    prompts = [rng.integers(1, 17, rng.integers(1, PROMPT + 1)) for _ in range(PROMPTS)]
    lengths = rng.integers(0, RESPONSE + 1, (PROMPTS, GROUP))
    lengths[0], lengths[1] = (RESPONSE, 0, 2), (0, 0, 1)
    responses = [rng.integers(1, 17, length) for length in lengths.reshape(-1)]
    batch = layout([prompt for prompt in prompts for _ in range(GROUP)], responses, PROMPT, RESPONSE)
    mask = batch.action_mask * (rng.random(batch.action_mask.shape) < 0.8).astype(np.float32)  # with observations
    noise = lambda: rng.normal(size=mask.shape).astype(np.float32) * mask  # noqa: E731
    logprob = np.float32(-np.log(17))
    near = lambda: (logprob + np.float32(0.2) * noise()) * mask  # noqa: E731
    return batch.replace(action_mask=mask).with_columns(advantages=noise(), behaviour=near(), reference=near())


@functools.cache
def random_params(config: PolicyConfig):
    """With adapters, norm scales and biases that do something."""
    rng = np.random.default_rng(1)
    params = jax.device_get(jax.jit(partial(policy.init_with_adapters, config))(jax.random.key(0)))
    return jax.tree.map(lambda x: jax.device_put(x + (0.2 * rng.normal(size=x.shape)).astype(x.dtype)), params)


def test_a_row_is_a_prompt_and_behind_it_its_responses_one_after_the_other():
    prompts, responses = [[11, 12], [11, 12], [13], [13]], [[21, 22], [23], [], [24, 25, 26]]
    packed = pack(layout(prompts, responses, prompt_length=3, response_length=4), group=2, multiple=8)
    rest = [0] * 5
    np.testing.assert_array_equal(packed.tokens, [[0, 11, 12, 21, 22, 23, *rest], [0, 0, 13, 24, 25, 26, *rest]])
    np.testing.assert_array_equal(packed.positions, [[0, 0, 1, 2, 3, 2, *rest], [0, 0, 0, 1, 2, 3, *rest]])
    np.testing.assert_array_equal(packed.segment_ids, [[0, 1, 1, 2, 2, 3, *rest], [0, 0, 1, 3, 3, 3, *rest]])
    np.testing.assert_array_equal(packed.parents, [[0, 0, 0, 1, 1, 1, *rest], [0, 0, 0, 1, 1, 1, *rest]])
    np.testing.assert_array_equal(packed.predictors[:, :3], [[2, 3, 2], [2, 3, 4]])
    np.testing.assert_array_equal(packed.action_mask, [[1, 1, 1, *rest], [1, 1, 1, *rest]])
    np.testing.assert_array_equal(packed.samples, [2, 2])
    assert packed.columns == {}


def test_packed_rows_are_as_long_as_the_longest_needs_rounded_up_or_of_one_length():
    batch = random_batch()
    longest = int(batch.segment_ids[:, PROMPT:].reshape(PROMPTS, -1).sum(axis=1).max())
    whole = pack(batch, GROUP, GROUP * RESPONSE)
    assert whole.tokens.shape == pack(batch, GROUP).tokens.shape == (PROMPTS, PROMPT + GROUP * RESPONSE)
    for multiple in (1, 4, 100):
        width = min(-(-longest // multiple) * multiple, GROUP * RESPONSE)
        cut = pack(batch, GROUP, multiple)
        assert cut.action_mask.shape == (PROMPTS, width)
        expected = jax.tree.map(
            lambda x, width=width: x if x.ndim == 1 else x[:, : x.shape[1] - GROUP * RESPONSE + width], whole
        )
        jax.tree.map(np.testing.assert_array_equal, cut, expected)
    empty = layout([[1]] * 2, [[]] * 2, prompt_length=1, response_length=3)
    assert pack(empty, 2, 1).action_mask.shape == (1, 1)


def test_rows_of_one_length_have_columns_for_each_response():
    prompts, responses = [[11, 12], [11, 12], [13], [13]], [[21, 22], [23], [], [24, 25, 26]]
    packed = pack(layout(prompts, responses, prompt_length=3, response_length=4), group=2)
    np.testing.assert_array_equal(
        packed.tokens, [[0, 11, 12, 21, 22, 0, 0, 23, 0, 0, 0], [0, 0, 13, 0, 0, 0, 0, 24, 25, 26, 0]]
    )
    np.testing.assert_array_equal(packed.segment_ids[:, 3:], [[2, 2, 0, 0, 3, 0, 0, 0], [0, 0, 0, 0, 3, 3, 3, 0]])
    np.testing.assert_array_equal(packed.predictors, [[2, 3, 4, 5, 2, 7, 8, 9]] * 2)
    assert packed.branches == (3, 4)


@pytest.mark.parametrize("multiple", [0, 1, 4])
def test_values_of_actions_come_back_from_packed_rows(multiple):
    batch = random_batch()
    packed = pack(batch, GROUP, multiple)
    assert packed.columns.keys() == batch.columns.keys()
    for name, column in batch.columns.items():
        np.testing.assert_array_equal(unpack(packed.columns[name], batch, GROUP, multiple), column)


def test_a_packed_batch_keeps_every_dtype():
    batch, packed = random_batch(), pack(random_batch(), GROUP)
    same = jax.tree.map(lambda x, y: x.dtype == y.dtype, packed.replace(parents=None, branches=None), batch)
    assert all(jax.tree.leaves(same))
    assert packed.parents.dtype == np.int32


def test_rows_of_a_group_with_different_prompts_are_refused():
    batch = layout([[1], [1], [2], [3]], [[1]] * 4, prompt_length=2, response_length=1)
    with pytest.raises(ValueError, match="rows 2 to 3 are one group but differ in their prompt"):
        pack(batch, 2)


@functools.cache  # and so are its programs
def gradient_of(config, microbatches=1, algorithm=ALGORITHM):
    """(params, batch) -> gradient and metrics: what plain descent with rate 1 subtracts."""
    optimizer = optax.sgd(1.0)
    loss = policy_gradient(config, algorithm, 0.7, RESPONSE)
    step = jax.jit(partial(train_step, loss, {"policy": optimizer}, microbatches))

    def run(params, batch):
        states, metrics = step({"policy": new_state(optimizer, params)}, batch)
        change = jax.tree.map(lambda x, y: np.float64(x) - np.float64(y), params, states["policy"].params)
        # Of differences of sums that are nearly equal, which are rounded otherwise on other processors.
        return change, {k: x for k, x in metrics.items() if k != "train/logprob_correlation"}

    return run


def test_logprobs_and_entropies_are_those_of_separate_rows():
    params, batch = random_params(PLAIN), random_batch(seed=2)
    scored = jax.jit(partial(score, PLAIN, temperature=0.7))
    separate = scored(params, batch)
    for multiple in (0, 1):
        packed = scored(params, pack(batch, GROUP, multiple))
        for actual, expected in zip(packed, separate, strict=True):
            actual = unpack(np.asarray(actual), batch, GROUP, multiple)
            assert_close(actual, np.asarray(expected) * batch.action_mask)


@pytest.mark.parametrize("shape", SHAPES)
def test_gradient_and_metrics_are_those_of_separate_rows(shape):
    config, multiples = SHAPES[shape]
    params, batch, run = random_params(config), random_batch(), gradient_of(config)
    expected, metrics = run(params, batch)
    assert min(np.abs(x).max() for x in jax.tree.leaves(policy.trainable(expected))) > 1e-3
    for multiple in multiples:
        assert_close(run(params, pack(batch, GROUP, multiple)), (expected, metrics), terms=1.0)


@pytest.mark.parametrize("multiple", [0, 1, 4])
@pytest.mark.parametrize("function", [sample_sums, sample_means])
def test_sums_and_means_of_samples_are_those_of_separate_rows(function, multiple):
    batch = random_batch(seed=3)
    values, packed = batch.columns["advantages"], jax.device_put(pack(batch, GROUP, multiple))
    found = unpack(np.asarray(function(packed, packed.columns["advantages"])), batch, GROUP, multiple)
    separate = jax.device_put(batch)
    expected = values.astype(np.float64).sum(axis=1, keepdims=True)
    if function is sample_means:
        expected = expected / np.maximum(batch.action_mask.sum(axis=1, keepdims=True), 1)
    np.testing.assert_allclose(found, expected * batch.action_mask, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(
        function(separate, separate.columns["advantages"]) * batch.action_mask, found, rtol=1e-5, atol=1e-6
    )


def test_the_tokens_of_a_group_are_counted_over_its_rows():
    batch = random_batch()
    found = group_tokens(batch, GROUP)
    for prompt in range(PROMPTS):
        rows = slice(prompt * GROUP, (prompt + 1) * GROUP)
        np.testing.assert_array_equal(found[rows], batch.action_mask[rows] * batch.action_mask[rows].sum())


def test_microbatches_are_sets_of_prompts_and_change_nothing():
    params, batch = random_params(PLAIN), random_batch()
    expected = gradient_of(PLAIN)(params, batch)
    assert_close(gradient_of(PLAIN, 2)(params, pack(batch, GROUP)), expected, terms=1.0)


def test_ragged_groups_with_missing_samples_and_prompts_give_what_the_samples_alone_give():
    params, batch = random_params(PLAIN), random_batch()
    of_samples = {"ratio": "sequence", "aggregation": "sequence_mean", "clip_low": 0.01, "clip_high": 0.01}
    run = gradient_of(PLAIN, algorithm=replace(ALGORITHM, **of_samples))
    kept = np.array([1, 1, 1, 0, 0, 0, 0, 1, 0, 1, 0, 1], bool)  # groups of 3, 0, 1 and 2 samples
    groups = np.arange(PROMPTS).repeat(GROUP)[kept]
    alone = jax.tree.map(lambda x: x[kept], batch)
    padded = in_groups(alone, groups, PROMPTS, GROUP)
    expected = run(params, alone)
    assert_close(run(params, padded), expected, terms=1.0)
    assert_close(run(params, pack(padded, GROUP)), expected, terms=1.0)
    np.testing.assert_array_equal(pack(padded, GROUP).samples, [3, 1, 2, 0])


def test_minibatches_packed_one_by_one_are_rows_of_the_packed_batch():
    batch = random_batch()
    packed = [pack(part, GROUP) for part in split(batch, 2)]
    jax.tree.map(np.testing.assert_array_equal, packed, split(pack(batch, GROUP), 2))


# Prompt, response, samples -> how many times fewer tokens and scores.
@pytest.mark.parametrize(
    ("sizes", "tokens", "scores"),
    [
        ((256, 4096, 16), 1.06, 1.00),
        ((1024, 2048, 16), 1.45, 1.12),
        ((2048, 2048, 16), 1.88, 1.31),
        ((4096, 1024, 16), 4.0, 2.5),
        ((8192, 1024, 16), 6.0, 3.86),
        ((1024, 128, 16), 6.0, 3.86),
        ((100, 100, 1), 1.0, 1.0),
    ],
)
def test_savings_grow_with_the_prompt_and_the_group_and_are_counts_of_tokens_and_scores(sizes, tokens, scores):
    np.testing.assert_allclose(savings(*sizes), (tokens, scores), atol=0.005)
