"""Slots and rows: appending, moving and resizing leave a sequence's tokens what they are."""

import functools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax import policy
from rlvr_jax.policy import layers
from rlvr_jax.rollout import slots as device
from rlvr_jax.rollout.layout import prepare
from rlvr_jax.rollout.requests import Request, draws_of
from rlvr_jax.rollout.sampling import SamplingConfig
from rlvr_jax.rollout.slots import Tail
from tests.close import assert_close
from tests.policy import reference
from tests.policy.reference import TINY, random_params, random_sequences

CONFIG = replace(TINY, vocab_size=13, num_layers=1, qk_norm="head")  # the sampler unrolls its layers
SAMPLING = SamplingConfig(prompt_length=7, max_response_length=40, slots=4, chunk=5)
WIDTH, PIECE = 24, 2
KEY = jax.random.key(7)
PROMPTS = random_sequences([7, 1, 5], CONFIG.vocab_size)

append = jax.jit(functools.partial(device.append, CONFIG))
put, take, pick = jax.jit(device.put), jax.jit(device.take), jax.jit(device.pick)
resize = jax.jit(device.resize, static_argnums=1)
decode = jax.jit(functools.partial(device.decode, CONFIG, SAMPLING))


@functools.cache
def params():
    return prepare(CONFIG, random_params(CONFIG))


def extended(rows, sequences, piece=PIECE):
    """The rows with one sequence more behind each, in pieces."""
    for start in range(0, max(map(len, sequences)), piece):
        parts = [sequence[start : start + piece] for sequence in sequences]
        tokens = np.stack([np.pad(part, (0, piece - len(part)), constant_values=3) for part in parts])
        rows = append(
            params(), rows, jnp.asarray(tokens, jnp.int32), jnp.asarray([len(part) for part in parts], jnp.int32)
        )
    return rows


def rows_of(sequences, piece=PIECE):
    return extended(device.empty_rows(CONFIG, params(), len(sequences), WIDTH), sequences, piece)


def started(slots, sequences, target, sample, drawn=0, budget=40):
    """The slots with these sequences in them."""
    rows = rows_of([sequence[:-1] for sequence in sequences])
    return put_all(slots, rows, [sequence[-1] for sequence in sequences], target, sample, drawn, budget)


def tail_of(last, sample, drawn, budget):
    """Budgets count the tokens of earlier turns, too."""
    columns = (np.broadcast_to(x, len(sample)).tolist() for x in (sample, drawn, budget))
    keys = jax.random.key_data(jax.vmap(jax.random.fold_in, (None, 0))(KEY, np.asarray(sample)))
    requests = [
        Request(i, key, drawn=drawn, budget=budget - drawn)
        for key, (i, drawn, budget) in zip(np.asarray(keys), zip(*columns, strict=True), strict=True)
    ]
    return Tail(np.asarray(last, np.int32), draws_of(requests, 1))


def put_all(slots, rows, last, target, sample, drawn=0, budget=40):
    n = len(target)
    array = lambda x: jnp.asarray(x, jnp.int32)  # noqa: E731
    source = jnp.arange(n, dtype=jnp.int32)
    return put(slots, rows, jnp.int32(n), source, array(target), tail_of(last, sample, drawn, budget))


def taken(slots, indices):
    """The sequences in these slots as rows."""
    rows, n = device.empty_rows(CONFIG, params(), len(indices), WIDTH), len(indices)
    return take(slots, rows, jnp.int32(n), jnp.asarray(indices), jnp.arange(n))


def empty(width=WIDTH):
    zeros = [0] * SAMPLING.slots
    return device.empty_slots(CONFIG, params(), width, tail_of(zeros, zeros, 0, 1))


def decoded(slots, chunks):
    """The slots after some chunks, and the tokens and log-probs that each slot has drawn."""
    parts = []
    for _ in range(chunks):
        slots, emitted = decode(params(), slots)
        parts.append(jax.device_get(emitted))
    drawn = [
        [np.concatenate([getattr(part, name)[i, : part.count[i]] for part in parts]) for i in range(SAMPLING.slots)]
        for name in ("tokens", "logprobs")
    ]
    return slots, *drawn


def tokens_and_keys(rows, row):
    """What a row holds: positions, and keys and values of all layers, of its real tokens only."""
    real = np.asarray(rows.segment_ids[row]) != 0
    pairs = [(k[row][:, :, real], v[row][:, real].swapaxes(1, 2)) for k, v in jax.device_get(rows.layers)]
    return np.asarray(rows.positions[row])[real], np.array(pairs)


