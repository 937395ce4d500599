"""A pool of host processes that judge completions, each bounded in time and memory.

The workers are fresh interpreters that talk over a socket pair. They are not forked, because a process that runs JAX
has threads and must not be; nor spawned by `multiprocessing`, because that would run the main script again.

Jobs travel in chunks, answers one by one, in the order of the chunk. So it is always known which item a worker is at,
and a hang or a death is pinned to that item: it gets a verdict with an `error`, a new worker takes the place, and the
rest of the chunk is handed out again. A chunk is only ever sent to a worker that waits for one, which is why the two
sides cannot both be stuck in sending.
"""

import contextlib
import json
import os
import pickle
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Any

from rlvr_jax.named import is_name
from rlvr_jax.verifiers import LONGEST, PREPARE, failure, guarded, verifier_of
from rlvr_jax.verifiers.verdict import Verdict
from rlvr_jax.verifiers.worker import KIND

MIN_MEMORY_BYTES = 128 << 20  # an interpreter with the verifiers imported, and some room to work in
START_UP_SECONDS = 60.0  # for a worker to get ready, or to import the module of a verifier
_CHUNK_ITEMS = 32
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Job:
    """One completion to judge.

    Attributes:
      verifier: a key of `VERIFIERS`, the name of a function, or a function (completion, reference, **options) that a
        worker can import: one at the top level of a module that is not the main script.
      completion: what the policy wrote.
      reference: what the verifier judges against.
      options: further keyword arguments of the verifier.
    """

    verifier: str | Callable[..., Verdict]
    completion: str
    reference: Any
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class _Worker:
    process: subprocess.Popen
    connection: Connection
    stderr: IO[bytes]  # only until it is ready
    patience: float = START_UP_SECONDS  # seconds within which it must say something, while it starts or is at work
    since: float = field(default_factory=time.monotonic)  # when those began
    ready: bool = False
    pending: deque[int] = field(default_factory=deque)  # jobs without an answer, in order
    started: bool = False  # it is at the first of them

    @property
    def deadline(self) -> float:
        return self.since + self.patience

    def expect(self, seconds: float) -> None:
        """The worker must say something within so many seconds from now."""
        self.since, self.patience = time.monotonic(), seconds


# What to prepare, see `worker.prepare`, or None; the pickled job; seconds after which the worker ends by itself.
_Payload = tuple[str | None, bytes, float]


def _start(memory_bytes: int) -> _Worker:
    ours, theirs = socket.socketpair()
    stderr = tempfile.TemporaryFile()  # noqa: SIM115
    command = [sys.executable, "-P", "-m", "rlvr_jax.verifiers.worker"]
    command += [str(theirs.fileno()), str(memory_bytes)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),  # imports what this process can
        "PYTHONHASHSEED": "0",  # the order of a set is the same in every worker and every run
    }
    # The worker inherits the mask and unblocks when its handlers stand: no signal can end it while it starts.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        process = subprocess.Popen(
            command,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
            env=environment,
            start_new_session=True,  # what a verifier starts can then be killed together with its worker
        )
    except BaseException:
        ours.close()
        stderr.close()
        raise
    finally:
        theirs.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return _Worker(process, Connection(ours.detach()), stderr)


def _stop(worker: _Worker) -> str:
    """Kills the worker and whatever it started.

    Returns how it ended, which a kill after its death does not change, and what it wrote if it never got ready.
    """
    with contextlib.suppress(ProcessLookupError, PermissionError):  # macOS: no permission to kill what is dead
        os.killpg(worker.process.pid, signal.SIGKILL)
    code = worker.process.wait()
    worker.connection.close()
    ending = f"signal {-code}" if code < 0 else f"exit code {code}"
    if not worker.stderr.closed:
        worker.stderr.seek(0)
        if written := worker.stderr.read()[-2000:].decode(errors="replace").strip():
            ending += f"; it wrote:\n{written}"
        worker.stderr.close()
    return ending


def _seconds(job: Job, timeout: float) -> float:
    """The seconds that a worker may be at the job."""
    if not isinstance(job.verifier, str) or job.verifier not in LONGEST:
        return timeout
    try:
        return max(timeout, LONGEST[job.verifier](job.reference, job.options))
    except Exception:  # a reference or option that the verifier refuses as well, at once, and says why
        return timeout


