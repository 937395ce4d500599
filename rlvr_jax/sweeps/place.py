"""Versions, sources and machine: besides the config, the bits of a run depend on these."""

import functools
import hashlib
import platform
import re
from importlib.metadata import version
from pathlib import Path

import jax

from rlvr_jax import kernels
from rlvr_jax.parallel.host import cpu_cores

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy")


@functools.cache
def place() -> dict[str, str]:
    """Of this process: `versions`, the devices and the processor."""
    devices = jax.devices()
    return {
        **versions(),
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "processor": f"{_processor()}, {len(cpu_cores())} cores",
    }


def versions() -> dict[str, str]:
    """Of Python and packages, and a digest of this one's sources. Touches no device."""
    return {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}, "sources": _sources()}


def _sources() -> str:
    """A digest of the code that computes: the package with its kernels, without experiments and reports."""
    root = Path(__file__).parents[1]
    found = hashlib.sha256()
    parts = ["envs", "learner", "parallel", "policy", "rollout", "tasks", "text", "training", "verifiers"]
    folders = [*(root / name for name in parts), Path(kernels.__file__).parent]
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            found.update(f"{folder.name}/{path.relative_to(folder)}".encode() + path.read_bytes())
    return found.hexdigest()[:16]


def _processor() -> str:
    """Its name and vector instructions, on which the order of sums depends."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        return platform.processor() or platform.machine()
    name = re.search(r"(?m)^model name\s*: (.*)$", text)
    flags = re.search(r"(?m)^flags\s*: (.*)$", text)
    vectors = sorted(x for x in (flags[1].split() if flags else []) if x.startswith(("avx", "fma", "amx")))
    return f"{name[1] if name else platform.machine()} ({' '.join(vectors)})"
