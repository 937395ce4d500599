"""A worker process: receives chunks of jobs from its pool, and answers each job as soon as it is done.

Run as `python -m rlvr_jax.verifiers.worker FD MEMORY_BYTES` by `rlvr_jax.verifiers.processes`; FD is the worker's end
of a socket pair. Everything the worker says is a line of JSON, since parsing JSON, unlike unpickling, cannot run code
in the trainer's process, whatever a job did to this one:

    ["ready"]                        imports are done, send jobs
    ["started"]                      the chunk is here; from now on a death is a job's fault
    ["importing"], then ["started"]  the time in between is not the job's
    [*event, last]                   of the next job, see `jobs.perform`; `last`: no more will come from this worker
"""

import contextlib
import importlib
import json
import os
import pickle
import signal
import socket
import sys
from typing import Any

from rlvr_jax import verifiers
from rlvr_jax.errors import error_text
from rlvr_jax.verifiers import jobs

with contextlib.suppress(ImportError):  # POSIX only
    import resource


def _limit(kind: int, amount: int) -> None:
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        amount = min(amount, hard)
    with contextlib.suppress(ValueError, OSError):  # some systems know a limit and refuse to set it
        resource.setrlimit(kind, (amount, hard))


def _perform(call: bytes, memory_bytes: int) -> tuple[list[Any], bool]:
    """The event, and whether memory ran out: what a job hoards would then make later ones fail as well."""
    try:
        event = jobs.perform(pickle.loads(call))
    except MemoryError as error:
        event = ["failure", error_text(error)]
    except Exception as error:
        return ["failure", f"the job cannot be loaded in a worker process: {error!r}"], False
    if event[0] != "value" and (event[-1] or "").startswith("MemoryError"):
        return ["failure", f"MemoryError: more than {memory_bytes} bytes needed in all"], True
    return event, False


def prepare(what: str) -> None:
    """Imports a module by its name, or gets a verifier ready by its kind, or a function's name, after `VERIFIER`."""
    if what.startswith(jobs.VERIFIER):
        kind = what.removeprefix(jobs.VERIFIER)
        verifiers.PREPARE.get(kind, lambda: verifiers.verifier_of(kind))()
    else:
        importlib.import_module(what)


def serve(connection: socket.socket, memory_bytes: int) -> bool:
    """Executes jobs until the pool closes its end, which is True, or memory runs out."""

    def say(*message: object) -> None:
        connection.sendall(json.dumps(message).encode() + b"\n")

    prepared: set[str] = set()
    process = os.getpid()
    chunks = connection.makefile("rb")
    say("ready")
    while True:
        try:
            chunk = pickle.load(chunks)
        except (EOFError, OSError):
            return True
        say("started")
        for what, call, seconds in chunk:
            # The pool kills a worker that hangs. Should the pool itself be gone by then, this timer ends the worker:
            # the default action of SIGALRM needs no help from the interpreter.
            signal.setitimer(signal.ITIMER_REAL, seconds + jobs.START_UP_SECONDS)
            if what is not None and what not in prepared:
                say("importing")
                with contextlib.suppress(Exception):  # the job raises the same exception again, and reports it
                    prepare(what)
                prepared.add(what)
                say("started")
            event, last = _perform(call, memory_bytes)
            if os.getpid() != process:  # the job forked: a child's answer would be taken for that to another job
                os._exit(0)
            say(*event, last)
            if last:
                return False
        signal.setitimer(signal.ITIMER_REAL, 0)


def main() -> None:
    """Executes the jobs of the socket until it closes."""
    # Ctrl-C and pre-emption signals go to whole process groups or jobs, and are for the trainer to act on; a worker
    # ends when the socket closes. Handlers that do nothing, because SIG_IGN would be inherited by what jobs start.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    fd, memory_bytes = int(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(fd, False)
    _limit(resource.RLIMIT_AS, memory_bytes)
    _limit(resource.RLIMIT_CORE, 0)
    # What jobs print has no reader, and a file to hold it would have no bound. Until here stderr is the pool's.
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    status, alone = 1, False
    try:
        alone = serve(socket.socket(fileno=fd), memory_bytes)
        status = 0
    except OSError:  # there is nobody to answer
        alone = True
    finally:
        if alone and os.getpgrp() == os.getpid():  # nobody else ends what jobs have started, such as servers of tools
            os.killpg(0, signal.SIGKILL)
        os._exit(status)  # immediately, despite threads left by jobs


if __name__ == "__main__":
    main()
