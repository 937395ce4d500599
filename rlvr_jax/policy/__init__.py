"""The policy: tokens in, hidden states, log-probabilities and caches out."""

from rlvr_jax.policy.config import LoraConfig, PolicyConfig, RopeScaling
from rlvr_jax.policy.divergence import divergence_and_logprobs
from rlvr_jax.policy.head import head_logits, logits, logprobs_and_entropy
from rlvr_jax.policy.lora import (
    axes_with_adapters,
    base,
    init_adapters,
    init_with_adapters,
    merged,
    merged_weight,
    shapes_with_adapters,
    trainable,
    with_trainable,
)
from rlvr_jax.policy.model import (
    ADAPTERS,
    Cache,
    KeyValues,
    Params,
    cache_widths,
    empty_key_values,
    forward,
    init,
    logical_axes,
    shapes,
    unstack,
    widened,
)
from rlvr_jax.policy.value import VALUE, critic_axes, critic_shapes, init_critic, values, with_value_head

__all__ = [
    "ADAPTERS",
    "VALUE",
    "Cache",
    "KeyValues",
    "LoraConfig",
    "Params",
    "PolicyConfig",
    "RopeScaling",
    "axes_with_adapters",
    "base",
    "cache_widths",
    "critic_axes",
    "critic_shapes",
    "divergence_and_logprobs",
    "empty_key_values",
    "forward",
    "head_logits",
    "init",
    "init_adapters",
    "init_critic",
    "init_with_adapters",
    "logical_axes",
    "logits",
    "logprobs_and_entropy",
    "merged",
    "merged_weight",
    "shapes",
    "shapes_with_adapters",
    "trainable",
    "unstack",
    "values",
    "widened",
    "with_trainable",
    "with_value_head",
]
