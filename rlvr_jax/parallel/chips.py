"""Published numbers of accelerators: peak FLOP/s, memory and bandwidths, per device as JAX counts them."""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax

GIB = 2**30
_CGROUP = Path("/sys/fs/cgroup/memory.max")  # of a container


@dataclass(frozen=True)
class Chip:
    """One device.

    Attributes:
      name: in this project, as in `--topology=v5e:4x4`.
      kind: beginning of `jax.Device.device_kind`.
      flops: peak FLOP/s of bfloat16 products.
      memory: bytes that programs may use: on TPU those that the compiler allots, a little less than the chip has.
      bandwidth: of the memory, in bytes/s.
      link: bytes/s of one link in one direction.
      host: bytes/s from or to the host's memory: of GPUs that of their PCIe generation in one direction, of TPUs, where
        it is not published, an assumption (https://jax-ml.github.io/scaling-book/tpus).
      dimensions: of the torus of links, two links for each; 0 for a switch, to which a device has one link.
      attention: the largest share of `flops` that our training attention can reach at head size 128, by the static
        profile in docs/performance.md.
      per_chip: devices of one chip.
      source: of the published numbers.
    """

    name: str
    kind: str
    flops: float
    memory: int
    bandwidth: float
    link: float
    host: float
    dimensions: int
    attention: float = 1.0
    per_chip: int = 1
    source: str = ""


def _cloud(page: str) -> str:
    return f"https://docs.cloud.google.com/tpu/docs/{page}"


# Memory: the TPU compiler's own limit (libtpu 0.0.42); GPUs: the published size. Links: ICI is published per chip, both
# directions of all links together, so 400 GB/s over 4 links is 50 GB/s; for GPUs, NVLink's bandwidth in one direction.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip("v5e", "TPU v5 lite", 197e12, int(15.75 * GIB), 819e9, 50e9, 16e9, 2, source=_cloud("v5e")),
        Chip("v5p", "TPU v5", 459e12, int(95.74 * GIB), 2765e9, 100e9, 16e9, 3, source=_cloud("v5p")),
        Chip("v6e", "TPU v6 lite", 918e12, int(31.25 * GIB), 1638e9, 100e9, 16e9, 2, 0.39, source=_cloud("v6e")),
        Chip("tpu7x", "TPU7x", 1153.5e12, int(94.75 * GIB), 3690e9, 50e9, 16e9, 3, 0.38, 2, source=_cloud("tpu7x")),
        Chip("a100", "NVIDIA A100", 312e12, 80 * 10**9, 2039e9, 300e9, 32e9, 0, source="https://www.nvidia.com/en-us/data-center/a100/"),
        Chip("h100", "NVIDIA H100", 989e12, 80 * 10**9, 3350e9, 450e9, 64e9, 0, source="https://www.nvidia.com/en-us/data-center/h100/"),
        Chip("h200", "NVIDIA H200", 989e12, 141 * 10**9, 4800e9, 450e9, 64e9, 0, source="https://www.nvidia.com/en-us/data-center/h200/"),
        Chip("b200", "NVIDIA B200", 2250e12, 180 * 10**9, 8000e9, 900e9, 64e9, 0, source="https://www.nvidia.com/en-us/data-center/dgx-b200/"),
    )
}  # fmt: skip
NODE = 8  # GPUs that a switch connects; beyond it each has a network card
NETWORK = 50e9  # bytes/s of that, in one direction: 400 Gbit/s
# Seconds that a collective takes whatever its size, an assumption: for each link that it passes in a torus
# (https://jax-ml.github.io/scaling-book/sharding), or through a switch.
HOP, SWITCH = 1e-6, 10e-6


def abstract(chip: Chip, number: int) -> tuple[jax.sharding.AbstractDevice, ...]:
    """Devices for arithmetic on shapes."""
    platform = "tpu" if chip.dimensions else "gpu"
    return (jax.sharding.AbstractDevice(chip.kind, None, platform),) * number


def chip_of(device: jax.Device | jax.sharding.AbstractDevice) -> Chip | None:
    """The published numbers of a device; None if it is not in the table, such as a CPU."""
    found = [chip for chip in CHIPS.values() if device.device_kind.startswith(chip.kind)]
    return max(found, key=lambda chip: len(chip.kind), default=None)


def usable(chip: Chip) -> int:
    """Bytes of a chip that JAX allocates for programs. On GPU it takes a share only, by default three quarters."""
    if chip.dimensions:
        return chip.memory
    return int(chip.memory * float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.75")))


def link_bandwidth(chip: Chip, torus: Sequence[int], devices: int) -> float:
    """Bytes/s at which each of `devices` in a collective sends, over all the links that they have among them.

    The group is taken to fill the longest axes of the torus first. An axis that is closed to a ring has two links.
    """
    if not chip.dimensions:
        return chip.link if devices <= NODE else NETWORK
    return sum(chip.link * (2 if ring else 1) for _, ring in _axes(chip, torus, devices)) or math.inf


def link_latency(chip: Chip, torus: Sequence[int], devices: int) -> float:
    """Seconds of a collective of `devices` without any bytes: half of each ring, or a whole open axis."""
    if not chip.dimensions:
        return SWITCH
    return HOP * sum(size / 2 if ring else size - 1 for size, ring in _axes(chip, torus, devices))


def _axes(chip: Chip, torus: Sequence[int], devices: int) -> Iterator[tuple[int, bool]]:
    """Length of each axis of the torus that a group uses, and whether that is a ring.

    Slices are closed to rings along axes of a whole pod of v5e or v6e, 16 chips, or of whole cubes of the others, 4.
    """
    chips = -(-devices // chip.per_chip)
    whole = 16 if chip.dimensions == 2 else 4
    for size in sorted(torus, reverse=True):
        if chips <= 1:
            return
        used = min(size, chips)
        yield used, used == size and size % whole == 0
        chips = -(-chips // size)


def memory_of(device: jax.Device | jax.sharding.AbstractDevice) -> int | None:
    """Bytes that programs may use on a device; None if unknown. Devices on the host's CPU share its memory evenly."""
    if device.platform == "cpu":
        return host_memory() // jax.local_device_count("cpu")
    try:
        return device.memory_stats()["bytes_limit"]
    except (jax.errors.JaxRuntimeError, AttributeError, KeyError, TypeError):  # it isn't here, or counts none
        chip = chip_of(device)
        return chip and usable(chip)


def host_memory() -> int:
    """Bytes of memory of this machine, or of the container."""
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        return min(whole, int(_CGROUP.read_text()))
    except (OSError, ValueError):  # no container, or one without a limit
        return whole
