"""The layout of sampling: parameters cast, unstacked and moved, with a key/value head for each device.

Sharded over more devices than the policy has key/value heads, each head is on several of them: its projections are
repeated, so that every device has the KV cache of its own queries only.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from rlvr_jax import parallel, policy
from rlvr_jax.parallel import AnyMesh
from rlvr_jax.policy import Params, PolicyConfig
from rlvr_jax.rollout.continuous import ArraysOf, array_shardings

_NO_HEADS = 2  # axes of arrays of an engine, but for keys, values and scales: rows, heads, ...


def decoded(config: PolicyConfig, mesh: AnyMesh) -> PolicyConfig:
    """The architecture that samples on this mesh, with as many key/value heads as its devices share evenly."""
    return replace(config, num_kv_heads=math.lcm(config.num_kv_heads, mesh.shape["tensor"]))


@partial(jax.jit, static_argnums=0)
def prepare(config: PolicyConfig, params: Params) -> Params:
    """A copy of the parameters for decoding: unstacked layers, cast to the compute dtype.

    Decoding reads every weight for every token, so slicing and casting must not be in its loop. `forward` casts the
    same leaves before use, except the last norm.
    """
    cast = jax.tree.map(lambda x: x.astype(config.dtype), {k: v for k, v in params.items() if k != "norm"})
    # jit would pass unchanged arrays through, and the training step donates their memory.
    return jax.tree.map(jnp.copy, policy.unstack(params | cast))


def make_move(config: PolicyConfig, source: Params, mesh: Mesh) -> jax.stages.Wrapped:
    """The jitted function `prepare` from the layout of training to that of sampling.

    Parameters are cast and unstacked where they lie and then moved, so a device receives only what it lacks, in the
    compute dtype; then key/value heads are repeated, see `decoded`.

    Args:
      config: the policy's architecture.
      source: the parameters' shardings, over the devices of `mesh` in their order.
      mesh: that samples.
    """
    leaves, tree = jax.tree.flatten(source)
    return _make_move(config, tuple(leaves), tree, mesh)


@cache  # samplers of the same kind share a compiled function
def _make_move(config: PolicyConfig, source: tuple[Sharding, ...], tree: Any, mesh: Mesh) -> jax.stages.Wrapped:
    stacked = jax.tree.unflatten(tree, source)
    target = jax.tree.map(lambda x: x.sharding, param_shapes(config, mesh))
    axes = _by_layer(config, policy.axes_with_adapters(config), lambda axes: PartitionSpec(*axes[1:]))
    times = decoded(config, mesh).num_kv_heads // config.num_kv_heads
    repeat = lambda axes, x: jnp.repeat(x, times, axes.index("kv")) if "kv" in axes and times > 1 else x  # noqa: E731
    steps = []
    if isinstance(source[0], NamedSharding):  # else a single device
        before, tensor = source[0].mesh.shape, mesh.shape["tensor"]
        steps = [_unstacked(config, stacked)]
        if before["fsdp"] * before["context"] > 1 and before["tensor"] == 1 and tensor > 1:
            # First over all devices along two axes, and then gathered along one: in a single step XLA's partitioner
            # would gather whole arrays on every device.
            steps.append(_unstacked(config, _stacked(config, mesh, embed="data")[1]))

    def move(params: Params) -> Params:
        ready = prepare(config, params)
        for shardings in steps:
            ready = jax.lax.with_sharding_constraint(ready, shardings)
        return jax.tree.map(repeat, axes, ready, is_leaf=lambda x: isinstance(x, PartitionSpec))

    return jax.jit(move, in_shardings=(stacked,), out_shardings=target)


def param_shapes(config: PolicyConfig, mesh: Mesh) -> Params:
    """Shapes, dtypes and shardings of the sampler's parameters, the result of `make_move`."""
    stacked, shardings = _stacked(decoded(config, mesh), mesh)
    shapes = jax.eval_shape(partial(prepare, config), stacked)
    return jax.tree.map(_with_sharding, shapes, _unstacked(config, shardings))


def shardings_of(config: PolicyConfig, mesh: Mesh) -> Params:
    """The shardings on this mesh of parameters as they are trained."""
    return _stacked(config, mesh)[1]


def _stacked(config: PolicyConfig, mesh: Mesh, **rules: str) -> tuple[Params, Params]:
    """Shapes and shardings of the parameters before `prepare`; `rules` as of `parallel.param_shardings`."""
    shapes = policy.shapes_with_adapters(config)
    return shapes, parallel.param_shardings(mesh, policy.axes_with_adapters(config), shapes, **rules)


def _unstacked(config: PolicyConfig, shardings: Params) -> Params:
    """The shardings of the pytree of `policy.unstack`."""

    def of_layer(sharding: Sharding) -> Sharding:
        if not isinstance(sharding, NamedSharding):
            return sharding
        return NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:]))

    return _by_layer(config, shardings, of_layer)


def _by_layer(config: PolicyConfig, tree: Params, of_layer: Callable[[Any], Any]) -> Params:
    """The tree with a copy of the leaves of the stacked layers for each layer, as in the pytree of `policy.unstack`."""
    stacked = [name for name in ("layers", policy.ADAPTERS) if name in tree]
    of = partial(jax.tree.map, of_layer, is_leaf=lambda x: isinstance(x, PartitionSpec))
    return tree | {name: (of(tree[name]),) * config.num_layers for name in stacked}


def received(config: PolicyConfig, given: Params, params: Params) -> int:
    """Bytes that a device received from others, the most of any, for the sampler's parameters.

    Args:
      config: the policy's architecture.
      given: the shardings that the parameters had before.
      params: the result of `make_move`.
    """
    return parallel.received_bytes(jax.tree.map(_with_sharding, params, _unstacked(config, given)), params)


def narrowed(config: PolicyConfig, mesh: Mesh, arrays: Sequence[jax.Array]) -> list[jax.Array]:
    """The arrays of an engine with the key/value heads of the policy, for a checkpoint that other layouts can read."""
    times = decoded(config, mesh).num_kv_heads // config.num_kv_heads
    return [x[:, ::times] if x.ndim > _NO_HEADS and times > 1 else x for x in arrays]


def widened(
    config: PolicyConfig, mesh: Mesh, shapes: Sequence[jax.ShapeDtypeStruct], arrays_of: ArraysOf
) -> Sequence[jax.Array]:
    """The arrays of these shapes, from those of `narrowed`; `arrays_of` gets their shapes."""
    times = decoded(config, mesh).num_kv_heads // config.num_kv_heads
    if times == 1:
        return arrays_of(shapes)

    def narrow(x: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        sizes = (x.shape[0], config.num_kv_heads, *x.shape[2:]) if x.ndim > _NO_HEADS else x.shape
        shape = jax.ShapeDtypeStruct(sizes, x.dtype)
        return _with_sharding(shape, array_shardings(config, mesh, shape))

    def wide(x: jax.Array, shape: jax.ShapeDtypeStruct) -> jax.Array:
        return jax.device_put(jnp.repeat(x, times, 1), shape.sharding) if x.ndim > _NO_HEADS else x

    return [wide(x, shape) for x, shape in zip(arrays_of([*map(narrow, shapes)]), shapes, strict=True)]


def _with_sharding(x: jax.Array | jax.ShapeDtypeStruct, sharding: Sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
