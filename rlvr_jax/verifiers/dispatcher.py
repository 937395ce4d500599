"""The I/O thread of a pool: sends jobs to worker processes in order of submission, and resolves futures.

Jobs are sent in chunks, and answered one by one in order. The current item of a worker is therefore always known, and a
hang or a death is attributed to it: a new worker replaces the process, and the rest of the chunk is sent again. Chunks
are only sent to idle workers, so the two sides cannot both block in sending.

A chunk is a share of the queue, so that workers finish together, and short in time: an item that has been sent cannot
be taken back, so it must not wait long while another worker is idle.
"""

import contextlib
import json
import math
import os
import selectors
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future, InvalidStateError
from typing import Any

from rlvr_jax.verifiers.jobs import START_UP_SECONDS, resolve
from rlvr_jax.verifiers.processes import TRAINERS_SIGNALS, Item, Worker, start, stop

_decode = json.JSONDecoder().raw_decode  # half the time of `json.loads`
_CHUNK_ITEMS = 32
_CHUNK_BYTES = 1 << 20
_CHUNK_SECONDS = 0.02  # estimated from earlier items


class PoolError(RuntimeError):
    """The pool is closed, or its workers do not start."""


class Dispatcher:
    """Worker processes and the thread that serves them. Public methods are for other threads."""

    def __init__(self, size: int, memory_bytes: int):
        """Starts `size` processes, at least one, with so much address space each, and the thread.

        Raises:
          PoolError: a process can't be started.
        """
        self._size, self._memory_bytes = size, memory_bytes
        # Re-entrant, since garbage collection may close the pool while it is held. Guards the next four.
        self._lock = threading.RLock()
        self._inbox: list[Item] = []
        self._abandoned: set[Future] = set()
        self._closing = False
        self._ended = ""  # why no more jobs are taken
        # Used by the thread only.
        self._queue: deque[Item] = deque()
        self._workers: list[Worker] = []
        self._fruitless = 0  # consecutive workers that ended before their first job
        self._pace = _CHUNK_SECONDS  # seconds that an item takes, a moving average
        self._selector = selectors.DefaultSelector()
        self._wakes, self._bell = os.pipe()
        os.set_blocking(self._wakes, False)
        os.set_blocking(self._bell, False)
        self._selector.register(self._wakes, selectors.EVENT_READ, None)
        try:
            self._fill()
            self._thread = threading.Thread(target=self._serve, name="verifier pool", daemon=True)
            self._thread.start()
        except BaseException:
            self._end("it did not start")
            raise

    @property
    def process_ids(self) -> list[int]:
        """Of the workers there are."""
        return [worker.process.pid for worker in list(self._workers)]

    @property
    def is_own_thread(self) -> bool:
        """True in the callback of a future."""
        return threading.current_thread() is self._thread

    def put(self, items: Sequence[Item]) -> None:
        """Appends items to the queue. Raises PoolError if it is closed."""
        with self._lock:
            if self._closing or self._ended:
                raise PoolError(self._ended or "the verifier pool is closed")
            self._inbox.extend(items)
            self._wake()

    def abandon(self, futures: Sequence[Future]) -> None:
        """Cancels futures, and ends workers without other jobs."""
        running = {future for future in futures if not future.cancel()}
        with self._lock:
            self._abandoned |= running
            self._wake()

    def close(self) -> None:
        """Ends the processes and, asynchronously, the thread; see `join`."""
        with self._lock:
            self._closing = True
            self._wake()

    def join(self) -> None:
        """Waits for the thread's end."""
        if not self.is_own_thread:
            self._thread.join()

    def _wake(self) -> None:
        if not self._ended:
            with contextlib.suppress(BlockingIOError):  # it is full of wakes
                os.write(self._bell, b"\0")

    def _serve(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, TRAINERS_SIGNALS)  # otherwise the main thread might miss Ctrl-C
        why = "the verifier pool has failed"
        try:
            while not self._closing:
                try:
                    self._turn()
                except PoolError as error:
                    self._fail(str(error))
            why = "the verifier pool is closed"
        finally:
            self._end(why)

    def _end(self, why: str) -> None:
        with self._lock:
            self._ended = why
            os.close(self._wakes)
            os.close(self._bell)
            self._queue.extend(self._inbox)
            self._inbox.clear()
        self._fail(why)
        for worker in list(self._workers):
            self._remove(worker)
        self._selector.close()

    def _accept(self) -> None:
        """Processes the requests of other threads."""
        with self._lock:
            self._queue.extend(self._inbox)
            self._inbox.clear()
            abandoned, self._abandoned = self._abandoned, set()
        for worker in list(self._workers) if abandoned else []:
            if worker.pending and all(item.future in abandoned for item in worker.pending):
                self._drop(worker, CancelledError())

    def _fail(self, why: str) -> None:
        """Fails all unfinished jobs."""
        for worker in [worker for worker in self._workers if worker.pending]:
            self._drop(worker, PoolError(why))
        while self._queue:
            _settle(self._queue.popleft().future.set_exception, PoolError(why))

    def _drop(self, worker: Worker, error: BaseException) -> None:
        """Ends a worker together with its jobs."""
        self._remove(worker)
        while worker.pending:
            _settle(worker.pending.popleft().future.set_exception, error)

    def _turn(self) -> None:
        """Sends queued jobs, and waits for the next event."""
        for worker in list(self._workers):
            if worker.ready and not worker.pending and self._queue:
                self._send(worker)
        if self._queue or any(worker.pending for worker in self._workers):
            self._fill()  # some have died, perhaps found only by sending
        deadlines = [worker.deadline for worker in self._workers if worker.pending or not worker.ready]
        deadline = min(deadlines, default=math.inf)
        patience = max(0.0, deadline - time.monotonic()) if deadlines else None
        for key, _ in self._selector.select(patience):
            if key.data is None:
                os.read(self._wakes, 1 << 16)
                self._accept()
            elif key.data in self._workers:
                self._receive(key.data)
        if time.monotonic() > deadline:
            # A worker is not late if this thread was delayed.
            heard = [key.data for key, _ in self._selector.select(0)]
            for worker in [worker for worker in self._workers if worker not in heard]:
                if (worker.pending or not worker.ready) and worker.deadline < time.monotonic():
                    self._give_up(worker, late=True)

    def _fill(self) -> None:
        while len(self._workers) < self._size:
            try:
                worker = start(self._memory_bytes)
            except OSError as error:
                raise PoolError(f"verifier workers do not start: {error}") from error
            self._workers.append(worker)
            self._selector.register(worker.socket, selectors.EVENT_READ, worker)

    def _remove(self, worker: Worker) -> str:
        self._workers.remove(worker)
        self._selector.unregister(worker.socket)
        return stop(worker)

    def _send(self, worker: Worker) -> None:
        """Sends a chunk."""
        share = -(-len(self._queue) // (2 * self._size))
        most = max(1, min(_CHUNK_ITEMS, share, int(_CHUNK_SECONDS / max(self._pace, 1e-6))))
        chunk: list[Item] = []
        size = 0
        while self._queue and len(chunk) < most and (not chunk or size + len(self._queue[0].order[1]) <= _CHUNK_BYTES):
            item = self._queue.popleft()
            if item.run():
                chunk.append(item)
                size += len(item.order[1])
        if chunk:
            try:
                worker.send(chunk)
            except OSError:  # it died while idle
                self._take_back(worker)

    def _receive(self, worker: Worker) -> None:
        last = False
        try:
            for line in worker.read():
                message, end = _decode(line)
                if end != len(line):
                    raise ValueError(line)
                if last := self._hear(worker, message):
                    break
        except Exception:  # it has died, or its job has tampered with the socket
            self._give_up(worker)
            return
        if last:
            self._take_back(worker)

    def _hear(self, worker: Worker, message: list[Any]) -> bool:
        """Handles a message; True for the worker's last one. Raises an error for an invalid one."""
        *event, last = message
        if event:
            item = worker.pending[0]
            _settle(resolve, item.future, item.judged, event)
            self._answered(worker)
            if worker.pending:
                worker.expect(worker.pending[0].order[2])
            return last
        if last == "ready":
            worker.ready = True
            worker.stderr.close()
        elif last == "importing":
            worker.expect(START_UP_SECONDS)
        elif last == "started":
            worker.started = True
            worker.expect(worker.pending[0].order[2])
        return False

    def _answered(self, worker: Worker) -> None:
        """The worker's first item has its result."""
        worker.pending.popleft()
        self._fruitless = 0
        self._pace += 0.1 * (time.monotonic() - worker.since - self._pace)

    def _take_back(self, worker: Worker, late: bool = False) -> str:
        """Ends the worker and puts its jobs back to the head of the queue. Returns how it ended."""
        self._queue.extendleft(reversed(worker.pending))
        worker.pending.clear()
        ending = self._remove(worker)
        self._fruitless += 1
        if self._fruitless > self._size + 2:
            raise PoolError(
                f"verifier workers do not start: {self._fruitless} in a row ended before they were at a job, "
                f"the last one with {ending}{f' (not ready after {worker.patience:g} s)' if late else ''}"
            )
        return ending

    def _give_up(self, worker: Worker, late: bool = False) -> None:
        """Ends a worker that has died or, if `late`, hangs; its current item gets that as its result."""
        item = worker.pending[0] if worker.started and worker.pending else None
        if item is not None:
            self._answered(worker)
        ending = self._take_back(worker, late)
        if item is not None:
            why = f"timed out after {worker.patience:g} s" if late else f"worker process died ({ending})"
            _settle(resolve, item.future, item.judged, ["failure", why])


def _settle(set_result: Callable[..., None], *arguments: Any) -> None:
    try:  # noqa: SIM105 - for each job, and suppressing takes longer than the rest
        set_result(*arguments)
    except InvalidStateError:  # cancelled, or already resolved
        pass
