"""The policy: tokens in, hidden states, log-probabilities and caches out."""

from rlvr_jax.policy.config import PolicyConfig, RopeScaling
from rlvr_jax.policy.head import head_logits, logits, logprobs_and_entropy
from rlvr_jax.policy.model import Cache, KeyValues, Params, empty_key_values, forward, init, logical_axes, unstack

__all__ = [
    "Cache",
    "KeyValues",
    "Params",
    "PolicyConfig",
    "RopeScaling",
    "empty_key_values",
    "forward",
    "head_logits",
    "init",
    "logical_axes",
    "logits",
    "logprobs_and_entropy",
    "unstack",
]
