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
CACHED = [
    ("qwen2", "unstacked"),
    ("qwen3", "unstacked"),
    ("olmo3", "stacked"),
    ("olmo3", "unstacked"),
    ("smollm3", "unstacked"),
    ("gemma3", "unstacked"),
]
LENGTHS = [9, 1, 5, 12]
WINDOW = 12


@pytest.fixture(scope="module", params=CONFIGS)
def case(request):
    config = CONFIGS[request.param]
    return config, random_params(config)


@partial(jax.jit, static_argnums=0)
def apply(config, params, *inputs):
    """Hidden states without a cache, compiled once for all tests of a config and a shape."""
    return policy.forward(config, params, *inputs)[0]


step = jax.jit(policy.forward, static_argnums=0)
logits_of = jax.jit(policy.logits, static_argnums=0)
unstack = jax.jit(policy.unstack)


@partial(jax.jit, static_argnums=0)
def head_logprobs(config, params, hidden):
    return jax.nn.log_softmax(policy.head_logits(config, params, hidden))


@partial(jax.jit, static_argnums=0)
def loss_and_gradient(config, params, *inputs, parents=None):
    """The sum of the cubes of all hidden states."""

    def loss(params):
        return jnp.sum(policy.forward(config, params, *inputs, parents=parents)[0] ** 3)

    return jax.value_and_grad(loss)(params)


@partial(jax.jit, static_argnums=0)
def gradients_of_sum(config, params, weights, *inputs):
    """Gradients of sum(hidden states * weights)."""
    return jax.grad(lambda params: jnp.sum(policy.forward(config, params, *inputs)[0][0] * weights))(params)


def test_forward_equals_a_decoder_in_float64_on_left_padded_sequences(case):
    config, params = case
    sequences = random_sequences(LENGTHS)
    hidden = apply(config, params, *left_padded(sequences, WINDOW))
    assert hidden.dtype == jnp.float32
    for row, sequence in zip(hidden, sequences, strict=True):
        expected = reference.hidden(config, params, sequence)
        assert_close(row[WINDOW - len(sequence) :], expected)


def test_logits_are_float32_and_equal_the_decoder_in_float64(case):
    config, params = case
    sequences = random_sequences([7, 7])
    logits = logits_of(config, params, np.stack(sequences))
    assert logits.dtype == jnp.float32
    assert logits.shape == (2, 7, config.vocab_size)
    for row, sequence in zip(logits, sequences, strict=True):
        assert_close(row, reference.logits(config, params, sequence))


def test_gradients_equal_finite_differences_of_the_decoder_in_float64(case):
    config, params = case
    sequence = random_sequences([6], seed=3)[0]
    weights = np.random.default_rng(0).normal(size=(6, config.width))
    inputs = left_padded([sequence], 6)
    gradients = gradients_of_sum(config, params, weights, *inputs)
    exact = reference.in_float64(params)
    paths = [path for path, _ in jax.tree.leaves_with_path(exact)]
    for place, path in enumerate(paths):
        leaves, tree = jax.tree.flatten(exact)
        direction = np.random.default_rng(place).normal(size=leaves[place].shape)

        def moved(step, leaves=leaves, tree=tree, place=place, direction=direction):
            params = tree.unflatten([*leaves[:place], leaves[place] + step * direction, *leaves[place + 1 :]])
            return np.sum(reference.hidden(config, params, sequence) * weights)

        expected = (moved(1e-6) - moved(-1e-6)) / 2e-6
        actual = np.sum(np.asarray(jax.tree.leaves(gradients)[place], np.float64) * direction)
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4, err_msg=jax.tree_util.keystr(path))


