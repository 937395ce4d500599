"""Settings of the host process for faster computation on its CPU."""

import contextlib
import ctypes
import gc
from collections.abc import Callable, Iterator

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # parameters of glibc's mallopt(3)


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


@contextlib.contextmanager
def long_lived_objects() -> Iterator[Callable[[], None]]:
    """A function that exempts all objects of now from garbage collection until the context ends.

    For the end of a run's first step: imports and compiled programs are a million objects, and a full collection, of
    which there is one every ten steps or so, would look at each of them (0.2 s).
    """
    try:
        yield gc.freeze
    finally:
        gc.unfreeze()
