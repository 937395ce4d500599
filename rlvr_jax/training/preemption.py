"""Stopping at the end of a step on preemption."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def watch() -> Iterator[Callable[[], signal.Signals | None]]:
    """Defers SIGTERM and SIGINT inside the context; yields a function that returns the one that arrived, or None.

    Says on stderr that the run stops after its step. A second SIGINT (Ctrl-C) interrupts at once.
    """
    arrived: list[signal.Signals] = []

    def note(number: int, _: object) -> None:
        if number == signal.SIGINT and signal.SIGINT in arrived:
            raise KeyboardInterrupt
        arrived.append(signal.Signals(number))
        again = "; again to stop at once" if number == signal.SIGINT else ""
        # Not print: the handler may have interrupted one.
        os.write(2, f"\n{arrived[-1].name}: the run saves its state and stops after this step{again}\n".encode())

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: arrived[0] if arrived else None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
