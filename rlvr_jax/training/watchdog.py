"""A watchdog that says where a run hangs."""

import contextlib
import faulthandler
import queue
import sys
import threading
from collections.abc import Callable, Iterator

from rlvr_jax.parallel import Processes


@contextlib.contextmanager
def watchdog(seconds: float, ends: bool, processes: Processes) -> Iterator[Callable[[str], None]]:
    """A function to call with the name of each phase that begins.

    If a phase lasts longer than `seconds`, its name, the process and its host, the process that it waits for if any,
    and the stacks of all threads are printed on stderr, once.

    Args:
      seconds: 0 for no watchdog.
      ends: also end the run then, in all processes.
      processes: of the run.
    """
    if not seconds:
        yield lambda _: None
        return
    begun: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def watch() -> None:
        phase = begun.get()
        while phase is not None:
            try:
                phase = begun.get(timeout=seconds)
            except queue.Empty:
                message = f"{processes.name(processes.index)} has been in the phase {phase!r} for {seconds:g} s"
                if (awaited := processes.awaited) is not None:
                    message += f" and waits for {processes.name(awaited)}"
                print(f"watchdog: {message}", file=sys.stderr, flush=True)
                faulthandler.dump_traceback(sys.stderr)
                if ends:
                    processes.end(f"{message} (config.training.watchdog)")
                phase = begun.get()

    thread = threading.Thread(target=watch, daemon=True, name="watchdog")
    thread.start()
    try:
        yield begun.put
    finally:
        begun.put(None)
        thread.join()
