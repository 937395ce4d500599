"""The critic's parameters, those of a policy with one number instead of logits, and that number."""

from functools import partial

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Key

from rlvr_jax.policy.config import PolicyConfig
from rlvr_jax.policy.lora import base
from rlvr_jax.policy.model import Params, init, logical_axes, shapes

VALUE = "value"  # the key of the head


def with_value_head(config: PolicyConfig, params: Params) -> Params:
    """A critic with a policy's decoder and a fresh head: it starts with values of 0. Nothing is copied."""
    decoder = {name: x for name, x in base(params).items() if name != "head"}
    return decoder | {VALUE: jnp.zeros(config.width, config.param_dtype)}


@partial(jax.jit, static_argnames="config")
def init_critic(config: PolicyConfig, key: Key[Array, ""]) -> Params:
    """A critic with a random decoder."""
    return with_value_head(config, init(config, key))


def critic_shapes(config: PolicyConfig) -> Params:
    """Shape and dtype of a critic's parameters."""
    return jax.eval_shape(partial(with_value_head, config), shapes(config))


def critic_axes(config: PolicyConfig) -> Params:
    """`logical_axes` of a critic's parameters."""
    axes = {name: x for name, x in logical_axes(config).items() if name != "head"}
    return axes | {VALUE: PartitionSpec("embed")}


def values(config: PolicyConfig, params: Params, hidden: Float[Array, "*n width"]) -> Float[Array, "*n"]:
    """The value of each state from its final hidden state, in float32."""
    weights = params[VALUE].astype(config.dtype)
    return jnp.einsum("...w,w->...", hidden, weights, preferred_element_type=jnp.float32)
