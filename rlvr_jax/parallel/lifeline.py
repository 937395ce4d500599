"""The common end of several processes: one that fails tells the others why, one that is killed is missed.

A process that waits for another one in a collective can't be interrupted; only a thread beside it can end it.
"""

import atexit
import contextlib
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, NoReturn

import jax

from rlvr_jax.errors import RunError

PATIENCE = 30.0  # seconds without a sign of life after which a process counts as dead
_BEAT = 1.0  # seconds between signs of life
_GRACE = 5.0  # seconds that a failed process has to end by itself, and to learn whether another one failed before
_GONE = "it is gone: killed, out of memory, or its machine is down"
_FAILED, _ALIVE = "rlvr/failed", "rlvr/alive"


class Lifeline:
    """A thread that ends this process if another one fails or is gone."""

    def __init__(self, client: Any, index: int, names: Sequence[str]) -> None:
        """Starts the thread.

        Args:
          client: of the coordination service, which lives in the first process.
          index: of this process.
          names: of all processes.
        """
        self._client, self._index, self._names = client, index, names
        self._over = threading.Event()  # well or not
        self._patience = PATIENCE
        self._thread = threading.Thread(target=self._watch, daemon=True, name="lifeline")
        self._thread.start()

    @property
    def is_over(self) -> bool:
        """True once the thread does not end this process any more."""
        return self._over.is_set()

    def close(self) -> None:
        """Ends the thread, without ending the process."""
        self._over.set()
        self._thread.join()

    def fail(self, error: BaseException) -> None:
        """Tells the other processes why this one ends; this one then has a few seconds to end by itself.

        If another one has failed before, that is the cause to report, and this process ends here.
        """
        if self._over.is_set():
            return
        if isinstance(error, jax.errors.JaxRuntimeError):  # perhaps a broken connection, whose cause is soon known
            self._patience = _GRACE
            self._over.wait(2 * _GRACE)
        self._over.set()
        reason = str(error) if isinstance(error, RunError | OSError) else f"{type(error).__name__}: {error}"
        reason = " ".join(reason.split())[:2000]
        self._tell(self._index, reason)
        if self._index == 0:
            time.sleep(_BEAT)  # the others read the reason from this process
        status = 130 if isinstance(error, KeyboardInterrupt) else getattr(error, "status", 1)
        atexit.register(leave, status)  # before JAX's own handler, which would wait for the others
        timer = threading.Timer(_GRACE, leave, (status, reason))
        timer.daemon = True
        timer.start()

    def _tell(self, index: int, reason: str) -> None:
        with contextlib.suppress(jax.errors.JaxRuntimeError):  # another one was first, or the coordinator is gone
            self._client.key_value_set_bytes(_FAILED, json.dumps([index, reason]).encode())

    def _watch(self) -> None:
        failure = self._failure()
        if failure and not self._over.is_set():
            if self._index == 0:
                time.sleep(_BEAT)  # the others read the reason from this process
            leave(1, "{} ended the run: {}".format(*failure))

    def _failure(self) -> tuple[str, str] | None:
        """Waits for the name of a process that has failed, and the reason; None once this one is over."""
        seen, beats = {i: (b"", time.monotonic()) for i in range(len(self._names))}, 0
        while not self._over.is_set():
            try:
                beats += 1
                self._client.key_value_set_bytes(f"{_ALIVE}/{self._index}", str(beats).encode(), allow_overwrite=True)
                if self._index == 0:
                    self._miss(seen)
                index, reason = json.loads(self._client.blocking_key_value_get_bytes(_FAILED, int(1000 * _BEAT)))
                return self._names[index], reason
            except jax.errors.JaxRuntimeError as error:
                if not expired(error):
                    return self._names[0], _GONE
        return None

    def _miss(self, seen: dict[int, tuple[bytes, float]]) -> None:
        """Ends the run if a process has given no sign of life for too long."""
        now = time.monotonic()
        for key, beat in self._client.key_value_dir_get_bytes(f"{_ALIVE}/"):
            index = int(key.rpartition("/")[2])
            if beat != seen[index][0]:
                seen[index] = beat, now
        for index, (_, when) in seen.items():
            if now - when > self._patience:
                self._tell(index, _GONE)


def expired(error: jax.errors.JaxRuntimeError) -> bool:
    """True if a wait for a key ended because of its time limit."""
    return "DEADLINE_EXCEEDED" in str(error)


def leave(status: int, message: str = "") -> NoReturn:
    """Ends the process without its exit handlers, some of which wait for other processes."""
    with contextlib.suppress(OSError, ValueError):
        if message:
            print(f"error: {message}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(status)
