"""Log-probs of a batch's actions under a policy, and the computed columns of a batch."""

from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jaxtyping import Array, Float

from rlvr_jax import policy
from rlvr_jax.learner.batch import Batch
from rlvr_jax.policy import Params, PolicyConfig

Scorer = Callable[[Batch], Float[Array | np.ndarray, "batch action"]]


def score(
    config: PolicyConfig, params: Params, batch: Batch, temperature: float
) -> tuple[Float[Array, "batch action"], Float[Array, "batch action"]]:
    """Log-probability of each action and entropy of its distribution, at the policy's temperature (nats)."""
    hidden = hidden_states(config, params, batch)
    actions = batch.tokens[:, -batch.action_mask.shape[1] :]
    return policy.logprobs_and_entropy(config, params, hidden, actions, temperature)


def hidden_states(config: PolicyConfig, params: Params, batch: Batch) -> Float[Array, "batch action width"]:
    """The hidden state that predicts each action."""
    hidden = token_states(config, params, batch)
    return jax.vmap(lambda row, columns: row.at[columns].get(mode="promise_in_bounds"))(hidden, batch.predictors)


def token_states(config: PolicyConfig, params: Params, batch: Batch) -> Float[Array, "batch time width"]:
    """The hidden state of each token."""
    ids = batch.tokens, batch.positions, batch.segment_ids
    return policy.forward(config, params, *ids, parents=batch.parents, branches=batch.branches)[0]


def fill(names: Sequence[str], batch: Batch, scorers: Mapping[str, Scorer]) -> Batch:
    """The batch with these columns, those it lacks computed.

    Args:
      names: of the columns.
      batch: of all samples of a step, before any update.
      scorers: name of a column -> the function that computes it, called only if needed.

    Raises:
      ValueError: a column is neither in the batch nor has a scorer.
    """
    missing = [name for name in names if name not in batch.columns]
    if unknown := [name for name in missing if name not in scorers]:
        raise ValueError(
            f"the columns {', '.join(unknown)} are needed; the batch has {', '.join(batch.columns) or 'none'}, and "
            f"there are scorers of {', '.join(scorers) or 'none'}"
        )
    return batch.with_columns(**{name: scorers[name](batch) for name in missing})
