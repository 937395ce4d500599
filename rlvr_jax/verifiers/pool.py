"""A pool of host processes for verdicts and tool calls, each bounded in time and memory."""

import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from rlvr_jax.errors import ConfigError
from rlvr_jax.verifiers import INSTANT
from rlvr_jax.verifiers.dispatcher import Dispatcher, PoolError
from rlvr_jax.verifiers.jobs import Call, Job, ToolCall, ToolError, call_of, order_of, perform, resolve, verdict_of
from rlvr_jax.verifiers.processes import Item
from rlvr_jax.verifiers.verdict import Verdict

__all__ = ["MIN_MEMORY_BYTES", "Job", "Pool", "PoolError", "ToolCall", "ToolError", "VerifierConfig", "make_pool"]

_MOST_WORKERS = 4096
_SHORT = 1 << 16  # characters of a completion
_SHORTEST = 0.01  # seconds of a job; a timer that rings more often leaves no time to it
MIN_MEMORY_BYTES = 128 << 20  # an interpreter with the verifiers imported, and some spare memory


@dataclass(frozen=True)
class VerifierConfig:
    """The pool of host processes for verifiers and tools.

    Attributes:
      workers: processes; 0 judges in the training process, without limits.
      timeout: seconds per completion; also of one call of your own reward terms, advantages and environments, which
        run in the training process.
      memory_mib: address space of each process.
    """

    workers: int = 2
    timeout: float = 10.0
    memory_mib: int = 2048


class Pool:
    """Processes for verifiers and tools; a context manager that ends them.

    The processes start asynchronously, so that they can start while JAX does. A thread of the pool serves them: results
    arrive while the caller is busy or waits for a device.
    """

    def __init__(self, workers: int, timeout: float = 5.0, memory_bytes: int = 1 << 30):
        """Starts the processes.

        Args:
          workers: number of processes. With 0, jobs run in this process on submission, without limits, and may be of
            any function: for notebooks.
          timeout: default limit of a job in seconds. Verifiers that limit CPU time themselves (`LONGEST`) have more,
            for busy machines.
          memory_bytes: address space of one worker, interpreter included; not enforced on macOS.

        Raises:
          ValueError: an argument is out of its range.
          PoolError: the machine can't start another process.
        """
        if workers < 0:
            raise ValueError(f"workers must be 0 or more, not {workers}")
        if workers > _MOST_WORKERS:
            raise ValueError(f"workers must be at most {_MOST_WORKERS}, not {workers}")
        if not _SHORTEST <= timeout < float("inf"):
            raise ValueError(f"timeout must be a number of seconds, at least {_SHORTEST}, not {timeout}")
        if memory_bytes < MIN_MEMORY_BYTES:
            raise ValueError(f"memory_bytes must be at least {MIN_MEMORY_BYTES}, not {memory_bytes}")
        self._timeout = timeout
        self._largest = memory_bytes // 8  # receiving a job needs several times its size
        self._closed = False
        self._here = threading.RLock()  # held while jobs run in this process
        self._dispatcher = Dispatcher(workers, memory_bytes) if workers else None
        if self._dispatcher:
            weakref.finalize(self, self._dispatcher.close)

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def process_ids(self) -> list[int]:
        """The ids of the current processes."""
        return self._dispatcher.process_ids if self._dispatcher else []

    def close(self) -> None:
        """Ends the processes and the thread; unresolved futures get a `PoolError`. Idempotent."""
        self._closed = True
        if self._dispatcher:
            self._dispatcher.close()
            self._dispatcher.join()

    def submit(self, jobs: Sequence[Job | ToolCall]) -> list[Future]:
        """Futures of the results, in the order of the jobs. Returns immediately; thread-safe.

        Jobs start in order of submission. `future.cancel()` removes a job that has not started. Callbacks of futures
        run in the pool's thread and must be short. Those of verifiers that take no time (`INSTANT`) have their results
        on return.

        If a job raises, hangs, runs out of memory or kills its process, only its own future is affected: that of a
        `Job` has a `Verdict.error`, that of a `ToolCall` raises a `ToolError`.

        Raises:
          ValueError: a job names a function that does not exist, or cannot be sent to a process; then none is
            submitted.
          PoolError: the pool is closed. Futures raise it, too, if the pool is closed before they are resolved, or its
            workers do not start.
        """
        if self._closed:
            raise PoolError("the verifier pool is closed")
        if self._dispatcher is None:
            return [self._do_here(call) for call in [call_of(job) for job in jobs]]
        items = {
            i: Item(order_of(i, job, self._timeout), isinstance(job, Job))
            for i, job in enumerate(jobs)
            if not _is_instant(job)
        }
        large = [i for i, item in items.items() if len(item.order[1]) > self._largest]
        for i in large:
            why = f"the job has {len(items[i].order[1])} bytes; a worker takes up to {self._largest}"
            resolve(items[i].future, items[i].judged, ["failure", why])
        if items:
            self._dispatcher.put([item for i, item in items.items() if i not in large])
        return [items[i].future if i in items else self._do_here(call_of(job)) for i, job in enumerate(jobs)]

    def judge(self, jobs: Sequence[Job]) -> list[Verdict]:
        """The verdicts, in the order of the jobs: `submit`, and wait. An interrupt cancels the jobs.

        Raises:
          ValueError, PoolError: as `submit`.
        """
        if self._dispatcher and self._dispatcher.is_own_thread:
            raise RuntimeError("a callback of a future can't wait for the pool that calls it; let it submit")
        futures = self.submit(jobs)
        try:
            # From the end: one long wait instead of many short ones.
            return [future.result() for future in reversed(futures)][::-1]
        except BaseException:
            if self._dispatcher:
                self._dispatcher.abandon(futures)
            raise

    def _do_here(self, call: Call) -> Future:
        judged = call[0]
        with self._here:
            result = verdict_of(call) if judged else perform(call)
        if judged:
            return _Resolved(result)
        future: Future = Future()
        resolve(future, judged, result)
        return future


_FINISHED: Future = Future()
_FINISHED.set_result(None)


class _Resolved(Future):
    """A future that has its result from the start, made in a tenth of the time: its state is that of all others."""

    def __init__(self, result: Any) -> None:
        self._result = result

    def __getattr__(self, name: str) -> Any:
        return getattr(_FINISHED, name)

    def done(self) -> bool:
        return True

    def result(self, timeout: float | None = None) -> Any:  # noqa: ARG002
        return self._result


def _is_instant(job: Job | ToolCall) -> bool:
    known = isinstance(job, Job) and isinstance(job.verifier, str) and isinstance(job.completion, str)
    return known and job.verifier in INSTANT and len(job.completion) <= _SHORT


def make_pool(options: VerifierConfig) -> Pool:
    """The processes of a config. Start them before JAX touches a device.

    Raises:
      ConfigError: an option is out of its range.
    """
    try:
        return Pool(options.workers, options.timeout, options.memory_mib << 20)
    except ValueError as error:
        raise ConfigError(f"config.verifier: {error}") from error
