"""The policy: tokens in, hidden states, log-probabilities and caches out."""

from rlvr_jax.policy.config import LoraConfig, PolicyConfig, RopeScaling
from rlvr_jax.policy.export import save_pretrained
from rlvr_jax.policy.families import with_shape_of
from rlvr_jax.policy.head import head_logits, logits, logprobs_and_entropy
from rlvr_jax.policy.lora import (
    axes_with_adapters,
    base,
    init_adapters,
    init_with_adapters,
    merged,
    trainable,
    with_trainable,
)
from rlvr_jax.policy.model import (
    ADAPTERS,
    Cache,
    KeyValues,
    Params,
    empty_key_values,
    forward,
    init,
    logical_axes,
    unstack,
)
from rlvr_jax.policy.pretrained import load_params, load_pretrained, pretrained_config
from rlvr_jax.policy.source import companion_files, find_checkpoint

__all__ = [
    "ADAPTERS",
    "Cache",
    "KeyValues",
    "LoraConfig",
    "Params",
    "PolicyConfig",
    "RopeScaling",
    "axes_with_adapters",
    "base",
    "companion_files",
    "empty_key_values",
    "find_checkpoint",
    "forward",
    "head_logits",
    "init",
    "init_adapters",
    "init_with_adapters",
    "load_params",
    "load_pretrained",
    "logical_axes",
    "logits",
    "logprobs_and_entropy",
    "merged",
    "pretrained_config",
    "save_pretrained",
    "trainable",
    "unstack",
    "with_shape_of",
    "with_trainable",
]
