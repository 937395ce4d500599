"""The decoder against an independent one in float64, and the ways of calling it against each other."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax import policy
from rlvr_jax.policy import Cache, RopeScaling, model
from rlvr_jax.policy import layers as layers_module
from rlvr_jax.policy.layers import DENSE_LENGTH
from tests.close import assert_close
from tests.policy import reference
from tests.policy.reference import TINY, left_padded, random_params, random_sequences

CONFIGS = {
    "llama": TINY,
    "qwen2": replace(TINY, qkv_bias=True, num_kv_heads=4, tie_embeddings=False, norm_eps=1e-2),
    "qwen3": replace(TINY, qk_norm="head", num_kv_heads=1, rope_theta=1e6),
    # Layers of four kinds, of which each pattern alone has two; the window is shorter than prompts and responses.
    "olmo3": replace(
        TINY,
        num_layers=4,
        rope_theta=100.0,
        norm_placement="post",
        qk_norm="full",
        window_pattern=(3, 3, 3, 0),
        rope_pattern=("unscaled", "scaled"),
        rope_scaling=RopeScaling("yarn", factor=4.0, original_length=40, beta_fast=4.0),
    ),
    "smollm3": replace(
        TINY,
        num_layers=3,
        head_dim=8,
        rope_pattern=("scaled", "none"),
        rope_scaling=RopeScaling("llama3", factor=8.0, original_length=80),
    ),
    # With the rotary positions of Phi-4-mini.
    "gemma3": replace(
        TINY,
        num_layers=3,
        num_kv_heads=1,
        qk_norm="head",
        norm_placement="both",
        norm_offset=1.0,
        score_dim=5,
        activation="gelu_tanh",
        scale_embeddings=True,
        rope_theta=1e6,
        rope_theta_unscaled=100.0,
        rotary_dim=4,
        rope_scaling=RopeScaling(
            "longrope", factor=8.0, original_length=80, short_factors=(1.0, 1.5), long_factors=(2.0, 4.0)
        ),
        window_pattern=(3, 3, 0),
        rope_pattern=("unscaled", "unscaled", "scaled"),
    ),
}
# Layers, and the new tokens of each call that decodes after a prefix: several at once go, too.
CACHED = [
    ("qwen2", "unstacked", [1] * 4),
    ("olmo3", "stacked", [1, 1, 2]),
    ("smollm3", "unstacked", [1] * 4),
    ("gemma3", "unstacked", [1] * 4),  # which has all of qwen3
]
# Layers one after the other, in rows with padding: of one kind, and of several with a window and without.
UNSTACKED = pytest.mark.parametrize("case", ["llama", "olmo3", "gemma3"], indirect=True)
LENGTHS = [9, 1, 5, 12]
WINDOW = 13


@pytest.fixture(scope="module", params=CONFIGS)
def case(request):
    config = CONFIGS[request.param]
    return config, random_params(config)


@partial(jax.jit, static_argnums=0)
def apply(config, params, *inputs):
    """Hidden states without a cache, compiled once for all tests of a config."""
    return policy.forward(config, params, *inputs)[0]


step = jax.jit(policy.forward, static_argnums=0)
logits_of = jax.jit(policy.logits, static_argnums=0)
unstack = jax.jit(policy.unstack)


@partial(jax.jit, static_argnums=0)
def gradients_and_hidden(config, params, weights, *row):
    """Gradients of sum(hidden states * weights) of rows with parents, and the hidden states."""

    def loss(params):
        hidden = policy.forward(config, params, *row[:3], parents=row[3])[0]
        return jnp.sum(hidden * weights), hidden

    return jax.grad(loss, has_aux=True)(params)


@UNSTACKED
def test_forward_equals_a_decoder_in_float64_on_left_padded_sequences(case):
    config, params = case
    sequences = random_sequences(LENGTHS)
    hidden = apply(config, unstack(params), *left_padded(sequences, WINDOW))
    assert hidden.dtype == jnp.float32
    for row, sequence in zip(hidden, sequences, strict=True):
        expected = reference.hidden(config, params, sequence)
        assert_close(row[WINDOW - len(sequence) :], expected)


@pytest.mark.parametrize("case", ["llama", "qwen2"], indirect=True)  # with the embedding's table and another one
def test_logits_are_float32_and_equal_the_decoder_in_float64(case):
    config, params = case
    sequences = random_sequences([7, 7])
    logits = logits_of(config, params, np.stack(sequences))
    assert logits.dtype == jnp.float32
    assert logits.shape == (2, 7, config.vocab_size)
    for row, sequence in zip(logits, sequences, strict=True):
        assert_close(row, reference.logits(config, params, sequence))


@UNSTACKED
def test_packed_sequences_equal_separate_ones(case):
    config, params = case
    sequences = random_sequences([5, 1, 4], seed=1)
    tokens, positions, segments = (np.zeros((len(LENGTHS), WINDOW), np.int32) for _ in range(3))
    start = 0
    for number, sequence in enumerate(sequences, start=1):
        place = slice(start, start + len(sequence))
        tokens[0, place], positions[0, place], segments[0, place] = sequence, np.arange(len(sequence)), number
        start += len(sequence)
    # The same sequences in the other order, one place further right, in the second row; nothing in the others.
    order = np.concatenate([np.arange(6, 10), np.arange(5, 6), np.arange(5)])
    for x in (tokens, positions, segments):
        x[1, 1:11] = x[0, order]
    packed = apply(config, unstack(params), tokens, positions, segments)
    expected = np.concatenate([reference.hidden(config, params, sequence) for sequence in sequences])
    assert_close(packed[0, :10], expected)
    assert_close(packed[1, 1:11], expected[order])


@UNSTACKED
def test_what_stands_in_the_padding_changes_no_bit_of_real_tokens(case):
    config, params = case
    tokens, positions, segments = map(np.asarray, left_padded(random_sequences(LENGTHS), WINDOW))
    hidden = apply(config, unstack(params), tokens, positions, segments)
    other = np.where(segments == 0, 7, tokens), np.where(segments == 0, 3, positions), segments
    found, real = np.asarray(apply(config, unstack(params), *other)), segments == 1
    np.testing.assert_array_equal(found[real], np.asarray(hidden)[real])
    assert np.isfinite(hidden).all()


def shared_prefix():
    """A prompt of 5 tokens and behind it responses of 3, 1 and 4 in one row; and the sequences one by one."""
    prompt, *responses = random_sequences([5, 3, 1, 4], seed=7)
    lengths = [len(response) for response in responses]
    positions = np.concatenate([np.arange(5), *(5 + np.arange(length) for length in lengths)])
    segments = np.repeat([1, 2, 3, 4], [5, *lengths])
    rows = (np.concatenate([prompt, *responses]), positions, segments, np.where(segments > 1, 1, 0))
    return [jax.device_put(np.asarray(x, np.int32)[None]) for x in rows], [
        np.concatenate([prompt, x]) for x in responses
    ]


def separate(config, params, sequences):
    """Hidden states of the row of `shared_prefix`, sequence by sequence in float64."""
    whole = [reference.hidden(config, params, sequence) for sequence in sequences]
    return np.concatenate([whole[0][:5], *(x[5:] for x in whole)])


def weights_of(config):
    return np.random.default_rng(0).normal(size=(WINDOW, config.width)).astype(np.float32)


def test_segments_with_a_parent_equal_separate_sequences(case):
    config, params = case
    row, sequences = shared_prefix()
    _, hidden = gradients_and_hidden(config, params, weights_of(config), *row)
    assert_close(hidden[0], separate(config, params, sequences))


def test_gradients_equal_finite_differences_of_the_decoder_in_float64(case):
    config, params = case
    row, sequences = shared_prefix()
    weights = weights_of(config)
    gradients, _ = gradients_and_hidden(config, params, weights, *row)
    exact = reference.in_float64(params)
    paths = [path for path, _ in jax.tree.leaves_with_path(exact)]
    for place, path in enumerate(paths):
        leaves, tree = jax.tree.flatten(exact)
        direction = np.random.default_rng(place).normal(size=leaves[place].shape)

        def moved(step, leaves=leaves, tree=tree, place=place, direction=direction):
            params = tree.unflatten([*leaves[:place], leaves[place] + step * direction, *leaves[place + 1 :]])
            return np.sum(separate(config, params, sequences) * weights)

        expected = (moved(1e-6) - moved(-1e-6)) / 2e-6
        actual = np.sum(np.asarray(jax.tree.leaves(gradients)[place], np.float64) * direction)
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4, err_msg=jax.tree_util.keystr(path))


def test_parents_with_a_cache_are_refused():
    (*row, parents), _ = shared_prefix()
    params = random_params(TINY)
    cache = Cache(policy.empty_key_values(TINY, params, 1, 13))
    with pytest.raises(ValueError, match="parents are for rows without a cache"):
        policy.forward(TINY, params, *row, cache, parents)


def test_attention_of_another_platform_is_refused_by_name():
    with pytest.raises(ValueError, match="attention 'pallas' runs on TPU and GPU, not on CPU: use 'auto'"):
        logits_of(replace(TINY, attention="pallas"), random_params(TINY), np.ones((1, 3), np.int32))


def test_prefill_and_decoding_token_by_token_equal_the_teacher_forced_forward():
    config = CONFIGS["olmo3"]
    params = random_params(config)
    sequences = random_sequences([10, 10, 10], seed=4)
    prompt_lengths, prompt_window = [4, 1, 3], 5
    expected = [reference.hidden(config, params, sequence) for sequence in sequences]

    prompts = [sequence[:length] for sequence, length in zip(sequences, prompt_lengths, strict=True)]
    cache = Cache(policy.empty_key_values(config, params, 3, prompt_window + 6))
    hidden, cache = step(config, params, *left_padded(prompts, prompt_window), cache)
    for t in range(6):
        if t:
            positions = np.array(prompt_lengths)[:, None] + t - 1
            tokens = np.stack([s[p] for s, p in zip(sequences, positions, strict=True)])
            hidden, cache = step(config, params, tokens, positions.astype(np.int32), np.ones((3, 1), np.int32), cache)
        for row, length in enumerate(prompt_lengths):
            assert_close(np.asarray(hidden)[row, -1], expected[row][length + t - 1])
    assert int(cache.own.size) == prompt_window + 5


def filled_prefix(config, run, prompts):
    """The cache of prompts, as it is shared by groups of responses."""
    window = max(map(len, prompts))
    empty = Cache(policy.empty_key_values(config, run, len(prompts), window))
    return step(config, run, *left_padded(prompts, window), empty)[1].own


def decoded(config, run, prefix, own, lengths, responses, widths):
    """The own cache after the responses, which are appended so many tokens at a time, and their hidden states."""
    outputs, start = [], 0
    for width in widths:
        tokens = responses[:, start : start + width]
        positions = np.asarray(lengths[:, None] + np.arange(start, start + width), np.int32)
        hidden, cache = step(config, run, tokens, positions, np.ones_like(tokens), Cache(own, prefix))
        own, start = cache.own, start + width
        outputs.append(np.asarray(hidden))
    return own, np.concatenate(outputs, axis=1)


@pytest.mark.parametrize(("name", "layers", "widths"), CACHED)
def test_decoding_after_a_prefix_shared_by_a_group_equals_the_teacher_forced_forward(name, layers, widths):
    config = CONFIGS[name]
    params = random_params(config)
    group, prompts = 3, random_sequences([2, 6], seed=5)
    responses = np.stack(random_sequences([4] * (len(prompts) * group), seed=6))
    run = unstack(params) if layers == "unstacked" else params

    own = policy.empty_key_values(config, run, len(responses), 4)
    lengths = np.repeat([len(prompt) for prompt in prompts], group)
    _, hidden = decoded(config, run, filled_prefix(config, run, prompts), own, lengths, responses, widths)
    for i, response in enumerate(responses):
        whole = np.concatenate([prompts[i // group], response])
        assert_close(hidden[i], reference.hidden(config, params, whole)[-len(response) :])


def test_prefill_as_in_training_fills_the_cache_as_with_masks(monkeypatch):
    monkeypatch.setattr(layers_module, "DENSE_LENGTH", 0)
    config = CONFIGS["olmo3"]
    params, sequences, count = random_params(config), random_sequences(LENGTHS), len(LENGTHS)
    run = unstack(params)
    traced_anew = jax.jit(lambda *inputs: policy.forward(config, *inputs))
    cache = Cache(policy.empty_key_values(config, run, count, WINDOW + 1), empty=True)
    *row, mask = left_padded(sequences, WINDOW)
    hidden, filled = traced_anew(run, *row, mask, cache)
    # One more token reads the cache.
    ones = np.ones((count, 1), np.int32)
    last, _ = traced_anew(run, ones, np.asarray(LENGTHS, np.int32)[:, None], ones, filled)
    found = np.concatenate([hidden, last], axis=1)
    for states, sequence in zip(found, sequences, strict=True):
        assert_close(states[WINDOW - len(sequence) :], reference.hidden(config, params, [*sequence, 1]))


def test_keys_in_blocks_hold_what_whole_ones_do(monkeypatch):
    monkeypatch.setattr(model, "KEY_BLOCK", 4)
    config, group = CONFIGS["olmo3"], 2
    params = random_params(config)
    run = unstack(params)
    prompts, responses = random_sequences([2, 6], seed=8), np.stack(random_sequences([6] * 4, seed=9))
    lengths = np.repeat([2, 6], group)
    prefix, own = filled_prefix(config, run, prompts), policy.empty_key_values(config, run, 4, 6, one_by_one=True)
    blocks, hidden = decoded(config, run, prefix, own, lengths, responses, [1] * 6)
    assert blocks.layers[0][0].shape == (4, config.num_kv_heads, 2, config.head_dim, 4)
    for i, response in enumerate(responses):
        whole = np.concatenate([prompts[i // group], response])
        assert_close(hidden[i], reference.hidden(config, params, whole)[-len(response) :])
    with pytest.raises(ValueError, match="one token at a time, not 2"):
        decoded(config, run, prefix, blocks, lengths, responses, [2])


@pytest.mark.parametrize(  # without a loop over the layers and with one
    ("name", "changes"), [("llama", {"remat": "full"}), ("olmo3", {"remat": "dots", "attention": "xla"})]
)
def test_rematerialisation_and_some_queries_at_a_time_change_neither_hidden_states_nor_gradients(name, changes):
    base, (row, _) = CONFIGS[name], shared_prefix()
    inputs = random_params(base), weights_of(base), *row
    assert_close(gradients_and_hidden(replace(base, **changes), *inputs), gradients_and_hidden(base, *inputs))


@pytest.mark.parametrize(
    ("remat", "keeps_scores", "keeps_products"), [("none", True, True), ("dots", False, True), ("full", False, False)]
)
def test_rematerialisation_keeps_less_for_the_backward_pass(remat, keeps_scores, keeps_products):
    config = replace(TINY, remat=remat)
    inputs = left_padded(random_sequences([11, 11]), 11)  # 11 is no other size
    pullback = jax.eval_shape(
        lambda params: jax.vjp(lambda p: policy.forward(config, p, *inputs)[0], params)[1], random_params(config)
    )
    kept = [x.shape for x in jax.tree.leaves(pullback) if x.dtype == jnp.float32]
    assert any(shape.count(11) == 2 or (11 in shape and 22 in shape) for shape in kept) == keeps_scores
    wide = [shape for shape in kept if config.mlp_width in shape and (11 in shape or 22 in shape)]
    assert len(wide) == (2 if keeps_products else 0)  # gate and up, once each


@pytest.mark.parametrize(("attention", "length"), [("xla", 300), ("auto", DENSE_LENGTH + 1)])
def test_attention_in_chunks_and_thus_of_long_rows_keeps_no_scores(attention, length):
    config = replace(TINY, attention=attention)
    inputs = left_padded(random_sequences([length]), length)
    pullback = jax.eval_shape(
        lambda params: jax.vjp(lambda p: policy.forward(config, p, *inputs)[0], params)[1], random_params(config)
    )
    assert max(x.size for x in jax.tree.leaves(pullback)) < length**2


def test_bfloat16_compute_gives_float32_logits_near_those_of_float64():
    config = replace(TINY, qk_norm="head", qkv_bias=True, dtype="bfloat16")
    params, sequences = random_params(config), random_sequences([12] * 4)
    cache = Cache(policy.empty_key_values(config, params, 4, 12))
    hidden, cache = step(config, params, *left_padded(sequences, 12), cache)
    assert hidden.dtype == jnp.bfloat16
    assert {x.dtype for x in jax.tree.leaves(cache.own.layers)} == {jnp.dtype("bfloat16")}
    rounded = policy.head_logits(config, params, hidden)
    assert rounded.dtype == jnp.float32
    exact = np.stack([reference.logits(config, params, sequence) for sequence in sequences])
    assert np.max(np.abs(rounded - exact)) > 1e-4 * np.max(np.abs(exact))  # it did compute in another precision
    np.testing.assert_allclose(rounded, exact, atol=0.05 * np.max(np.abs(exact)), rtol=0)


def test_gradients_have_the_parameters_dtype_whatever_the_compute_dtype():
    config = replace(TINY, dtype="bfloat16")
    inputs = left_padded(random_sequences([5]), 5)
    loss = lambda p: jnp.sum(policy.forward(config, p, *inputs)[0].astype(jnp.float32))  # noqa: E731
    gradients = jax.eval_shape(jax.grad(loss), random_params(config))
    assert {x.dtype for x in jax.tree.leaves(gradients)} == {jnp.dtype("float32")}
