"""A limit of time for functions of the user's own that run in the training process."""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

_LONGEST_TICK = 1.0  # seconds between two looks at the clock


class _Expired(BaseException):
    """No Exception, so that a function that catches those is interrupted, too."""


@contextlib.contextmanager
def time_limits(seconds: float | None) -> Iterator[Callable[..., Any]]:
    """A function (function, *arguments) that calls it for at most `seconds`, or a tenth longer; None for no limit.

        with time_limits(5.0) as limited:
            texts = [limited(render, example) for example in examples]

    One timer looks at the clock for all calls, again and again in case a function swallows the first interrupt: a timer
    for each call would take longer than many of them.

    Works in the main thread; in others there is no limit. A single call of compiled code, such as one huge product of
    integers, is interrupted after it returns.

    Raises:
      TimeoutError: by a call, whose time was over.
    """
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield lambda function, *arguments: function(*arguments)
        return

    began = math.inf  # the call in progress

    def look(_: int, __: FrameType | None) -> None:
        if time.monotonic() - began >= seconds:
            raise _Expired

    def begin() -> tuple[Any, tuple[float, float]]:
        tick = min(seconds / 10, _LONGEST_TICK)
        return signal.signal(signal.SIGALRM, look), signal.setitimer(signal.ITIMER_REAL, tick, tick)

    def limited(function: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal began
        if signal.getsignal(signal.SIGALRM) is not look or not signal.getitimer(signal.ITIMER_REAL)[1]:
            begin()  # an earlier function has used the only timer, as `signal.alarm` does
        try:
            try:
                began = time.monotonic()
                return function(*arguments)
            finally:
                began = math.inf
        except _Expired:
            began = math.inf
            raise TimeoutError(f"it took longer than {seconds:g} s") from None

    before, timer = begin()
    try:
        yield limited
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer)
        signal.signal(signal.SIGALRM, before)