def test_packed_sequences_equal_separate_ones(case):
    config, params = case
    sequences = random_sequences([5, 1, 4], seed=1)
    tokens, positions, segments = (np.zeros((2, WINDOW), np.int32) for _ in range(3))
    start = 0
    for number, sequence in enumerate(sequences, start=1):
        place = slice(start, start + len(sequence))
        tokens[0, place], positions[0, place], segments[0, place] = sequence, np.arange(len(sequence)), number
        start += len(sequence)
    # The same sequences in the other order, one place further right, in the second row.
    order = np.concatenate([np.arange(6, 10), np.arange(5, 6), np.arange(5)])
    for x in (tokens, positions, segments):
        x[1, 1:11] = x[0, order]
    packed = apply(config, params, *map(jnp.asarray, (tokens, positions, segments)))
    expected = np.concatenate([reference.hidden(config, params, sequence) for sequence in sequences])
    assert_close(packed[0, :10], expected)
    assert_close(packed[1, 1:11], expected[order])


def test_what_stands_in_the_padding_changes_no_bit_of_real_tokens(case):
    config, params = case
    sequences = random_sequences(LENGTHS)
    tokens, positions, segments = left_padded(sequences, WINDOW)
    hidden = apply(config, params, tokens, positions, segments)
    other = jnp.where(segments == 0, 7, tokens), jnp.where(segments == 0, 3, positions), segments
    real = np.asarray(segments) == 1
    np.testing.assert_array_equal(np.asarray(apply(config, params, *other))[real], np.asarray(hidden)[real])
    assert np.isfinite(hidden).all()


def shared_prefix():
    """A prompt of 5 tokens and behind it responses of 3, 1 and 4 in one row; and the sequences one by one."""
    prompt, *responses = random_sequences([5, 3, 1, 4], seed=7)
    lengths = [len(response) for response in responses]
    positions = np.concatenate([np.arange(5), *(5 + np.arange(length) for length in lengths)])
    segments = np.repeat([1, 2, 3, 4], [5, *lengths])
    rows = (np.concatenate([prompt, *responses]), positions, segments, np.where(segments > 1, 1, 0))
    return [jnp.asarray(x, jnp.int32)[None] for x in rows], [np.concatenate([prompt, x]) for x in responses]


def test_segments_with_a_parent_equal_separate_sequences(case):
    config, params = case
    (*row, parents), sequences = shared_prefix()
    hidden = jax.jit(lambda params: policy.forward(config, params, *row, parents=parents)[0][0])(params)
    expected = [reference.hidden(config, params, sequence) for sequence in sequences]
    expected = np.concatenate([expected[0][:5], *(x[5:] for x in expected)])
    assert_close(hidden, expected)


def test_parents_with_a_cache_are_refused():
    (*row, parents), _ = shared_prefix()
    params = random_params(TINY)
    cache = Cache(policy.empty_key_values(TINY, params, 1, 13))
    with pytest.raises(ValueError, match="parents are for rows without a cache"):
        policy.forward(TINY, params, *row, cache, parents)


@pytest.mark.parametrize("case", ["llama", "olmo3"], indirect=True)  # one layer like the others, and four kinds
def test_gradients_through_some_queries_at_a_time_are_those_of_all_at_once(case):
    config, params = case
    (*row, parents), _ = shared_prefix()
    chunks, whole = (
        loss_and_gradient(replace(config, attention=attention), params, *row, parents=parents)
        for attention in ("xla", "reference")
    )
    assert_close(chunks, whole)


def test_long_rows_need_far_less_memory_than_all_scores_at_once():
    inputs = [jax.ShapeDtypeStruct((1, 4 * DENSE_LENGTH), jnp.int32)] * 3

    def memory(attention):
        config = replace(TINY, attention=attention)
        loss = lambda params, *inputs: jnp.sum(policy.forward(config, params, *inputs)[0])  # noqa: E731
        lowered = jax.jit(jax.grad(loss)).lower(random_params(config), *inputs)
        return lowered.compile().memory_analysis().temp_size_in_bytes

    assert memory("auto") < memory("reference") / 2


def test_attention_of_another_platform_is_refused_by_name():
    with pytest.raises(ValueError, match="attention 'pallas' runs on TPU and GPU, not on CPU: use 'auto'"):
        logits_of(replace(TINY, attention="pallas"), random_params(TINY), np.ones((1, 3), np.int32))