def _payload(index: int, job: Job, timeout: float) -> _Payload:
    if isinstance(job.verifier, str):
        module = f"{KIND}{job.verifier}" if job.verifier in PREPARE or is_name(job.verifier) else None
    else:
        module = getattr(job.verifier, "__module__", None)
    advice = "use a function at the top level of a module that can be imported, or judge with workers=0"
    if module == "__main__":
        raise ValueError(f"job {index}: its verifier {job.verifier!r} is defined in the main script; {advice}")
    try:
        payload = pickle.dumps((job.verifier, job.completion, job.reference, dict(job.options)), protocol=5)
    except Exception as error:
        raise ValueError(f"job {index} cannot be sent to a worker process ({error}); {advice}") from error
    return module, payload, _seconds(job, timeout) + START_UP_SECONDS


class Pool:
    """Processes that judge; a context manager, at whose end they are gone.

    The processes start with the pool, and `judge` waits for them, so that they can start while something else does,
    such as JAX.
    """

    def __init__(self, workers: int, timeout: float = 5.0, memory_bytes: int = 1 << 30):
        """Starts the processes.

        Args:
          workers: how many. With 0, jobs are judged in this process, without protection from a verifier that hangs
            or dies, and verifiers may be any function: for notebooks.
          timeout: seconds that one item may take. Verifiers that bound CPU time themselves (`LONGEST`) may take as long
            as that needs on a busy machine.
          memory_bytes: address space of one worker, interpreter included; not enforced on macOS.

        Raises:
          ValueError: an argument is out of its range.
        """
        if workers < 0:
            raise ValueError(f"workers must be 0 or more, not {workers}")
        if not 0 < timeout < float("inf"):
            raise ValueError(f"timeout must be a positive number of seconds, not {timeout}")
        if memory_bytes < MIN_MEMORY_BYTES:
            raise ValueError(f"memory_bytes must be at least {MIN_MEMORY_BYTES}, not {memory_bytes}")
        self._size, self._timeout, self._memory_bytes = workers, timeout, memory_bytes
        self._lock = threading.Lock()
        self._selector = selectors.DefaultSelector()
        self._workers: list[_Worker] = []
        self._fruitless = 0  # workers in a row that ended before they were at a job
        self._closed = False
        try:
            self._fill()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the processes; a second call does nothing."""
        with self._lock:
            self._closed = True
            for worker in list(self._workers):
                self._remove(worker)
            self._selector.close()

    def judge(self, jobs: Sequence[Job]) -> list[Verdict]:
        """The verdicts, in the order of the jobs. Threads may call it; they take turns.

        What a verifier does, be it to raise, to hang, to run out of memory or to take its process down, is told in
        `Verdict.error` of the item concerned and touches no other.

        Raises:
          ValueError: a job names a verifier that does not exist, or cannot be sent to a process; nothing was judged.
          RuntimeError: the pool is closed, or its workers do not start.
        """
        functions = [verifier_of(job.verifier) if isinstance(job.verifier, str) else job.verifier for job in jobs]
        with self._lock:
            if self._closed:
                raise RuntimeError("the verifier pool is closed")
            if self._size == 0:
                return [
                    guarded(function, job.completion, job.reference, job.options)
                    for function, job in zip(functions, jobs, strict=True)
                ]
            payloads = [_payload(index, job, self._timeout) for index, job in enumerate(jobs)]
            verdicts: dict[int, Verdict] = {}
            try:
                self._run(payloads, verdicts)
            except BaseException:  # Ctrl-C, say: what workers are at must not be taken for answers to later jobs
                for worker in [worker for worker in self._workers if worker.pending]:
                    self._remove(worker)
                raise
            return [verdicts[index] for index in range(len(jobs))]

    def _run(self, payloads: Sequence[_Payload], verdicts: dict[int, Verdict]) -> None:
        """Fills `verdicts` for every index of `payloads`."""
        largest = self._memory_bytes // 8  # a worker needs several times the size of a job to receive it
        queue: deque[int] = deque()
        for index, (_, payload, _) in enumerate(payloads):
            if len(payload) > largest:
                verdicts[index] = failure(f"the job has {len(payload)} bytes; a worker takes up to {largest}")
            else:
                queue.append(index)
        while len(verdicts) < len(payloads):
            self._fill()
            for worker in list(self._workers):
                if queue and worker.ready and not worker.pending:
                    self._send(worker, payloads, queue)
            waiting = [worker for worker in self._workers if worker.pending or not worker.ready]
            patience = min((worker.deadline for worker in waiting), default=0.0) - time.monotonic()
            for key, _ in self._selector.select(max(0.0, patience)):
                self._receive(key.data, payloads, queue, verdicts)
            now = time.monotonic()
            for worker in waiting:
                # A worker is not late if it was this process that was held up and did not listen: hence `poll`.
                if worker in self._workers and worker.deadline < now and not worker.connection.poll():
                    self._give_up(worker, queue, verdicts, late=True)

    def _fill(self) -> None:
        while len(self._workers) < self._size:
            worker = _start(self._memory_bytes)
            self._workers.append(worker)
            self._selector.register(worker.connection, selectors.EVENT_READ, worker)

    def _remove(self, worker: _Worker) -> str:
        self._workers.remove(worker)
        self._selector.unregister(worker.connection)
        return _stop(worker)

    def _send(self, worker: _Worker, payloads: Sequence[_Payload], queue: deque[int]) -> None:
        """Hands out a chunk: a share of what is left, so that the workers come to an end together."""
        items = min(_CHUNK_ITEMS, -(-len(queue) // (2 * self._size)))
        chunk: list[_Payload] = []
        size = 0
        while queue and len(chunk) < items and (not chunk or size + len(payloads[queue[0]][1]) <= _CHUNK_BYTES):
            index = queue.popleft()
            worker.pending.append(index)
            chunk.append(payloads[index])
            size += len(payloads[index][1])
        worker.started = False
        worker.expect(chunk[0][2] - START_UP_SECONDS)
        try:
            worker.connection.send_bytes(pickle.dumps(chunk, protocol=5))
        except OSError:  # it died while it waited
            self._take_back(worker, queue)

    def _receive(
        self, worker: _Worker, payloads: Sequence[_Payload], queue: deque[int], verdicts: dict[int, Verdict]
    ) -> None:
        try:
            event, *content = json.loads(worker.connection.recv_bytes())
            if event == "verdict":
                *fields, last = content
                verdicts[worker.pending.popleft()] = Verdict(*fields)
                self._fruitless = 0
        except Exception:  # it has died, or its verifier has meddled with the connection
            self._give_up(worker, queue, verdicts)
            return
        seconds = payloads[worker.pending[0]][2] - START_UP_SECONDS if worker.pending else self._timeout
        worker.expect(START_UP_SECONDS if event == "importing" else seconds)
        if event == "ready":
            worker.ready = True
            worker.stderr.close()
        elif event == "started":
            worker.started = True
        elif event == "verdict" and last:
            self._take_back(worker, queue)

    def _take_back(self, worker: _Worker, queue: deque[int], late: bool = False) -> str:
        """Ends the worker; its jobs go back to the head of the queue. Returns how it ended."""
        queue.extendleft(reversed(worker.pending))
        worker.pending.clear()
        ending = self._remove(worker)
        self._fruitless += 1
        if self._fruitless > self._size + 2:
            raise RuntimeError(
                f"verifier workers do not start: {self._fruitless} in a row ended before they were at a job, "
                f"the last one with {ending}{f' (not ready after {worker.patience:g} s)' if late else ''}"
            )
        return ending

    def _give_up(self, worker: _Worker, queue: deque[int], verdicts: dict[int, Verdict], late: bool = False) -> None:
        """Ends a worker that has died or, if `late`, hangs; the item that it was at gets a verdict that says so."""
        item = worker.pending.popleft() if worker.started and worker.pending else None
        if item is not None:
            self._fruitless = 0
        ending = self._take_back(worker, queue, late)
        if item is not None:
            error = f"timed out after {worker.patience:g} s" if late else f"verifier process died ({ending})"
            verdicts[item] = failure(error)
