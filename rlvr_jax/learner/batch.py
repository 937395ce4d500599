"""The record that the training step takes: arrays of fixed shape."""

from collections.abc import Sequence
from typing import no_type_check

import jax
import numpy as np
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from rlvr_jax.rollout.trajectory import Trajectory

TokenIds = Sequence[int] | Int[np.ndarray, "_"]


@no_type_check  # as a pytree it may hold shapes or shardings, too
@struct.dataclass
class Batch:
    """A left-padded prompt a row, then a right-padded response, or all responses to it (see `packing.py`).

    `tokens`, `positions`, `segment_ids` and `parents` cover both; the others cover the responses, which are the last
    `response` columns of the row.

    Attributes:
      tokens, positions, segment_ids: see `rlvr_jax.policy.forward`.
      predictors: the column of the token that each action follows, whose hidden state predicts it.
      action_mask: 1 on tokens that are trained on, 0 elsewhere.
      advantages: of each action.
      old_logprobs: of each action under the policy that sampled it (nats).
      reference_logprobs: of each action under the reference policy (nats), or None without one.
      parents: see `rlvr_jax.policy.forward`; None if no segment has one.
      weights: of each action in the loss, see `aggregation.token_weights`; None for a mean over all actions.
    """

    tokens: Int[Array | np.ndarray, "batch time"]
    positions: Int[Array | np.ndarray, "batch time"]
    segment_ids: Int[Array | np.ndarray, "batch time"]
    predictors: Int[Array | np.ndarray, "batch response"]
    action_mask: Float[Array | np.ndarray, "batch response"]
    advantages: Float[Array | np.ndarray, "batch response"]
    old_logprobs: Float[Array | np.ndarray, "batch response"]
    reference_logprobs: Float[Array | np.ndarray, "batch response"] | None = None
    parents: Int[Array | np.ndarray, "batch time"] | None = None
    weights: Float[Array | np.ndarray, "batch response"] | None = None


def layout(
    prompts: Sequence[TokenIds], responses: Sequence[TokenIds], prompt_length: int, response_length: int
) -> Batch:
    """Lays sequences out as rows; the actions are all tokens of the responses.

    Raises:
      ValueError: a prompt or response is longer than its share of the row, or a prompt is empty, which leaves nothing
        to predict the first action from.
    """
    rows, length = len(prompts), prompt_length + response_length
    tokens, segment_ids = np.zeros((rows, length), np.int32), np.zeros((rows, length), np.int32)
    positions = np.zeros((rows, length), np.int32)
    action_mask = np.zeros((rows, response_length), np.float32)
    for row, (prompt, response) in enumerate(zip(prompts, responses, strict=True)):
        if len(prompt) == 0:
            raise ValueError(f"the prompt of row {row} is empty; it needs at least one token")
        if len(prompt) > prompt_length or len(response) > response_length:
            raise ValueError(
                f"a prompt of {len(prompt)} and a response of {len(response)} tokens do not fit into rows of "
                f"{prompt_length} + {response_length}: raise max_prompt_length or max_response_length"
            )
        start, stop = prompt_length - len(prompt), prompt_length + len(response)
        tokens[row, start:prompt_length] = prompt
        tokens[row, prompt_length:stop] = response
        segment_ids[row, start:stop] = 1
        positions[row, start:stop] = np.arange(stop - start)
        action_mask[row, : len(response)] = 1
    zeros = np.zeros_like(action_mask)
    predictors = np.tile(np.arange(prompt_length - 1, length - 1, dtype=np.int32), (rows, 1))
    return Batch(tokens, positions, segment_ids, predictors, action_mask, zeros, zeros)


def make_batch(
    trajectories: Sequence[Trajectory],
    advantages: Float[np.ndarray, "batch"],
    judged: Bool[np.ndarray, "batch"],
    prompt_length: int,
    response_length: int,
) -> Batch:
    """Rows of trajectories, every action with the advantage of its trajectory; those not judged have no actions."""
    prompts, responses = [t.prompt for t in trajectories], [t.tokens for t in trajectories]
    batch = layout(prompts, responses, prompt_length, response_length)
    action_mask, old_logprobs = np.zeros_like(batch.action_mask), np.zeros_like(batch.action_mask)
    for row, trajectory in enumerate(trajectories):
        action_mask[row, : len(trajectory.tokens)] = trajectory.action_mask & judged[row]
        old_logprobs[row, : len(trajectory.tokens)] = trajectory.policy_logprobs
    advantages = advantages.astype(np.float32)[:, None] * action_mask
    return batch.replace(action_mask=action_mask, advantages=advantages, old_logprobs=old_logprobs)


def split(batch: Batch, parts: int) -> list[Batch]:
    """The batch in `parts` batches of consecutive rows.

    Raises:
      ValueError: `parts` does not divide the number of rows.
    """
    rows, rest = divmod(batch.tokens.shape[0], parts)
    if rest:
        raise ValueError(f"a batch of {batch.tokens.shape[0]} rows can't be split into {parts} equal parts")
    return [jax.tree.map(lambda x, i=i: x[i * rows : (i + 1) * rows], batch) for i in range(parts)]
