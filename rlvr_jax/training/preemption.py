"""Stopping at the end of a step on preemption."""

import contextlib
import signal
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def watch() -> Iterator[Callable[[], signal.Signals | None]]:
    """Defers SIGTERM and SIGINT inside the context; yields a function that returns the one that arrived, or None.

    A second SIGINT (Ctrl-C) interrupts at once.
    """
    arrived: list[signal.Signals] = []

    def note(number: int, _: object) -> None:
        if number == signal.SIGINT and signal.SIGINT in arrived:
            raise KeyboardInterrupt
        arrived.append(signal.Signals(number))

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: arrived[0] if arrived else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
