"""Worker processes of the pool: start, end, and communication.

Workers are new interpreters that communicate over a socket pair. They are not forked, because a process with JAX has
threads and must not be forked; nor spawned by `multiprocessing`, which would run the main script again.
"""

import contextlib
import os
import pickle
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from rlvr_jax.verifiers.jobs import START_UP_SECONDS, Order

# Signals for the trainer only: workers start with them blocked, and unblock them once their handlers are installed.
TRAINERS_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_READ_BYTES = 1 << 16  # with more, each read would map new memory


@dataclass(eq=False, slots=True)
class Item:
    """A job in the pool."""

    order: Order
    judged: bool  # its result is a verdict
    future: Future = field(default_factory=Future)
    running: bool = False  # it has been sent, and can't be cancelled any more

    def run(self) -> bool:
        """Marks it as sent. Returns False if it has been cancelled."""
        self.running = self.running or self.future.set_running_or_notify_cancel()
        return self.running


@dataclass(eq=False)
class Worker:
    """A process and its state."""

    process: subprocess.Popen
    socket: socket.socket
    stderr: IO[bytes]  # only until it is ready
    memory_bytes: int
    since: float = 0.0  # time of the last message in either direction
    patience: float = 0.0  # seconds from then until it must send something, while it starts or works
    deadline: float = 0.0  # the sum of both
    ready: bool = False
    pending: deque[Item] = field(default_factory=deque)  # sent and unanswered, in order
    started: bool = False  # it works on the first of them
    _unread: list[str] = field(default_factory=list)  # of an incomplete line
    _unread_bytes: int = 0

    def expect(self, seconds: float) -> None:
        """The worker must send something within this many seconds from now."""
        self.since, self.patience = time.monotonic(), seconds
        self.deadline = self.since + seconds

    def send(self, items: Sequence[Item]) -> None:
        """Sends items. Raises OSError if the worker has died or does not receive them."""
        self.pending.extend(items)
        self.started = False
        self.expect(items[0].order[2])
        self.socket.sendall(pickle.dumps([item.order for item in items], protocol=5))

    def read(self) -> list[str]:
        """The received lines. Raises EOFError or OSError at the end, ValueError for invalid data."""
        data = self.socket.recv(_READ_BYTES)
        if not data:
            raise EOFError("the worker has closed its end")
        *lines, rest = data.decode("ascii").split("\n")
        if lines and self._unread:
            lines[0] = "".join([*self._unread, lines[0]])
            self._unread.clear()
            self._unread_bytes = 0
        if rest:
            self._unread.append(rest)
            self._unread_bytes += len(rest)
            if self._unread_bytes > self.memory_bytes:
                raise ValueError("a line that is longer than the worker's memory")
        return lines


def start(memory_bytes: int) -> Worker:
    """Starts a worker. Raises OSError if the machine has no process or file descriptor left."""
    ours, theirs = socket.socketpair()
    stderr = tempfile.TemporaryFile()  # noqa: SIM115
    command = [sys.executable, "-P", "-m", "rlvr_jax.verifiers.worker"]
    command += [str(theirs.fileno()), str(memory_bytes)]
    # The worker inherits the mask: no signal can end it while it starts.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, TRAINERS_SIGNALS)
    try:
        ours.settimeout(START_UP_SECONDS)  # for sending; receiving does not block
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(
                path or str(Path.cwd()) for path in sys.path
            ),  # the same import path as this process
            "PYTHONHASHSEED": "0",  # the same iteration order of sets in every worker and run
        }
        process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            env=environment,
            start_new_session=True,  # so that children of a job are killed together with its worker
        )
    except BaseException:
        ours.close()
        stderr.close()
        raise
    finally:
        theirs.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    worker = Worker(process, ours, stderr, memory_bytes)
    worker.expect(START_UP_SECONDS)
    return worker


def stop(worker: Worker) -> str:
    """Kills the worker and its children.

    Returns how it ended, even if it was dead before, and its output if it never got ready.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: no permission to kill a dead process
        os.killpg(worker.process.pid, signal.SIGKILL)
    code = worker.process.wait()
    worker.socket.close()
    ending = f"signal {-code}" if code < 0 else f"exit code {code}"
    if not worker.stderr.closed:
        worker.stderr.seek(0)
        if written := worker.stderr.read()[-2000:].decode(errors="replace").strip():
            ending += f"; it wrote:\n{written}"
        worker.stderr.close()
    return ending
