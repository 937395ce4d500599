"""How ragged prompts and responses become rows."""

import dataclasses

import jax
import numpy as np
import pytest

from rlvr_jax.learner.advantages import Signal
from rlvr_jax.learner.batch import in_groups, layout, make_batch, split
from rlvr_jax.learner.samples import make_samples
from rlvr_jax.rollout.episode import Episode, Group, Span
from rlvr_jax.rollout.episode import Sequence as Window
from rlvr_jax.tasks import Example
from rlvr_jax.verifiers.verdict import Verdict
from tests.episodes import episode

EXAMPLE = Example("made-up/train/0", "?", None, "made-up")
PROMPTS = [[11], [12, 13, 14], [15, 16]]
RESPONSES = [[21, 22], [23], [24, 25, 26, 27]]


def group(*episodes):
    return Group(EXAMPLE, episodes, (Verdict(0.0),) * len(episodes))


def test_prompts_end_and_responses_begin_at_the_same_column_in_every_row():
    batch = layout(PROMPTS, RESPONSES, prompt_length=3, response_length=4)
    np.testing.assert_array_equal(
        batch.tokens,
        [[0, 0, 11, 21, 22, 0, 0], [12, 13, 14, 23, 0, 0, 0], [0, 15, 16, 24, 25, 26, 27]],
    )
    np.testing.assert_array_equal(
        batch.segment_ids,
        [[0, 0, 1, 1, 1, 0, 0], [1, 1, 1, 1, 0, 0, 0], [0, 1, 1, 1, 1, 1, 1]],
    )
    np.testing.assert_array_equal(
        batch.positions,
        [[0, 0, 0, 1, 2, 0, 0], [0, 1, 2, 3, 0, 0, 0], [0, 0, 1, 2, 3, 4, 5]],
    )


def test_the_actions_of_a_layout_are_all_tokens_of_the_responses():
    batch = layout(PROMPTS, RESPONSES, prompt_length=3, response_length=4)
    np.testing.assert_array_equal(batch.action_mask, [[1, 1, 0, 0], [1, 0, 0, 0], [1, 1, 1, 1]])
    np.testing.assert_array_equal(batch.samples, [1, 1, 1])
    assert batch.columns == {}


def test_random_ragged_sequences_can_be_read_back_from_their_rows():
    rng = np.random.default_rng(0)
    prompts = [rng.integers(1, 99, rng.integers(1, 8)) for _ in range(40)]
    responses = [rng.integers(1, 99, rng.integers(0, 10)) for _ in range(40)]
    batch = layout(prompts, responses, prompt_length=7, response_length=9)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        real = batch.segment_ids[row] == 1
        np.testing.assert_array_equal(batch.tokens[row][real], [*prompt, *response])
        np.testing.assert_array_equal(batch.positions[row][real], np.arange(real.sum()))
        np.testing.assert_array_equal(batch.tokens[row, 7:][batch.action_mask[row] == 1], response)


@pytest.mark.parametrize(("prompt", "response"), [([1] * 4, [1]), ([1], [1] * 5)])
def test_a_sequence_that_does_not_fit_is_an_error_not_cut(prompt, response):
    with pytest.raises(ValueError, match=r"do not fit into rows of 3 \+ 4: raise max_prompt_length"):
        layout([prompt], [response], prompt_length=3, response_length=4)


def test_an_empty_prompt_is_an_error():
    with pytest.raises(ValueError, match="the prompt of row 1 is empty"):
        layout([[1], []], [[1], [1]], prompt_length=3, response_length=4)


def test_prompts_and_responses_that_do_not_pair_up_are_an_error():
    with pytest.raises(ValueError, match="zip"):
        layout([[1], [2]], [[1]], prompt_length=3, response_length=4)


def of(trained, kept=None):
    """What a step is trained on: every sample is kept, unless it is said otherwise."""
    kept = np.ones(len(trained), bool) if kept is None else np.array(kept, bool)
    samples = make_samples(np.zeros(len(trained)), np.zeros(len(trained), int))
    return Signal(samples, np.array(trained, bool), kept, silent=0.0)


def test_every_action_has_the_policys_logprob_and_observations_have_none():
    rng = np.random.default_rng(0)
    first, second, third = (rng.normal(size=n).astype(np.float32) for n in (2, 1, 1))
    spans = [
        Span("prompt", np.array([12, 13], np.int32)),
        Span("policy", np.array([23], np.int32), second),
        Span("env", np.array([24, 25], np.int32)),
        Span("policy", np.array([26], np.int32), third),
    ]
    episodes = [
        episode([21, 22], prompt=[11], logprobs=first),
        Episode(EXAMPLE, 0, (Window(tuple(spans)),), ("a", "b"), "stop"),
    ]
    batch, of_row = make_batch([group(*episodes)], of([1, 1]), prompt_length=3, response_length=5)
    assert of_row.tolist() == [0, 1]
    np.testing.assert_array_equal(batch.action_mask, [[1, 1, 0, 0, 0], [1, 0, 0, 1, 0]])
    np.testing.assert_array_equal(batch.segment_ids[:, 3:], [[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]])
    assert batch.columns.keys() == {"behaviour"}
    np.testing.assert_array_equal(batch.columns["behaviour"], [[*first, 0, 0, 0], [*second, 0, 0, *third, 0]])
    np.testing.assert_array_equal(batch.tokens[1], [0, 12, 13, 23, 24, 25, 26, 0])