def assert_same_row(actual, i, expected, j):
    for x, y in zip(tokens_and_keys(actual, i), tokens_and_keys(expected, j), strict=True):
        assert_close(x, y, terms=2.0)


def reference_logprobs(prompt, tokens):
    """Log-probs of tokens that follow a prompt, in float64."""
    whole = np.concatenate([prompt, tokens])
    logprobs = reference.log_softmax(reference.logits(CONFIG, random_params(CONFIG), whole[:-1]))
    return logprobs[np.arange(len(prompt) - 1, len(whole) - 1), tokens]


@pytest.fixture(scope="module")
def plain():
    """Three sequences that start together in slots 2, 0 and 3, and what they draw in three chunks."""
    slots = started(empty(), PROMPTS, [2, 0, 3], [10, 11, 12])
    _, tokens, logprobs = decoded(slots, 3)
    return tokens, logprobs


# Rows


def test_a_prompt_computed_in_pieces_makes_the_same_row():
    whole, pieces = rows_of(PROMPTS, piece=7), rows_of(PROMPTS, piece=2)
    for i in range(len(PROMPTS)):
        assert_same_row(pieces, i, whole, i)


def test_a_first_piece_computed_as_in_training_makes_the_same_row(monkeypatch):
    expected = rows_of(PROMPTS, piece=7)
    monkeypatch.setattr(layers, "DENSE_LENGTH", 0)
    monkeypatch.setattr(f"{__name__}.append", jax.jit(functools.partial(device.append, CONFIG, first=True)))
    rows = rows_of(PROMPTS, piece=7)
    for i in range(len(PROMPTS)):
        assert_same_row(rows, i, expected, i)


def test_a_row_ends_with_its_newest_token_and_is_empty_before_its_first():
    rows = rows_of(PROMPTS)
    for row, prompt in enumerate(PROMPTS):
        np.testing.assert_array_equal(rows.segment_ids[row], [0] * (WIDTH - len(prompt)) + [1] * len(prompt))
        np.testing.assert_array_equal(rows.positions[row, WIDTH - len(prompt) :], np.arange(len(prompt)))


# Decoding


def test_logprobs_equal_those_of_the_decoder_in_float64(plain):
    tokens, logprobs = plain
    for slot, prompt in zip([2, 0, 3], PROMPTS, strict=True):
        assert len(tokens[slot]) == 15
        assert_close(logprobs[slot], reference_logprobs(prompt, tokens[slot]), terms=2.0)


def test_a_slot_without_a_sequence_draws_nothing(plain):
    assert [len(tokens) for tokens in plain[0]] == [15, 0, 15, 15]
    slots, emitted = decode(params(), empty())
    assert int(emitted.steps) == 0
    assert not np.asarray(slots.active).any()


def test_a_sequence_started_later_in_another_slot_draws_the_same(plain):
    slots = started(empty(), PROMPTS[:1], [1], [10])
    slots, *_ = decoded(slots, 1)
    slots = started(slots, PROMPTS[1:], [3, 0], [11, 12])
    slots, tokens, logprobs = decoded(slots, 3)
    for slot, before in ((3, 0), (0, 3)):
        np.testing.assert_array_equal(tokens[slot], plain[0][before])
        assert_close(logprobs[slot], plain[1][before], terms=2.0)
    np.testing.assert_array_equal(tokens[1][:10], plain[0][2][5:])


def test_a_slot_keeps_nothing_of_the_sequence_before(plain):
    slots = started(empty(), PROMPTS, [0, 1, 2], [5, 6, 7], budget=[2, 9, 40])
    slots, *_ = decoded(slots, 2)  # the first two have ended
    np.testing.assert_array_equal(slots.active, [False, False, True, False])
    slots = started(slots, PROMPTS[:2], [1, 0], [10, 11])
    _, tokens, logprobs = decoded(slots, 3)
    for slot, before in ((1, 2), (0, 0)):
        np.testing.assert_array_equal(tokens[slot], plain[0][before])
        assert_close(logprobs[slot], plain[1][before], terms=2.0)


def test_a_ring_may_go_round_and_round_with_sequences_that_fit_in_it():
    slots = empty()
    for turn in range(6):  # 60 steps in 24 columns
        prompts = random_sequences([5, 7, 2], CONFIG.vocab_size, seed=turn)
        slots = started(slots, prompts, [0, 1, 2], [0, 1, 2], budget=10)
        slots, tokens, logprobs = decoded(slots, 2)
        for slot, prompt in enumerate(prompts):
            assert len(tokens[slot]) == 10
            assert_close(logprobs[slot], reference_logprobs(prompt, tokens[slot]), terms=2.0)


