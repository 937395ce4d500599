"""A verifier process: takes chunks of jobs from its pool, and answers each job by itself as soon as it is judged.

Run as `python -m rlvr_jax.verifiers.worker FD MEMORY_BYTES` by `rlvr_jax.verifiers.pool`; FD is
the worker's end of a socket pair. Everything the worker says is a JSON list, since parsing JSON, unlike unpickling,
cannot run code in the trainer's process, whatever a verifier did to this one:

    ["ready"]                                               imports are done, send jobs
    ["started"]                                             the chunk is here; from now on a death is an item's fault
    ["importing"], then ["started"]                         the time in between is not the item's
    ["verdict", score, parts, answer, reason, error, last]  of the next item; `last`: no more will come from this worker
"""

import contextlib
import importlib
import json
import os
import pickle
import signal
import sys
from multiprocessing.connection import Connection

from rlvr_jax import verifiers
from rlvr_jax.verifiers.verdict import Verdict

KIND = "kind "  # no module's name holds a space

with contextlib.suppress(ImportError):  # POSIX only
    import resource


def _limit(kind: int, amount: int) -> None:
    hard = resource.getrlimit(kind)[1]
    if hard != resource.RLIM_INFINITY:
        amount = min(amount, hard)
    with contextlib.suppress(ValueError, OSError):  # some systems know a limit and refuse to set it
        resource.setrlimit(kind, (amount, hard))


def _judge(payload: bytes, memory_bytes: int) -> tuple[Verdict, bool]:
    """The verdict, and whether memory ran out: what a verifier hoards would then make later items fail as well."""
    try:
        verifier, completion, reference, options = pickle.loads(payload)
        if isinstance(verifier, str):
            verifier = verifiers.verifier_of(verifier)
        verdict = verifiers.guarded(verifier, completion, reference, options)
    except MemoryError as error:
        verdict = verifiers.failure(error)
    except Exception as error:
        return verifiers.failure(f"the job cannot be loaded in a worker process: {error!r}"), False
    if (verdict.error or "").startswith("MemoryError"):
        return verifiers.failure(f"MemoryError: more than {memory_bytes} bytes needed in all"), True
    return verdict, False


def prepare(what: str) -> None:
    """Imports a module by its name, or gets a verifier ready by its kind, or its function's name, after `KIND`."""
    if what.startswith(KIND):
        kind = what.removeprefix(KIND)
        verifiers.PREPARE.get(kind, lambda: verifiers.verifier_of(kind))()
    else:
        importlib.import_module(what)


def serve(connection: Connection, memory_bytes: int) -> None:
    """Judges until the pool closes its end, or memory runs out."""

    def say(*message: object) -> None:
        connection.send_bytes(json.dumps(message).encode())

    prepared: set[str] = set()
    process = os.getpid()
    say("ready")
    while True:
        try:
            chunk = pickle.loads(connection.recv_bytes())
        except (EOFError, OSError):
            return
        say("started")
        for what, payload, seconds in chunk:
            # The pool kills a worker that hangs. Should the pool itself be gone by then, this timer ends the worker:
            # the default action of SIGALRM needs no help from the interpreter.
            signal.setitimer(signal.ITIMER_REAL, seconds)
            if what is not None and what not in prepared:
                say("importing")
                with contextlib.suppress(Exception):  # the item meets the same exception again, and reports it
                    prepare(what)
                prepared.add(what)
                say("started")
            v, last = _judge(payload, memory_bytes)
            if os.getpid() != process:  # the verifier forked: a child's verdict would be taken for another item's
                os._exit(0)
            say("verdict", v.score, dict(v.parts), v.answer, v.reason, v.error, last)
            if last:
                return
        signal.setitimer(signal.ITIMER_REAL, 0)


def main() -> None:
    """Judges the items that come through the pipe until it closes."""
    # Ctrl-C and pre-emption signals go to whole process groups or jobs, and are for the trainer to act on; a worker
    # ends when the pipe closes. Handlers that do nothing, because SIG_IGN would be inherited by what verifiers start.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))
    fd, memory_bytes = int(sys.argv[1]), int(sys.argv[2])
    os.set_inheritable(fd, False)
    _limit(resource.RLIMIT_AS, memory_bytes)
    _limit(resource.RLIMIT_CORE, 0)
    # What verifiers print has no reader, and a file to hold it would have no bound. Until here stderr is the pool's.
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    status = 1
    try:
        serve(Connection(fd), memory_bytes)
        status = 0
    finally:
        os._exit(status)  # at once, whatever threads a verifier has left behind


if __name__ == "__main__":
    main()
