"""A process that makes runs of a sweep one after another, so that Python, JAX and the verifiers start once for all.

Run as `python -m rlvr_jax.sweeps.worker [CORE ...]` by `rlvr_jax.sweeps.workers`, on these cores or all. A line of JSON
on stdin is a job:

    {"job": "check" | "sft" | "rl", "run": "sft" | "rl", "config": {}, "folder": "", "needs": bool, "log": "",
     "argv": []}

and a line on stdout is its end:

    {"status": "finished" | "failed" | "stopped" | "in use", "error": "", "seconds": 0, "cpu_seconds": 0, "place": {}}

The job writes to the file `log`. After a run that failed or was stopped the process ends, since what it left behind is
unknown. When stdin is closed, a run is stopped as by SIGTERM: nobody would hear of it any more.
"""

import contextlib
import gc
import json
import logging
import os
import queue
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlvr_jax.config import Config, VerifierConfig, from_dict
from rlvr_jax.errors import InUseError, PreemptedError, RunError
from rlvr_jax.parallel.host import keep_freed_memory, same_kernels_each_time
from rlvr_jax.sweeps.place import place
from rlvr_jax.verifiers.pool import Pool, make_pool

_LONGEST = 3000  # characters of an error: a line that a pipe takes whole
_MUCH = 2 << 30  # bytes


def main() -> None:
    """Does the jobs of stdin, until it is closed or one of them fails."""
    if cores := set(map(int, sys.argv[1:])):
        os.sched_setaffinity(0, cores)  # before XLA counts them
    answers = os.dup(1)
    os.dup2(2, 1)
    jobs: queue.Queue[Mapping[str, Any] | None] = queue.Queue()
    threading.Thread(target=_read, args=(jobs,), daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # while no run defers it
    keep_freed_memory()
    same_kernels_each_time()
    logging.getLogger("absl").setLevel(logging.CRITICAL)  # Orbax logs every file that it writes
    with Pools() as pools:
        while (job := jobs.get()) is not None:
            answer = do(job, pools)
            os.write(answers, json.dumps(answer).encode() + b"\n")
            if answer["status"] != "finished" and job["job"] != "check":
                return


def _read(jobs: queue.Queue) -> None:
    for line in sys.stdin:
        jobs.put(json.loads(line))
    jobs.put(None)
    os.kill(os.getpid(), signal.SIGTERM)


class Pools:
    """The verifier processes, which go on from run to run as long as their settings are the same."""

    def __init__(self) -> None:
        self._pool: Pool | None = None
        self._settings: VerifierConfig | None = None

    def __enter__(self) -> "Pools":
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool:
            self._pool.close()

    def of(self, config: Config) -> Pool:
        """The pool of a config; raises ConfigError for wrong settings."""
        if config.verifier != self._settings:
            self.__exit__()
            self._pool, self._settings = make_pool(config.verifier), config.verifier
        return self._pool


def do(job: Mapping[str, Any], pools: Pools) -> dict[str, Any]:
    """Does a job; its end."""
    start, cpu = time.perf_counter(), time.process_time()
    status, error = "finished", None
    sys.argv = job["argv"]
    with _output_to(Path(job["log"])):
        try:
            _run(job, pools)
        except PreemptedError:
            status = "stopped"
        except KeyboardInterrupt:
            status = "stopped"
        except InUseError as found:
            status, error = "in use", str(found)
        except (RunError, OSError) as found:
            status, error = "failed", str(found)
        except Exception as found:
            status, error = "failed", f"{type(found).__name__}: {found}"
            traceback.print_exc()
        if error:
            print(f"error: {error}", file=sys.stderr)
    answer = {"status": status, "error": error and error[:_LONGEST]}
    if job["job"] != "check":
        answer |= {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu, "place": place()}
    return answer


def _run(job: Mapping[str, Any], pools: Pools) -> None:
    from rlvr_jax.training.loop import train
    from rlvr_jax.training.setup import check_demonstrations, make_setup
    from rlvr_jax.training.sft import sft
    from rlvr_jax.training.start import check_start

    config = from_dict(job["config"])
    if job["job"] == "check":
        chats = job["run"] == "sft" and bool(config.sft.sources)
        setup = make_setup(config, not chats, job["run"], pool=pools.of(config))
        if job["run"] == "sft" and not chats:
            check_demonstrations(setup)
        if not job["needs"]:  # a warm start that is still to be made can't be looked at
            check_start(setup, Path(job["folder"]))
        return
    if job["job"] == "sft":
        sft(config, Path(job["folder"]))
    else:
        train(config, Path(job["folder"]), pools.of(config))
    _forget()


def _forget() -> None:
    """Frees the run's arrays, and its programs, too, if the process has once taken much memory.

    Runs share most programs. Those of small policies take little memory, and long to trace again.
    """
    import jax

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    if peak > _MUCH:
        jax.clear_caches()  # the compilation cache keeps them
    gc.collect()


@contextlib.contextmanager
def _output_to(path: Path):
    """Stdout and stderr go to a file, of child processes, too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    before = os.dup(2)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(before, 1)
        os.dup2(before, 2)
        os.close(before)


if __name__ == "__main__":
    main()
