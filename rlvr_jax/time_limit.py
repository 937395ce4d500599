"""A limit of time for functions of the user's own that run in the training process."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TypeVar

Result = TypeVar("Result")


class _Expired(BaseException):
    """No Exception, so that a function that catches those is interrupted, too."""


@contextlib.contextmanager
def time_limits(seconds: float | None) -> Iterator[Callable[[Callable[[], Result]], Result]]:
    """A function that calls functions, each for at most `seconds`; None for no limit.

        with time_limits(5.0) as limited:
            texts = [limited(partial(render, example)) for example in examples]

    Works in the main thread; in others there is no limit. A single call of compiled code, such as one huge product of
    integers, is interrupted after it returns.

    Raises:
      TimeoutError: by a call, whose time was over.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield lambda function: function()
        return

    def expire(_: int, __: FrameType | None) -> None:
        raise _Expired

    def limited(function: Callable[[], Result]) -> Result:
        try:
            try:
                # Again and again, in case the function swallows the first.
                signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
                return function()
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except _Expired:
            raise TimeoutError(f"it took longer than {seconds:g} s") from None

    before = signal.signal(signal.SIGALRM, expire)  # once for all calls: it takes longer than many of them
    try:
        yield limited
    finally:
        signal.signal(signal.SIGALRM, before)
