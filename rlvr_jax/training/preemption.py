"""Stopping at the end of a step on preemption."""

import contextlib
import os
import signal
from collections.abc import Callable, Iterator

from rlvr_jax.parallel import Processes


@contextlib.contextmanager
def watch(processes: Processes | None = None) -> Iterator[Callable[[], signal.Signals | None]]:
    """Defers SIGTERM and SIGINT inside the context; yields a function that returns the one that arrived, or None.

    Says on stderr that the run stops after its step. With several processes all must call that function, and it returns
    the signal that arrived in any of them. A second SIGINT (Ctrl-C) interrupts at once.
    """
    processes = processes or Processes()
    arrived: list[signal.Signals] = []

    def note(number: int, _: object) -> None:
        if number == signal.SIGINT and signal.SIGINT in arrived:
            raise KeyboardInterrupt
        arrived.append(signal.Signals(number))
        again = "; again to stop at once" if number == signal.SIGINT else ""
        # Not print: the handler may have interrupted one.
        os.write(2, f"\n{arrived[-1].name}: the run saves its state and stops after this step{again}\n".encode())

    def first() -> signal.Signals | None:
        number = processes.first(arrived[0] if arrived else None)
        return None if number is None else signal.Signals(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield first
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
