"""From rewards and log-probabilities to advantages and losses."""

from rlvr_jax.algorithms.advantages import advantages_of, group_advantages, zero_signal_groups
from rlvr_jax.algorithms.aggregation import token_weights
from rlvr_jax.algorithms.config import AlgorithmConfig
from rlvr_jax.algorithms.losses import TokenSums, clipped_policy_loss, imitation_loss, kl_divergence

__all__ = [
    "AlgorithmConfig",
    "TokenSums",
    "advantages_of",
    "clipped_policy_loss",
    "group_advantages",
    "imitation_loss",
    "kl_divergence",
    "token_weights",
    "zero_signal_groups",
]
