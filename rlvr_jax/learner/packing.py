"""Shared-prefix packing: all responses to a prompt in one row, after a single copy of it.

The prompt is a segment, and the parent of each response's segment: a response attends to the prompt and itself, and its
positions continue the prompt's. Hidden states equal those of separate rows, but a prompt is computed once per group,
and its gradient is summed over the responses.

Source: "Prefix Grouper", Liu et al. 2025 (arXiv:2506.05433).
"""

import jax
import numpy as np
from jaxtyping import Float, Int

from rlvr_jax.learner.batch import Batch

_PROMPT = 1  # the segment of a row's prompt; its responses' are the next ones


def pack(batch: Batch, group: int, multiple: int = 0) -> Batch:
    """The same sequences with a row for each prompt: `[prompt | response | response | ... | padding]`.

    Args:
      batch: from `layout` or `in_groups`; every `group` rows have the same prompt, except padding rows after the first.
      group: samples per prompt, padding rows included.
      multiple: the responses' share of the rows is the longest of the batch, rounded up to a multiple of this. 0 for
        `group` responses of full length, a single shape: each has columns of its own, the `branches` of the batch.

    Raises:
      ValueError: rows of a group differ in their prompt.
    """
    batch = jax.tree.map(np.asarray, batch)
    order, length = _order(batch, group, multiple), batch.action_mask.shape[1]
    first = batch.tokens.shape[1] - length
    samples = batch.samples.reshape(-1, group)
    of_group = np.concatenate([batch.tokens[:, :first], batch.segment_ids[:, :first]], axis=1)
    of_group = of_group.reshape(len(order), group, -1)
    differ = np.any((of_group != of_group[:, :1]) & (samples > 0)[..., None], axis=(1, 2))
    if differ.any():
        number = int(np.argmax(differ))
        raise ValueError(
            f"rows {number * group} to {(number + 1) * group - 1} are one group but differ in their prompt"
        )

    gather = lambda x: np.take_along_axis(x.reshape(len(order), -1), order, axis=1)  # noqa: E731
    prompt = lambda x: x[::group, :first]  # noqa: E731
    behind = lambda prompt, x: np.concatenate([prompt, gather(x[:, first:])], axis=1)  # noqa: E731
    sample = np.arange(len(batch.tokens))[:, None] % group
    parents = np.where(batch.segment_ids > 0, np.int32(_PROMPT), 0)
    segments = np.where(batch.segment_ids > 0, np.int32(_PROMPT + 1) + sample.astype(np.int32), 0)
    before = np.arange(first - 1, first + order.shape[1] - 1, dtype=np.int32)
    return Batch(
        tokens=behind(prompt(batch.tokens), batch.tokens),
        positions=behind(prompt(batch.positions), batch.positions),
        segment_ids=behind(prompt(batch.segment_ids) * _PROMPT, segments),
        parents=behind(np.zeros_like(prompt(batch.tokens)), parents),
        # The prompt's last token predicts the first of every response.
        predictors=np.where(order % length == 0, np.int32(first - 1), before),
        action_mask=gather(batch.action_mask),
        samples=samples.sum(axis=1),
        columns={name: gather(x) for name, x in batch.columns.items()},
        branches=None if multiple else (first, length),
    )


def unpack(
    values: Float[np.ndarray, "prompts packed"], batch: Batch, group: int, multiple: int = 0
) -> Float[np.ndarray, "batch response"]:
    """Values of the actions of `pack(batch, group, multiple)` in the layout of `batch`; 0 elsewhere."""
    batch = jax.tree.map(np.asarray, batch)
    rows, length = batch.action_mask.shape
    unpacked = np.zeros((rows // group, group * length), values.dtype)
    np.put_along_axis(unpacked, _order(batch, group, multiple), values, axis=1)
    return np.where(batch.action_mask > 0, unpacked.reshape(rows, length), 0)


def _order(batch: Batch, group: int, multiple: int) -> Int[np.ndarray, "prompts packed"]:
    """Gather indices: for each packed position after the prompt, its source in the concatenated responses."""
    rows, length = batch.action_mask.shape
    if not multiple:
        return np.tile(np.arange(group * length), (rows // group, 1))
    real = batch.segment_ids[:, -length:].reshape(rows // group, group * length) > 0
    longest = max(1, int(real.sum(axis=1).max()))
    return np.argsort(~real, axis=1, kind="stable")[:, : -(-longest // multiple) * multiple]


def savings(prompt: int, response: int, group: int) -> tuple[float, float]:
    """The factors by which packed rows reduce the training step's work: (tokens, scores of attention).

    Time is proportional to tokens for short rows and to scores for very long ones. A causal row of n tokens has n^2 / 2
    scores, a response to a shared prompt prompt * response + response^2 / 2.

    Args:
      prompt, response: tokens of each.
      group: samples per prompt.
    """
    tokens = group * (prompt + response) / (prompt + group * response)
    packed = prompt**2 / 2 + group * (prompt * response + response**2 / 2)
    return tokens, group * (prompt + response) ** 2 / 2 / packed