def test_a_ring_of_another_width_changes_no_token(plain):
    slots = started(empty(), PROMPTS, [2, 0, 3], [10, 11, 12])
    drawn = []
    for width in (17, 17, WIDTH):  # each has room for the longest sequence and a chunk
        slots, tokens, _ = decoded(resize(slots, width), 1)
        drawn.append(tokens)
    for slot in range(SAMPLING.slots):
        np.testing.assert_array_equal(np.concatenate([tokens[slot] for tokens in drawn]), plain[0][slot])


def test_decoding_changes_the_cache_in_place():
    slots = started(empty(), PROMPTS, [2, 0, 3], [10, 11, 12])
    donating = jax.jit(functools.partial(device.decode, CONFIG, SAMPLING), donate_argnums=1)
    pointers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(slots.cache.layers)]
    after, _ = donating(params(), slots)
    assert [x.unsafe_buffer_pointer() for x in jax.tree.leaves(after.cache.layers)] == pointers


# What follows a turn


def test_a_sequence_taken_out_of_its_slot_is_the_row_of_its_tokens():
    slots = started(empty(), PROMPTS, [2, 0, 3], [10, 11, 12], budget=[3, 7, 40])
    slots, tokens, _ = decoded(slots, 2)  # the first ended seven steps ago, the second three
    rows = taken(slots, [2, 0, 3])
    whole = [np.concatenate([p, tokens[slot][:-1]]) for p, slot in zip(PROMPTS, [2, 0, 3], strict=True)]
    expected = rows_of(whole)
    for i in range(3):
        assert_same_row(rows, i, expected, i)
        assert int(rows.segment_ids[i, -1]) == 1
    picked = pick(rows, jnp.array([1, -1, 0]))
    assert_same_row(picked, 0, rows, 1)
    assert_same_row(picked, 2, rows, 0)
    assert not np.asarray(picked.segment_ids[1]).any()


def test_only_as_many_sequences_are_taken_as_there_are_and_into_their_rows():
    slots, _, _ = decoded(started(empty(), PROMPTS, [2, 0, 3], [10, 11, 12], budget=[3, 7, 40]), 2)
    rows = rows_of(PROMPTS)
    mixed = take(slots, rows, jnp.int32(1), jnp.array([0, 3, 3]), jnp.array([1, 0, 2]))
    assert_same_row(mixed, 1, taken(slots, [0]), 0)
    for i in (0, 2):
        assert_same_row(mixed, i, rows, i)


@pytest.mark.parametrize("observation", [1, 2, 6])
def test_tokens_appended_behind_a_turn_are_read_like_a_prompt(observation):
    slots = started(empty(), PROMPTS, [2, 0, 3], [10, 11, 12], budget=[3, 4, 40])
    slots, turns, _ = decoded(slots, 1)
    seen = random_sequences([observation] * 2, CONFIG.vocab_size, seed=5)
    # Slot 2's turn and slot 0's have ended. Theirs go on in each other's slot, behind what they have observed.
    rows = taken(slots, [2, 0])
    rows = extended(rows, [np.r_[turns[slot][-1], seen[i][:-1]] for i, slot in enumerate((2, 0))])
    resumed = put_all(slots, rows, [x[-1] for x in seen], [0, 2], [10, 11], drawn=[3, 4])
    _, tokens, logprobs = decoded(resumed, 1)

    prompts = [np.concatenate([PROMPTS[i], turns[slot], seen[i]]) for i, slot in enumerate((2, 0))]
    once = started(empty(), prompts, [1, 2], [10, 11], drawn=[3, 4])
    _, tokens_at_once, logprobs_at_once = decoded(once, 1)
    for slot, other, prompt in zip([0, 2], [1, 2], prompts, strict=True):
        np.testing.assert_array_equal(tokens[slot], tokens_at_once[other])
        assert_close(logprobs[slot], logprobs_at_once[other], terms=2.0)
        assert_close(logprobs[slot], reference_logprobs(prompt, tokens[slot]), terms=2.0)


# Weights


def test_prepared_weights_give_the_bits_of_the_trainers_in_bfloat16():
    config = replace(CONFIG, num_layers=2, dtype="bfloat16", tie_embeddings=False, norm_placement="post")
    stacked = random_params(config)
    ready = prepare(config, stacked)
    assert {x.dtype for x in jax.tree.leaves(ready["layers"])} == {jnp.dtype("bfloat16")}
    tokens = jnp.asarray(PROMPTS[0])[None]
    logits = jax.jit(functools.partial(policy.logits, config))
    np.testing.assert_array_equal(logits(ready, tokens), logits(jax.jit(policy.unstack)(stacked), tokens))
