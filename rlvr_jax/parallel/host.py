"""Settings of the host process for faster computation on its CPU."""

import ctypes

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
