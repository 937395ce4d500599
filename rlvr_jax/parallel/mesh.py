"""The device mesh and the rules that shard arrays over it."""

import contextlib
import functools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractDevice, AbstractMesh, Mesh, NamedSharding, PartitionSpec

from rlvr_jax.parallel.chips import memory_of

AXES = ("data", "fsdp", "context", "tensor")

# Logical axis of a parameter or activation -> mesh axes. Parameters are gathered over `fsdp` and `context` for use and
# stay sharded over `tensor`; the rows of a batch are sharded over `data` and `fsdp` together, and each row over
# `context`, except inside attention: there the heads are.
RULES = (
    ("batch", ("data", "fsdp")),
    ("embed", ("fsdp", "context")),
    ("vocab", "tensor"),
    ("heads", "tensor"),
    ("attention_heads", ("tensor", "context")),
    ("kv", "tensor"),
    ("mlp", "tensor"),
    ("layers", None),
    ("head_dim", None),
    ("length", "context"),
)
HOST = "pinned_host"  # the memory of the host that a device reads and writes
BATCH = PartitionSpec(("data", "fsdp"))
AnyMesh = Mesh | AbstractMesh  # the second for shapes only
AnyDevice = jax.Device | AbstractDevice


@dataclass(frozen=True)
class MeshConfig:
    """Sizes of the mesh axes.

    Attributes:
      data, fsdp, tensor: sizes of the axes of training; -1 (for at most one) takes all remaining devices.
      context: number of devices that share a row of training, for long responses (see `parallel.RULES`); it divides
        the heads.
      rollout_tensor: tensor parallelism of sampling, on the same devices: each group of so many has all parameters and
        samples its own part of a batch. 0 takes the smallest at which parameters and KV cache fit into the devices'
        memory (if that is known) and the groups divide the batch.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    context: int = 1
    rollout_tensor: int = 0


def mesh_shape(config: MeshConfig, num_devices: int) -> tuple[int, int, int, int]:
    """Sizes of the axes, in the order of `AXES`.

    Raises:
      ValueError: the axes don't multiply to `num_devices`.
    """
    sizes = [getattr(config, name) for name in AXES]
    text = ", ".join(f"{name}={size}" for name, size in zip(AXES, sizes, strict=True))
    if any(size == 0 or size < -1 for size in sizes) or sizes.count(-1) > 1:
        raise ValueError(f"mesh ({text}): axes are positive numbers, at most one of them -1 (all remaining devices)")
    available = f"{num_devices} {'is' if num_devices == 1 else 'are'} available"
    if -1 in sizes:
        rest = -int(np.prod(sizes))
        if num_devices % rest:
            raise ValueError(f"mesh ({text}) needs a multiple of {rest} devices, and {available}")
        sizes[sizes.index(-1)] = num_devices // rest
    if np.prod(sizes) != num_devices:
        raise ValueError(f"mesh ({text}) needs {np.prod(sizes)} devices, and {available}")
    return tuple(sizes)


def make_mesh(config: MeshConfig, devices: Sequence[AnyDevice] | None = None) -> AnyMesh:
    """The mesh over `devices` (default: all of them); of abstract devices, which are all alike, one for shapes only.

    An axis may take a part of an axis of a TPU's torus (`jax.make_mesh` refuses that on most), and the rest of it
    another one.
    """
    devices = jax.devices() if devices is None else devices
    types = (jax.sharding.AxisType.Auto,) * len(AXES)
    shape = mesh_shape(config, len(devices))
    if isinstance(devices[0], AbstractDevice):
        return AbstractMesh(shape, AXES, axis_types=types, abstract_device=devices[0])
    return Mesh(mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True), AXES, axis_types=types)


def rollout_mesh(devices: Iterable[AnyDevice], tensor: int) -> AnyMesh:
    """The mesh that samples: groups of `tensor` consecutive devices, over which parameters are replicated.

    It keeps the order of the devices, so one compiled function may take arrays from another mesh of the same order.
    """
    devices = list(devices)
    if isinstance(devices[0], AbstractDevice):
        return AbstractMesh((len(devices) // tensor, 1, 1, tensor), AXES, abstract_device=devices[0])
    return Mesh(np.array(devices).reshape(-1, 1, 1, tensor), AXES)


def devices_of(mesh: AnyMesh) -> list[AnyDevice]:
    """The devices of a mesh, in its order."""
    return [*mesh.devices.flat] if isinstance(mesh, Mesh) else [mesh.abstract_device] * mesh.size


@contextlib.contextmanager
def use_mesh(mesh: AnyMesh) -> Iterator[None]:
    """Traces and runs functions on `mesh`, with the activations' logical axes bound by `RULES`."""
    use = jax.set_mesh if isinstance(mesh, Mesh) else jax.sharding.use_abstract_mesh
    with use(mesh), nn.logical_axis_rules(RULES):
        yield


