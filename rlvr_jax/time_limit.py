"""A limit of time for functions of the user's own that run in the training process."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class _Expired(BaseException):
    """No Exception, so that a function that catches those is interrupted, too."""


@contextlib.contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """Interrupts Python code inside the context after `seconds`; None for no limit.

    Works in the main thread; in others there is no limit. A single call of compiled code, such as one huge product of
    integers, is interrupted after it returns.

    Raises:
      TimeoutError: the time was over.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def expire(_: int, __: FrameType | None) -> None:
        raise _Expired

    before = signal.signal(signal.SIGALRM, expire)
    # Again and again, in case the function swallows the first.
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
    except _Expired:
        raise TimeoutError(f"it took longer than {seconds:g} s") from None
