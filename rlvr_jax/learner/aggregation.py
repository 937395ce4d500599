"""Aggregation: functions (config, batch, budget) -> the weight of each token's loss, and the sum's divisor.

The loss of an update is the weighted sum over its actions by the sum of the divisors of its microbatches, so results do
not depend on microbatches or devices. Weights None are 1. m is the mask of actions, n_i the actions of sample i, B the
samples of the update: all of them, also those without actions (unjudged, or masked as overlong), so that no sample
changes the weight of another. Samples that `keep` leaves out are in neither.
"""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.batch import Batch
from rlvr_jax.learner.ratios import sample_sums

Actions = Float[Array, "batch action"]
Number = Float[Array, ""]
Weights = tuple[Actions | None, Number]


def token_mean(_: AlgorithmConfig, batch: Batch, __: int) -> Weights:
    """sum m l / sum m: all tokens of the update have one weight.

    Source: the code of Yu et al. 2025 (DAPO, arXiv:2503.14476), and most libraries under that name; the paper's eq. 12
    is `group_token_mean`.
    """
    return None, jnp.sum(batch.action_mask)


def group_token_mean(_: AlgorithmConfig, batch: Batch, __: int) -> Weights:
    """mean over groups of (sum m l / sum m of the group); groups without actions do not count.

    Source: Yu et al. 2025 (DAPO, arXiv:2503.14476), eq. 8 and 12, whose expectation over prompts is outside.
    """
    weights = jnp.where(batch.action_mask > 0, 1 / jnp.maximum(batch.columns["group_tokens"], 1.0), 0.0)
    return weights, jnp.sum(weights)


def sequence_mean(_: AlgorithmConfig, batch: Batch, __: int) -> Weights:
    """1/B sum_i (sum_t m l / n_i): all samples have one weight, so the tokens of long ones count less.

    The sequences of a sample share its weight equally.

    Source: Shao et al. 2024 (GRPO, arXiv:2402.03300), eq. 3.
    """
    share = jnp.minimum(batch.samples, 1.0)[:, None]  # of a sample, that a row holds; packed rows hold whole ones
    return share / jnp.maximum(sample_sums(batch, batch.action_mask), 1.0), jnp.sum(batch.samples)


def sequence_sum(_: AlgorithmConfig, batch: Batch, __: int) -> Weights:
    """1/B sum_i sum_t m l: the gradient of the expected return (REINFORCE, RLOO)."""
    return None, jnp.sum(batch.samples)


def constant(config: AlgorithmConfig, batch: Batch, budget: int) -> Weights:
    """1/(B C) sum_i sum_t m l, C = `aggregation_tokens`, or the response budget if that is 0.

    Source: Liu et al. 2025 (Dr. GRPO, arXiv:2503.20783), where C is the maximum length of a response, 3,000.
    """
    return None, jnp.sum(batch.samples) * (config.aggregation_tokens or budget)


AGGREGATIONS: Mapping[str, Callable[[AlgorithmConfig, Batch, int], Weights]] = {
    "token_mean": token_mean,
    "group_token_mean": group_token_mean,
    "sequence_mean": sequence_mean,
    "sequence_sum": sequence_sum,
    "constant": constant,
}
NEEDS = {"group_token_mean": ("group_tokens",)}


def group_tokens(batch: Batch, group_rows: int) -> Float[np.ndarray, "batch action"]:
    """At each action the number of actions of its group, in a batch from `in_groups` with so many rows a group."""
    mask = np.asarray(batch.action_mask)
    counts = mask.reshape(-1, group_rows * mask.shape[1]).sum(axis=1).repeat(group_rows)
    return np.where(mask > 0, counts[:, None], 0).astype(np.float32)