def replicated(mesh: AnyMesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: AnyMesh) -> NamedSharding:
    """The first axis sharded over `data` and `fsdp`."""
    return NamedSharding(mesh, BATCH)


def param_shardings(mesh: AnyMesh, logical_axes: Any, shapes: Any, **rules: str) -> Any:
    """Shardings of a pytree of parameters, by `RULES` with the changes `rules`.

    An axis whose length its mesh axis does not divide (an odd vocabulary, fewer key/value heads than `tensor`) is
    replicated.
    """
    rules = dict(RULES) | rules

    def sharding(axes: PartitionSpec, array: jax.ShapeDtypeStruct) -> NamedSharding:
        names = [rules.get(axis) for axis in axes]
        parts = [math.prod(mesh.shape[axis] for axis in jax.tree.leaves(name)) for name in names]
        fits = [size % count == 0 for count, size in zip(parts, array.shape, strict=True)]
        return NamedSharding(
            mesh, PartitionSpec(*(name if fit else None for name, fit in zip(names, fits, strict=True)))
        )

    return jax.tree.map(sharding, logical_axes, shapes, is_leaf=lambda x: isinstance(x, PartitionSpec))


def bytes_on_device(arrays: Any) -> int:
    """Bytes of one device's parts of a pytree of arrays, or of shapes with shardings; none of those on the host."""
    here = [x for x in jax.tree.leaves(arrays) if x.sharding.memory_kind != HOST]
    return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in here)


def moved_to(memory: str, tree: Any) -> Any:
    """The arrays of a pytree in that kind of memory, `HOST` or "device", sharded as they are."""
    return jax.tree.map(lambda x: jax.device_put(x, x.sharding.with_memory_kind(memory)), tree)


def device_memory(device: AnyDevice) -> int | None:
    """Bytes that arrays on a device may take; None if that is not known, and on CPU, which has the host's memory."""
    return None if device.platform == "cpu" else memory_of(device)


def received_bytes(source: Any, target: Any) -> int:
    """Bytes that a device receives from others when arrays change their shardings; the most of any device.

    Args:
      source, target: pytrees of shapes, alike, with the shardings before and after.
    """
    received: dict[jax.Device, int] = {}
    for x, y in zip(jax.tree.leaves(source), jax.tree.leaves(target), strict=True):
        for device, count in _received(x.sharding, y.sharding, y.shape).items():
            received[device] = received.get(device, 0) + count * y.dtype.itemsize
    return max(received.values())


@functools.lru_cache(maxsize=256)  # the arrays of all layers are alike
def _received(source: jax.sharding.Sharding, target: jax.sharding.Sharding, shape: tuple[int, ...]):
    """Numbers of an array that each device has after a change of sharding and didn't have before."""
    before, counts = source.devices_indices_map(shape), {}
    for device, wanted in target.devices_indices_map(shape).items():
        ranges = [part.indices(size) for part, size in zip(wanted, shape, strict=True)]
        needed = math.prod(stop - start for start, stop, _ in ranges)
        had = 0
        if device in before:
            held = [part.indices(size) for part, size in zip(before[device], shape, strict=True)]
            pairs = zip(ranges, held, strict=True)
            had = math.prod(max(0, min(x[1], y[1]) - max(x[0], y[0])) for x, y in pairs)
        counts[device] = needed - had
    return counts