@pytest.mark.parametrize(("name", "layers"), CACHED)
def test_prefill_and_decoding_token_by_token_equal_the_teacher_forced_forward(name, layers):
    config = CONFIGS[name]
    params = random_params(config)
    sequences = random_sequences([10, 10, 10], seed=4)
    prompt_lengths, prompt_window = [4, 1, 3], 5
    expected = reference.log_softmax(np.asarray(logits_of(config, params, np.stack(sequences)), np.float64))
    run = unstack(params) if layers == "unstacked" else params

    prompts = [sequence[:length] for sequence, length in zip(sequences, prompt_lengths, strict=True)]
    cache = Cache(policy.empty_key_values(config, run, 3, prompt_window + 6))
    hidden, cache = step(config, run, *left_padded(prompts, prompt_window), cache)
    for t in range(6):
        if t:
            positions = np.array(prompt_lengths)[:, None] + t - 1
            tokens = np.stack([s[p] for s, p in zip(sequences, positions, strict=True)])
            hidden, cache = step(config, run, tokens, positions.astype(np.int32), np.ones((3, 1), np.int32), cache)
        actual = head_logprobs(config, run, np.asarray(hidden)[:, -1])
        for row, length in enumerate(prompt_lengths):
            assert_close(actual[row], expected[row, length + t - 1])
    assert int(cache.own.size) == prompt_window + 5


