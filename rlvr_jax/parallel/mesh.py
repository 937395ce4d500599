"""The device mesh and the rules that shard arrays over it."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXES = ("data", "fsdp", "tensor")

# Logical axis of a parameter or activation -> mesh axes. Parameters are gathered over `fsdp` for use and stay
# sharded over `tensor`; batches are sharded over `data` and `fsdp` together.
RULES = (
    ("batch", ("data", "fsdp")),
    ("embed", "fsdp"),
    ("vocab", "tensor"),
    ("heads", "tensor"),
    ("kv", "tensor"),
    ("mlp", "tensor"),
    ("layers", None),
    ("head_dim", None),
    ("length", None),
)
BATCH = PartitionSpec(("data", "fsdp"))


@dataclass(frozen=True)
class MeshConfig:
    """Sizes of the mesh axes; -1 (for at most one) takes all remaining devices."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1


def mesh_shape(config: MeshConfig, num_devices: int) -> tuple[int, int, int]:
    """Sizes of the three axes.

    Raises:
      ValueError: the axes don't multiply to `num_devices`.
    """
    sizes = [config.data, config.fsdp, config.tensor]
    text = ", ".join(f"{name}={size}" for name, size in zip(AXES, sizes, strict=True))
    if any(size == 0 or size < -1 for size in sizes) or sizes.count(-1) > 1:
        raise ValueError(f"mesh ({text}): axes are positive numbers, at most one of them -1 (all remaining devices)")
    if -1 in sizes:
        rest = -int(np.prod(sizes))
        if num_devices % rest:
            raise ValueError(f"mesh ({text}): {rest} does not divide the {num_devices} available devices")
        sizes[sizes.index(-1)] = num_devices // rest
    if np.prod(sizes) != num_devices:
        raise ValueError(f"mesh ({text}) needs {np.prod(sizes)} devices, but {num_devices} are available")
    return tuple(sizes)


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh over `devices` (default: all of them)."""
    devices = jax.devices() if devices is None else devices
    shape = mesh_shape(config, len(devices))
    types = (jax.sharding.AxisType.Auto,) * len(AXES)
    return jax.make_mesh(shape, AXES, axis_types=types, devices=devices)


@contextlib.contextmanager
def use_mesh(mesh: Mesh) -> Iterator[None]:
    """Traces and runs functions on `mesh`, with the activations' logical axes bound by `RULES`."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(RULES):
        yield


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis sharded over `data` and `fsdp`."""
    return NamedSharding(mesh, BATCH)


def param_shardings(mesh: Mesh, logical_axes: Any, shapes: Any) -> Any:
    """Shardings of a pytree of parameters, by `RULES`.

    An axis whose length its mesh axis does not divide (an odd vocabulary, fewer key/value heads than `tensor`) is
    replicated.
    """
    rules = dict(RULES)

    def sharding(axes: PartitionSpec, array: jax.ShapeDtypeStruct) -> NamedSharding:
        names = [rules.get(axis) for axis in axes]
        fits = [name is None or size % mesh.shape[name] == 0 for name, size in zip(names, array.shape, strict=True)]
        return NamedSharding(
            mesh, PartitionSpec(*(name if fit else None for name, fit in zip(names, fits, strict=True)))
        )

    return jax.tree.map(sharding, logical_axes, shapes, is_leaf=lambda x: isinstance(x, PartitionSpec))
