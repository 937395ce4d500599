"""The batch of a training step: arrays of fixed shape."""

from collections.abc import Sequence
from typing import TypeVar, no_type_check

import jax
import numpy as np
from flax import struct
from jaxtyping import Array, Float, Int

from rlvr_jax.learner.advantages import Signal
from rlvr_jax.rollout.episode import TRAINED, Group, is_by, logprobs_of, tokens_of

# That a loss may need, see `Batch`; those of the second line are computed by a forward pass.
COLUMNS = ("advantages", "returns", "behaviour", "demonstrated", "group_tokens", "selected", "entropy_coef",
           "proximal", "reference", "uncertain", "values")  # fmt: skip
SCORED = ("reference", "proximal", "uncertain", "values")

_NOTHING = np.zeros(0, np.int32)  # to concatenate without any row

Rows = TypeVar("Rows")
TokenIds = Sequence[int] | Int[np.ndarray, "_"]


@no_type_check  # as a pytree it may hold shapes or shardings, too
@struct.dataclass
class Batch:
    """Each row is a left-padded prompt and a right-padded response, or all its responses (see `packing.py`).

    `tokens`, `positions`, `segment_ids` and `parents` cover the row; arrays of actions cover the responses, its last
    `action` columns.

    Attributes:
      tokens, positions, segment_ids: see `rlvr_jax.policy.forward`.
      predictors: the column of the token that each action follows, whose hidden state predicts it.
      action_mask: 1 on tokens that are trained on, 0 elsewhere.
      samples: responses in each row, including those without actions; 0 for a padding row, and the share of one in the
        rows of a sample with several sequences.
      columns: name -> a number per action, undefined where `action_mask` is 0. The names in use: "advantages";
        log-probs (nats) under the policy that sampled, as reported by the sampler ("behaviour"), the policy before the
        first update of the step ("proximal") and the reference policy ("reference"); the number of actions of the
        group ("group_tokens"); 1 for the tokens that `algorithm.entropy` selects by covariance ("selected") or by
        entropy ("uncertain"); the critic's value of the state before the action, before the first update of the step
        ("values"), and the return that it learns ("returns"); 1 for tokens of demonstrations ("demonstrated"), which
        have no behaviour policy. Of supervised runs: the number of the data source ("source"), and see
        `preferences.Pairs` ("pair_margin", "good", "baseline").
      parents: see `rlvr_jax.policy.forward`; None if no segment has one.
      branches: the columns of a row's prompt and of each response to it, where these have columns of their own.
    """

    tokens: Int[Array | np.ndarray, "batch time"]
    positions: Int[Array | np.ndarray, "batch time"]
    segment_ids: Int[Array | np.ndarray, "batch time"]
    predictors: Int[Array | np.ndarray, "batch action"]
    action_mask: Float[Array | np.ndarray, "batch action"]
    samples: Float[Array | np.ndarray, "batch"]
    columns: dict[str, Float[Array | np.ndarray, "batch action"]] = struct.field(default_factory=dict)
    parents: Int[Array | np.ndarray, "batch time"] | None = None
    branches: tuple[int, int] | None = struct.field(pytree_node=False, default=None)

    def with_columns(self, **columns: Float[Array | np.ndarray, "batch action"]) -> "Batch":
        """The batch with these columns added or replaced."""
        return self.replace(columns=self.columns | columns)


def layout(
    prompts: Sequence[TokenIds], responses: Sequence[TokenIds], prompt_length: int, response_length: int
) -> Batch:
    """Lays sequences out as rows; the actions are all tokens of the responses, and there are no columns.

    Raises:
      ValueError: a prompt or response is longer than its share of the row, or a prompt is empty.
    """
    lengths = ([len(x) for x in parts] for parts in (prompts, responses))
    tokens = np.concatenate([*(x for pair in zip(prompts, responses, strict=True) for x in pair), _NOTHING])
    return _laid_out(*lengths, tokens.astype(np.int32), prompt_length, response_length)


def _laid_out(
    prompts: Sequence[int],
    responses: Sequence[int],
    all_tokens: Int[np.ndarray, "_"],
    prompt_length: int,
    response_length: int,
) -> Batch:
    """`layout` from the lengths of prompts and responses, and the tokens of all rows, one after the other."""
    rows, columns = len(prompts), np.arange(prompt_length + response_length, dtype=np.int32)
    before, after = np.array(prompts, np.int32), np.array(responses, np.int32)
    for row in np.flatnonzero((before == 0) | (before > prompt_length) | (after > response_length)):
        if before[row] == 0:
            raise ValueError(f"the prompt of row {row} is empty; it needs at least one token")
        raise ValueError(
            f"a prompt of {before[row]} and a response of {after[row]} tokens do not fit into rows of "
            f"{prompt_length} + {response_length}: raise max_prompt_length or max_response_length"
        )
    starts, stops = (prompt_length - before)[:, None], (prompt_length + after)[:, None]
    real = (columns >= starts) & (columns < stops)
    tokens = np.zeros(real.shape, np.int32)
    tokens[real] = all_tokens
    positions = np.where(real, columns - starts, 0)
    action_mask = real[:, prompt_length:].astype(np.float32)
    predictors = np.tile(columns[prompt_length:] - 1, (rows, 1))
    return Batch(tokens, positions, real.astype(np.int32), predictors, action_mask, np.ones(rows, np.float32))


