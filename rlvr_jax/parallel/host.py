"""Settings of the host process: computation on its CPU is faster, and that on GPUs repeatable."""

import contextlib
import ctypes
import gc
import importlib.util
import os
from collections.abc import Callable, Iterator

_RECORDS = 20_000  # objects between two garbage collections
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # parameters of glibc's mallopt(3)
_CUDA = ("jax_cuda12_plugin", "jax_cuda13_plugin")  # one of them comes with `jax[cuda12]`, `jax[cuda13]`


def keep_freed_memory() -> None:
    """Makes the C library keep freed memory for the next allocation instead of returning it to the system.

    XLA's CPU back end allocates its temporaries anew for every call. glibc returns large freed blocks to
    the system, so each call would fault in all of its pages again, which can take longer than computing on them. Does
    nothing with other C libraries.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)  # never
        mallopt(_TOP_PAD, 64 << 20)


def same_kernels_each_time() -> None:
    """Makes XLA choose kernels for GPUs by rule instead of by timing them, so that the same run gives the same bits.

    Before JAX uses a device. `XLA_FLAGS=--xla_gpu_deterministic_ops=false` from outside wins. Does nothing where JAX is
    installed without GPUs.
    """
    if any(map(importlib.util.find_spec, _CUDA)):
        os.environ["XLA_FLAGS"] = f"--xla_gpu_deterministic_ops=true {os.environ.get('XLA_FLAGS', '')}".strip()


@contextlib.contextmanager
def long_lived_objects() -> Iterator[Callable[[], None]]:
    """A function that exempts all objects of now from garbage collection, and makes it rarer, until the context ends.

    For the end of a run's first step: imports and compiled programs are a million objects, and a full collection, of
    which there is one every ten steps or so, would look at each of them (0.2 s). A step makes thousands of records that
    are freed without a collection.
    """
    thresholds = gc.get_threshold()

    def begin() -> None:
        gc.freeze()
        if thresholds[0]:  # 0 is no collection at all
            gc.set_threshold(max(_RECORDS, thresholds[0]), *thresholds[1:])

    try:
        yield begin
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)


def cpu_cores() -> list[int]:
    """The CPU cores that this process may use."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