@pytest.mark.parametrize(("name", "layers"), CACHED)
def test_decoding_after_a_prefix_shared_by_a_group_equals_the_teacher_forced_forward(name, layers):
    config = CONFIGS[name]
    params = random_params(config)
    group, window = 3, 6
    prompts = random_sequences([2, 6], seed=5)
    responses = random_sequences([4] * (len(prompts) * group), seed=6)
    run = unstack(params) if layers == "unstacked" else params

    _, filled = step(
        config, run, *left_padded(prompts, window), Cache(policy.empty_key_values(config, run, len(prompts), window))
    )
    own = policy.empty_key_values(config, run, len(responses), 4)
    lengths = np.repeat([len(prompt) for prompt in prompts], group)[:, None]
    for start, stop in [(0, 1), (1, 2), (2, 4)]:  # several tokens at once go, too
        tokens = np.stack(responses)[:, start:stop]
        positions = np.asarray(lengths + np.arange(start, stop), np.int32)
        hidden, cache = step(config, run, tokens, positions, np.ones_like(tokens), Cache(own, filled.own))
        own = cache.own
        actual = head_logprobs(config, run, hidden)
        for i, response in enumerate(responses):
            whole = np.concatenate([prompts[i // group], response])
            expected = reference.log_softmax(reference.logits(config, params, whole))
            first = len(prompts[i // group])
            assert_close(actual[i], expected[first + start : first + stop])


@pytest.mark.parametrize(("name", "layers"), [("qwen3", "unstacked"), ("olmo3", "unstacked")])
def test_prefill_as_in_training_fills_the_cache_as_with_masks(name, layers, monkeypatch):
    config = CONFIGS[name]
    run = policy.unstack(random_params(config)) if layers == "unstacked" else random_params(config)
    *row, mask = left_padded(random_sequences(LENGTHS), WINDOW)
    cache = Cache(policy.empty_key_values(config, run, len(LENGTHS), WINDOW + 1), empty=True)
    later = (
        jnp.ones((len(LENGTHS), 1), jnp.int32),
        jnp.asarray(LENGTHS)[:, None],
        jnp.ones((len(LENGTHS), 1), jnp.int32),
    )

    def states(forward):
        """Those of the prompts, and of one more token, which reads the cache."""
        hidden, filled = forward(config, run, *row, mask, cache)
        return np.asarray(hidden)[np.asarray(mask, bool)], forward(config, run, *later, filled)[0]

    expected = states(step)
    monkeypatch.setattr(layers_module, "DENSE_LENGTH", 0)
    traced_anew = jax.jit(lambda *inputs: policy.forward(config, *inputs))
    assert_close(states(lambda _, *inputs: traced_anew(*inputs)), expected)


def test_keys_in_blocks_hold_what_whole_ones_do(monkeypatch):
    monkeypatch.setattr(model, "KEY_BLOCK", 4)
    config, group = CONFIGS["olmo3"], 2
    params = unstack(random_params(config))
    prompts = random_sequences([2, 6], seed=8)
    _, filled = step(config, params, *left_padded(prompts, 6), Cache(policy.empty_key_values(config, params, 2, 6)))
    tokens = np.stack(random_sequences([6] * 4, seed=9))
    lengths = np.repeat([2, 6], group)[:, None]

    def decode(one_by_one):
        own = policy.empty_key_values(config, params, 4, 6, one_by_one)
        outputs = []
        for t in range(6):
            inputs = tokens[:, t : t + 1], np.asarray(lengths + t, np.int32), np.ones((4, 1), np.int32)
            hidden, cache = step(config, params, *inputs, Cache(own, filled.own))
            own = cache.own
            outputs.append(hidden)
        return own, outputs

    (blocks, actual), (_, expected) = decode(True), decode(False)
    assert blocks.layers[0][0].shape == (4, config.num_kv_heads, 2, config.head_dim, 4)
    assert_close(actual, expected)
    inputs = tokens[:, :2], jnp.asarray(lengths + np.arange(2)), jnp.ones((4, 2), jnp.int32)
    with pytest.raises(ValueError, match="one token at a time, not 2"):
        step(config, params, *inputs, Cache(blocks, filled.own))


def test_unstacked_layers_compute_the_same(case):
    config, params = case
    inputs = left_padded(random_sequences(LENGTHS), WINDOW)
    unstacked = unstack(params)
    assert len(unstacked["layers"]) == config.num_layers
    assert_close(apply(config, unstacked, *inputs), apply(config, params, *inputs))


@pytest.mark.parametrize(("name", "remat"), [("llama", "dots"), ("llama", "full"), ("olmo3", "full")])
def test_rematerialisation_changes_neither_loss_nor_gradient(name, remat):
    base = CONFIGS[name]
    params = random_params(base)
    inputs = left_padded(random_sequences(LENGTHS), WINDOW)
    rematerialised = loss_and_gradient(replace(base, remat=remat), params, *inputs)
    assert_close(rematerialised, loss_and_gradient(base, params, *inputs))


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


def test_attention_in_chunks_keeps_no_scores():
    config = replace(TINY, attention="xla")
    inputs = left_padded(random_sequences([300]), 300)
    pullback = jax.eval_shape(
        lambda params: jax.vjp(lambda p: policy.forward(config, p, *inputs)[0], params)[1], random_params(config)
    )
    assert max(x.size for x in jax.tree.leaves(pullback)) < 300 * 300


def test_bfloat16_compute_gives_float32_logits_near_those_of_float32():
    config = replace(TINY, qk_norm="head", qkv_bias=True)
    low = replace(config, dtype="bfloat16")
    params = random_params(config)
    tokens = jnp.asarray(np.stack(random_sequences([WINDOW] * 4)))
    exact, rounded = logits_of(config, params, tokens), logits_of(low, params, tokens)
    assert rounded.dtype == jnp.float32
    exact, rounded = np.asarray(exact), np.asarray(rounded)
    assert np.max(np.abs(rounded - exact)) > 0  # it did compute in another precision
    np.testing.assert_allclose(rounded, exact, atol=0.05 * np.max(np.abs(exact)), rtol=0)
    hidden, cache = step(
        low, params, tokens, *left_padded(tokens, WINDOW)[1:], Cache(policy.empty_key_values(low, params, 4, WINDOW))
    )
    assert hidden.dtype == jnp.bfloat16
    assert {x.dtype for x in jax.tree.leaves(cache.own.layers)} == {jnp.dtype("bfloat16")}


def test_gradients_have_the_parameters_dtype_whatever_the_compute_dtype():
    config = replace(TINY, dtype="bfloat16")
    inputs = left_padded(random_sequences([5]), 5)
    loss = lambda p: jnp.sum(policy.forward(config, p, *inputs)[0].astype(jnp.float32))  # noqa: E731
    gradients = jax.eval_shape(jax.grad(loss), random_params(config))
    assert {x.dtype for x in jax.tree.leaves(gradients)} == {jnp.dtype("float32")}
