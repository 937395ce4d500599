"""A pool of host processes for verdicts and tool calls, each bounded in time and memory."""

import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future

from rlvr_jax.verifiers.dispatcher import Dispatcher, PoolError
from rlvr_jax.verifiers.jobs import Job, ToolCall, ToolError, call_of, order_of, perform, resolve
from rlvr_jax.verifiers.processes import Item
from rlvr_jax.verifiers.verdict import Verdict

__all__ = ["MIN_MEMORY_BYTES", "Job", "Pool", "PoolError", "ToolCall", "ToolError"]

MIN_MEMORY_BYTES = 128 << 20  # an interpreter with the verifiers imported, and some room to work in


class Pool:
    """Processes that judge and call tools; a context manager, at whose end they are gone.

    The processes start with the pool, and jobs wait for them, so that they can start while something else does, such
    as JAX. A thread of the pool serves them: results arrive while the caller is busy or waits for a device.
    """

    def __init__(self, workers: int, timeout: float = 5.0, memory_bytes: int = 1 << 30):
        """Starts the processes.

        Args:
          workers: number of processes. With 0, jobs are done in this process as they are submitted, without protection
            from one that hangs or dies, and may be of any function: for notebooks.
          timeout: seconds that a job may take if it has no limit of its own. Verifiers that bound CPU time themselves
            (`LONGEST`) may take as long as that needs on a busy machine.
          memory_bytes: address space of one worker, interpreter included; not enforced on macOS.

        Raises:
          ValueError: an argument is out of its range.
          PoolError: the machine can't start another process.
        """
        if workers < 0:
            raise ValueError(f"workers must be 0 or more, not {workers}")
        if not 0 < timeout < float("inf"):
            raise ValueError(f"timeout must be a positive number of seconds, not {timeout}")
        if memory_bytes < MIN_MEMORY_BYTES:
            raise ValueError(f"memory_bytes must be at least {MIN_MEMORY_BYTES}, not {memory_bytes}")
        self._timeout = timeout
        self._largest = memory_bytes // 8  # a worker needs several times the size of a job to receive it
        self._closed = False
        self._here = threading.RLock()  # held by who does jobs in this process
        self._dispatcher = Dispatcher(workers, memory_bytes) if workers else None
        if self._dispatcher:
            weakref.finalize(self, self._dispatcher.close)

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def process_ids(self) -> list[int]:
        """Of the processes that there are now."""
        return self._dispatcher.process_ids if self._dispatcher else []

    def close(self) -> None:
        """Ends the processes and the thread; futures without a result get a `PoolError`. A second call does nothing."""
        self._closed = True
        if self._dispatcher:
            self._dispatcher.close()
            self._dispatcher.join()

    def submit(self, jobs: Sequence[Job | ToolCall]) -> list[Future]:
        """Futures of the results, in the order of the jobs. Returns at once; any thread may call it.

        Jobs are handed to workers in the order of submission. `future.cancel()` removes a job that no worker has yet.
        Callbacks of futures run in the pool's thread and must be short.

        If a job raises, hangs, runs out of memory or takes its process down, its own future says so, and no other is
        affected: that of a `Job` by `Verdict.error`, that of a `ToolCall` by a `ToolError`.

        Raises:
          ValueError: a job names a function that does not exist, or cannot be sent to a process; nothing is submitted.
          PoolError: the pool is closed. Futures raise it, too, if the pool is closed before they have a result, or if
            its workers do not start.
        """
        if self._closed:
            raise PoolError("the verifier pool is closed")
        if self._dispatcher is None:
            return self._do_here([call_of(job) for job in jobs])
        items = [Item(order_of(i, job, self._timeout), isinstance(job, Job)) for i, job in enumerate(jobs)]
        large = [item for item in items if len(item.order[1]) > self._largest]
        for item in large:
            why = f"the job has {len(item.order[1])} bytes; a worker takes up to {self._largest}"
            resolve(item.future, item.judged, ["failure", why])
        self._dispatcher.put([item for item in items if item not in large] if large else items)
        return [item.future for item in items]

    def judge(self, jobs: Sequence[Job]) -> list[Verdict]:
        """The verdicts, in the order of the jobs: `submit`, and wait. If it is interrupted, the jobs are given up.

        Raises:
          ValueError, PoolError: as `submit`.
        """
        if self._dispatcher and self._dispatcher.is_own_thread:
            raise RuntimeError("a callback of a future can't wait for the pool that calls it; let it submit")
        futures = self.submit(jobs)
        try:
            # From the end: one long wait for what is done late, and then no more.
            return [future.result() for future in reversed(futures)][::-1]
        except BaseException:
            if self._dispatcher:
                self._dispatcher.abandon(futures)
            raise

    def _do_here(self, calls: Sequence) -> list[Future]:
        futures = []
        for call in calls:
            future = Future()
            with self._here:
                event = perform(call)
            resolve(future, call[0], event)
            futures.append(future)
        return futures