def test_an_episode_that_was_not_judged_has_no_actions():
    episodes = [episode([21, 22], prompt=[11]) for _ in range(3)]
    batch, _ = make_batch([group(*episodes)], of([1, 0, 1]), 2, 3)
    np.testing.assert_array_equal(batch.action_mask, [[1, 1, 0], [0, 0, 0], [1, 1, 0]])
    np.testing.assert_array_equal(batch.samples, [1, 1, 1])


def test_an_episode_that_is_not_kept_has_no_row():
    episodes = [episode([i], prompt=[11]) for i in range(3)]
    batch, of_row = make_batch([group(*episodes[:2]), group(episodes[2])], of([1, 1, 1], kept=[0, 1, 1]), 1, 1)
    assert of_row.tolist() == [1, 2]
    np.testing.assert_array_equal(batch.tokens[:, 1], [1, 2])
    nothing, of_row = make_batch([group(*episodes)], of([1, 1, 1], kept=[0, 0, 0]), 1, 1)
    assert of_row.tolist() == []
    padded = in_groups(nothing, of_row, 1, 3)
    assert (padded.tokens.shape, padded.columns["behaviour"].shape) == ((3, 2), (3, 1))
    assert not padded.samples.any()


def test_every_window_of_an_episode_is_a_row_with_its_number():
    one, two = episode([21], prompt=[11]), episode([22, 23], prompt=[12])
    both = dataclasses.replace(one, sequences=one.sequences + two.sequences)
    batch, of_row = make_batch([group(one), group(both, two)], of([1, 1, 1]), 1, 2)
    assert of_row.tolist() == [0, 1, 1, 2]
    np.testing.assert_array_equal(batch.tokens, [[11, 21, 0], [11, 21, 0], [12, 22, 23], [12, 22, 23]])


def test_arrays_of_a_batch_are_int32_and_float32():
    batch, _ = make_batch([group(episode([2]))], of([1]), prompt_length=2, response_length=2)
    assert {x.dtype for x in (batch.tokens, batch.positions, batch.segment_ids)} == {np.dtype(np.int32)}
    assert {x.dtype for x in (batch.action_mask, batch.samples, *batch.columns.values())} == {np.dtype(np.float32)}


def numbered(rows):
    """A batch of that many rows, whose tokens and one column say which row it is."""
    batch = layout([[i + 1] for i in range(rows)], [[i + 1] for i in range(rows)], prompt_length=1, response_length=1)
    return batch.with_columns(reference=np.arange(rows, dtype=np.float32)[:, None])


def test_split_gives_consecutive_rows_and_loses_none():
    parts = split(numbered(6), 3)
    assert [part.tokens[:, 0].tolist() for part in parts] == [[1, 2], [3, 4], [5, 6]]
    assert [part.columns["reference"][:, 0].tolist() for part in parts] == [[0, 1], [2, 3], [4, 5]]
    assert [part.samples.tolist() for part in parts] == [[1, 1]] * 3


def test_ragged_groups_get_the_shape_of_full_ones_in_the_order_in_which_they_appear():
    batch = in_groups(numbered(6), np.array([9, 2, 9, 5, 2, 9]), count=4, size=3)
    np.testing.assert_array_equal(batch.tokens[:, 0], [1, 3, 6, 2, 5, 0, 4, 0, 0, 0, 0, 0])
    real = batch.tokens[:, 0] > 0
    np.testing.assert_array_equal(batch.samples, real)
    np.testing.assert_array_equal(batch.segment_ids, real[:, None] * [[1, 1]])
    np.testing.assert_array_equal(batch.action_mask[:, 0], real)
    np.testing.assert_array_equal(batch.columns["reference"][:, 0], np.maximum(batch.tokens[:, 0] - 1, 0))


def test_other_arrays_with_an_entry_for_each_row_move_along():
    batch, of_row = in_groups((numbered(3), np.array([7, 8, 9])), np.array([1, 0, 1]), count=2, size=3)
    np.testing.assert_array_equal(batch.tokens[:, 0], [1, 3, 0, 2, 0, 0])
    np.testing.assert_array_equal(of_row, [7, 9, 0, 8, 0, 0])


def test_full_groups_stay_as_they_are_and_no_samples_are_all_padding():
    batch = numbered(6)
    jax.tree.map(np.testing.assert_array_equal, in_groups(batch, np.array([3, 3, 1, 1, 2, 2]), 3, 2), batch)
    nothing = jax.tree.map(lambda x: x[:0], batch)
    empty = in_groups(nothing, np.zeros(0, int), 3, 2)
    assert jax.tree.map(np.shape, empty) == jax.tree.map(np.shape, batch)
    assert not any(x.any() for x in jax.tree.leaves(empty))


@pytest.mark.parametrize(("count", "size"), [(2, 3), (3, 2)])
def test_groups_that_do_not_fit_are_an_error(count, size):
    with pytest.raises(ValueError, match=f"3 groups of up to 3 rows .* {count} groups of {size} rows"):
        in_groups(numbered(6), np.array([9, 2, 9, 5, 2, 9]), count, size)


def test_split_refuses_parts_of_different_size():
    batch = layout([[1]] * 6, [[1]] * 6, prompt_length=1, response_length=1)
    with pytest.raises(ValueError, match="a batch of 6 rows can't be split into 4 equal parts"):
        split(batch, 4)
