"""Low-rank adapters: every adapted product x W becomes x W + (alpha / rank) (x A) B, and only A and B are trained.

Parameters with adapters are those of the base policy and, under the key "adapters", the A and B of all layers. Without
that key the same parameters are the base policy, so a frozen reference policy needs no copy. B starts at 0, so a fresh
adapter changes nothing. Adapters are float32, whatever the type of the base.

Source: Hu et al. 2021 (arXiv:2106.09685), eq. 3.
"""

import math
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Key

from rlvr_jax.policy.config import PolicyConfig, lora_scale
from rlvr_jax.policy.model import ADAPTERS, Params, init, logical_axes, shapes

_ADAPTERS_KEY = 4  # after the streams of `init`
_PARTS = {"attention": ("q", "k", "v", "out"), "mlp": ("gate", "up", "down")}


def _targets(config: PolicyConfig) -> Iterator[tuple[str, str]]:
    """(submodule of a layer, name) of each weight with an adapter."""
    return ((part, name) for part, names in _PARTS.items() for name in names if name in config.lora.targets)


def _split(name: str, axes: tuple) -> tuple[tuple, tuple]:
    """The input axes and the output axes of a weight."""
    contracted = 2 if name == "out" else 1
    return axes[:contracted], axes[contracted:]


def init_with_adapters(config: PolicyConfig, key: Key[Array, ""]) -> Params:
    """Random parameters, with fresh adapters if the config has any."""
    params = init(config, key)
    return params | {ADAPTERS: init_adapters(config, key)} if config.lora.rank else params


def shapes_with_adapters(config: PolicyConfig) -> Params:
    """Shape and dtype of every parameter, in the pytree of `init_with_adapters`."""
    if not config.lora.rank:
        return shapes(config)
    return shapes(config) | {ADAPTERS: jax.eval_shape(partial(init_adapters, config), jax.random.key(0))}


def axes_with_adapters(config: PolicyConfig) -> Params:
    """`logical_axes` of the pytree of `init_with_adapters`."""
    axes = logical_axes(config)
    return axes | {ADAPTERS: adapter_axes(config)} if config.lora.rank else axes


@partial(jax.jit, static_argnames="config")
def init_adapters(config: PolicyConfig, key: Key[Array, ""]) -> Params:
    """Fresh adapters: A uniform with variance 1 / (3 fan-in), as in `peft`, B zero."""
    key = jax.random.fold_in(key, _ADAPTERS_KEY)
    base, adapters = shapes(config)["layers"], {}
    for i, (part, name) in enumerate(_targets(config)):
        layers, *shape = base[part][name].shape
        inner, outer = _split(name, tuple(shape))
        bound = math.prod(inner) ** -0.5
        shape = (layers, *inner, config.lora.rank)
        a = jax.random.uniform(jax.random.fold_in(key, i), shape, jnp.float32, -bound, bound)
        b = jnp.zeros((layers, config.lora.rank, *outer), jnp.float32)
        adapters.setdefault(part, {})[name] = {"a": a, "b": b}
    return adapters


def adapter_axes(config: PolicyConfig) -> Params:
    """The axis names of every adapter, as `logical_axes` for the base."""
    base = logical_axes(config)["layers"]
    axes: dict[str, Any] = {}
    for part, name in _targets(config):
        layers, *own = base[part][name]
        inner, outer = _split(name, tuple(own))
        pair = {"a": PartitionSpec(layers, *inner, None), "b": PartitionSpec(layers, None, *outer)}
        axes.setdefault(part, {})[name] = pair
    return axes


def trainable(params: Params) -> Params:
    """The trained parameters: the adapters, or everything if there are none."""
    return params.get(ADAPTERS, params)


def with_trainable(params: Params, new: Params) -> Params:
    """The parameters with the trained ones replaced."""
    return params | {ADAPTERS: new} if ADAPTERS in params else new


def base(params: Params) -> Params:
    """The parameters with the adapters switched off; nothing is copied."""
    return {name: value for name, value in params.items() if name != ADAPTERS}


def merged(config: PolicyConfig, params: Params) -> Params:
    """Parameters of the same policy without adapters, see `merged_weight`."""
    result = base(params)
    for part, adapters in params.get(ADAPTERS, {}).items():
        weights = dict(result["layers"][part])
        weights |= {name: merged_weight(config, weights[name], pair) for name, pair in adapters.items()}
        result = result | {"layers": result["layers"] | {part: weights}}
    return result


def merged_weight(
    config: PolicyConfig, weight: Float[Array, "layers *shape"], pair: Mapping[str, Float[Array, "layers ..."]]
) -> Float[Array, "layers *shape"]:
    """W + (alpha / rank) A B, added in float32, of the stacked layers of a weight and of its adapters "a" and "b"."""
    count, rank = weight.shape[0], config.lora.rank
    change = jnp.einsum("lir,lro->lio", pair["a"].reshape(count, -1, rank), pair["b"].reshape(count, rank, -1))
    return (weight.astype(jnp.float32) + lora_scale(config) * change.reshape(weight.shape)).astype(weight.dtype)