def make_batch(
    groups: Sequence[Group],
    signal: Signal,
    prompt_length: int,
    response_length: int,
    steps: Sequence[Float[np.ndarray, "_"]] | None = None,
) -> tuple[Batch, Int[np.ndarray, "batch"]]:
    """A row for each context window of each kept episode that is the policy's, and each row's episode among all.

    The actions are the tokens that the policy sampled or that demonstrate; an episode that is not trained on has none.
    The column is "behaviour"; with demonstrations also "demonstrated"; with sequences that have a reward of their own
    "own_reward", NaN for the others; and "steps" if they are given: for each episode a number for each of its actions.
    """
    episodes = [episode for group in groups for episode in group.episodes]
    trained = [[window for window in episode.sequences if window.is_trained] for episode in episodes]
    rows = [(i, window) for i, found in enumerate(trained) if signal.kept[i] for window in found]
    windows = [window for _, window in rows]
    every = [span for window in windows for span in window.spans]
    prompts = [len(window.spans[0].tokens) for window in windows]
    responses = [sum(len(span.tokens) for span in window.spans[1:]) for window in windows]
    batch = _laid_out(prompts, responses, tokens_of(every), prompt_length, response_length)
    sampled, behaviour = np.zeros_like(batch.action_mask), np.zeros_like(batch.action_mask)
    real = batch.action_mask > 0
    spans = [span for span in every if span.author != "prompt"]
    sampled[real], behaviour[real] = is_by(TRAINED, spans), logprobs_of(spans)
    of_rows = np.array([episode for episode, _ in rows], np.int32)
    shares = (1 / np.array([max(1, len(found)) for found in trained], float))[of_rows].astype(np.float32)
    batch = batch.replace(action_mask=sampled * signal.trained[of_rows, None], samples=shares)
    batch = batch.with_columns(behaviour=behaviour)
    if any(episode.is_demonstration for episode in episodes):
        column = np.zeros_like(sampled)
        column[real] = is_by(("demonstration",), spans)
        batch = batch.with_columns(demonstrated=column)
    if any(window.reward is not None for window in windows):
        own = np.array([np.nan if window.reward is None else window.reward for window in windows], np.float32)
        batch = batch.with_columns(own_reward=np.broadcast_to(own[:, None], sampled.shape))
    if steps is not None:
        column = np.zeros_like(sampled)
        column[sampled > 0] = np.concatenate(
            [*(x for x, kept in zip(steps, signal.kept, strict=True) if kept), _NOTHING]
        )
        batch = batch.with_columns(steps=column)
    return batch, of_rows


def in_groups(rows: Rows, groups: Int[np.ndarray, "batch"], count: int, size: int) -> Rows:
    """The rows of each group padded to `size` consecutive ones, and the batch to `count` groups.

    Ragged or missing groups then have the shapes of `count` full ones, and a group can be packed into one row.

    Args:
      rows: a batch with rows of one sample each; or a pytree of arrays with an entry for each row. Padding is 0.
      groups: the group index of each row; groups are ordered by first appearance.
      count: groups of the result.
      size: rows per group of the result, one for each sequence of its samples.

    Raises:
      ValueError: there are more groups, or a group has more rows.
    """
    _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    place = np.argsort(np.argsort(first))[group]  # of the row's group among all, by first appearance
    sizes = np.bincount(place, minlength=1)
    if len(first) > count or sizes.max() > size:
        raise ValueError(
            f"{len(first)} groups of up to {sizes.max()} rows do not fit into {count} groups of {size} rows"
        )
    within = np.zeros_like(place)
    within[np.argsort(place, kind="stable")] = np.concatenate([np.arange(n) for n in sizes])
    places = place * size + within

    def padded(x: np.ndarray) -> np.ndarray:
        result = np.zeros((count * size, *x.shape[1:]), x.dtype)
        result[places] = x
        return result

    return jax.tree.map(padded, rows)


def split(batch: Batch, parts: int) -> list[Batch]:
    """The batch in `parts` batches of consecutive rows.

    Raises:
      ValueError: `parts` does not divide the number of rows.
    """
    rows, rest = divmod(batch.tokens.shape[0], parts)
    if rest:
        raise ValueError(f"a batch of {batch.tokens.shape[0]} rows can't be split into {parts} equal parts")
    return [jax.tree.map(lambda x, i=i: x[i * rows : (i + 1) * rows], batch) for i in range(parts)]


def concatenated(parts: Sequence[Batch]) -> Batch:
    """The rows of several batches with the same columns, one after the other."""
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)
