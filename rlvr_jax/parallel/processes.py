"""The processes of a run: one, or several that execute the same programs in the same order, usually one on each host.

Every process knows all tokens, rewards and metrics of a step and computes them alike. Small data of the host (verdicts,
signals) are exchanged through the coordination service of `jax.distributed` and not through the devices, so that an
exchange waits behind no decoding loop.
"""

import contextlib
import json
import os
import socket
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

import jax
import numpy as np

from rlvr_jax.errors import ConfigError, DivergedError, PreemptedError, RunError
from rlvr_jax.parallel.lifeline import Lifeline, expired, leave

_LOOK_MILLISECONDS = 2000  # between two waits for another process, in which signals are handled


class Processes:
    """By default a single process, which exchanges nothing; `connected` returns several.

    Attributes:
      index: of this process; the first one, 0, writes the run's files.
      count: of all.
      hosts: the name of each process's machine.
      awaited: the process that this one is waiting for, or None.
    """

    def __init__(self, client: Any = None, index: int = 0, count: int = 1) -> None:
        self.index, self.count, self.hosts = index, count, [socket.gethostname()] * count
        self.awaited: int | None = None
        self._client, self._round, self._lifeline = client, 0, None
        if client is not None:
            self.hosts = self.exchange(socket.gethostname())
            self._lifeline = Lifeline(client, index, [self.name(i) for i in range(count)])

    def name(self, index: int) -> str:
        """`process 1 on HOST`."""
        return f"process {index} on {self.hosts[index]}"

    def exchange(self, value: Any) -> list[Any]:
        """The value of every process, in order. All must call this, in the same order.

        Args:
          value: JSON data, up to a few megabytes.
        """
        if self.count == 1:
            return [value]
        self._round += 1
        self._client.key_value_set_bytes(_key(self._round, self.index), json.dumps(value).encode())
        values = [json.loads(self._get(i)) for i in range(self.count)]
        if self._round > 1:  # every process has sent this round's value, and so has read those of the round before
            self._client.key_value_delete(_key(self._round - 1, self.index))
        return values

    def merged(self, own: Mapping[int, Any]) -> dict[int, Any]:
        """The entries of all processes, whose keys differ."""
        if self.count == 1:
            return dict(own)
        return {int(key): value for part in self.exchange(own) for key, value in part.items()}

    def first(self, value: Any) -> Any:
        """The first value that is not None, in the order of the processes; None if there is none."""
        return next((x for x in self.exchange(value) if x is not None), None)

    def check_equal(self, what: str, arrays: Any) -> None:
        """Raises RunError if these arrays, which every process has computed by itself, differ; names the processes."""
        if self.count == 1:
            return
        sums = self.exchange([zlib.crc32(np.ascontiguousarray(x)) for x in jax.tree.leaves(arrays)])
        others = [self.name(i) for i, theirs in enumerate(sums) if theirs != sums[0]]
        if others:
            raise RunError(
                f"{what} of {', '.join(others)} differs from that of {self.name(0)}: their data differ, or a function "
                "of your own (an advantage, a task) is not a pure function"
            )

    @contextlib.contextmanager
    def first_goes_ahead(self) -> Iterator[None]:
        """Executes the body in the first process and then in the others, for files that the first one makes."""
        if self.index > 0:
            self.exchange(None)
        yield
        if self.index == 0:
            self.exchange(None)

    @contextlib.contextmanager
    def ending_together(self) -> Iterator[None]:
        """Ends the other processes, too, if the body raises what only this process does; see `Lifeline.fail`.

        To be entered after contexts whose exit waits for the other processes.
        """
        try:
            yield
        except (PreemptedError, DivergedError):  # in all processes
            raise
        except BaseException as error:
            if self._lifeline:
                self._lifeline.fail(error)
            raise

    def close(self) -> None:
        """Waits until all processes have come here, unless one has failed."""
        if self._lifeline and not self._lifeline.is_over:
            self.exchange(None)
            self._lifeline.close()

    def end(self, reason: str) -> NoReturn:
        """Ends this process and all others at once; for a thread beside one that hangs."""
        if self._lifeline:
            self._lifeline.fail(RunError(reason))
        leave(RunError.status, reason)

    def _get(self, index: int) -> bytes:
        """The value of a process in this round."""
        self.awaited = index
        while True:
            try:
                value = self._client.blocking_key_value_get_bytes(_key(self._round, index), _LOOK_MILLISECONDS)
            except jax.errors.JaxRuntimeError as error:
                if not expired(error):
                    raise
            else:
                self.awaited = None
                return value


def _key(number: int, index: int) -> str:
    return f"rlvr/exchange/{number}/{index}"


@contextlib.contextmanager
def connected(coordinator: str = "", count: int | None = None, index: int | None = None) -> Iterator[Processes]:
    """The processes of this run, connected by `jax.distributed`; before JAX touches a device.

    Args:
      coordinator: address and port of the first process; "auto" finds out all three arguments (TPU pods, GKE, Slurm,
        MPI); empty for a single process, unless the environment is that of one of several tasks of Slurm or workers of
        GKE.
      count, index: the number of processes, and this one's.

    Raises:
      ConfigError: the arguments don't go together, or the processes could not connect.
    """
    if not coordinator and (count is not None or index is not None):
        raise ConfigError("--num_processes and --process_id need --coordinator=HOST:PORT")
    if not coordinator and not in_cluster(os.environ):
        yield Processes()
        return
    if coordinator in ("", "auto"):
        arguments = {}
    elif count is None or index is None or not 0 <= index < count or ":" not in coordinator:
        raise ConfigError(
            f"--coordinator={coordinator} must be HOST:PORT, with --num_processes=N and --process_id from 0 to N-1 "
            f"(here {count} and {index}); --coordinator=auto finds them out on TPU pods, GKE and Slurm"
        )
    else:
        arguments = {"coordinator_address": coordinator, "num_processes": count, "process_id": index}
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM away from Python
    try:
        jax.distributed.initialize(**arguments)
        processes = Processes(_client(), jax.process_index(), jax.process_count())
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        where = coordinator or "auto"
        raise ConfigError(f"--coordinator={where}: the processes could not connect: {reason}") from error
    try:
        with processes.ending_together():
            yield processes
    finally:
        processes.close()


def in_cluster(environment: Mapping[str, str]) -> bool:
    """True in one of several tasks of a Slurm step, or workers of a TPU slice on GKE."""
    workers = environment.get("TPU_WORKER_HOSTNAMES", "").split(",")
    return int(environment.get("SLURM_STEP_NUM_TASKS", 1)) > 1 or len(workers) > 1


def _client() -> Any:
    """The client of the coordination service, for which JAX has no public name."""
    from jax._src import distributed

    return distributed.global_state.client
