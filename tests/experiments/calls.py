"""Commands by call: each in a process of its own, or all in one, where they share what is compiled."""

import contextlib
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import jax
import psutil
from absl.testing import flagsaver

from rlvr_jax import named
from tests.experiments import runs

_FORKS = multiprocessing.get_context("forkserver")
_MOST_MEMORY = 2 << 30  # bytes of the process that runs all commands
_CLIENT = Path(__file__).with_name("forked.py")


@contextlib.contextmanager
def forking() -> Iterator[str]:
    """Address for `forked.py`, whose commands are forked one at a time."""
    with _listening() as (address, calls):
        answering = threading.Thread(target=_answer, args=(calls, _fork))
        answering.start()
        try:
            yield address
        finally:
            calls.shutdown(socket.SHUT_RDWR)
            answering.join()


@contextlib.contextmanager
def one_process() -> Iterator[str]:
    """Address for `forked.py`, `call` and `run_script`, whose commands run one after the other in one forked process.

    They share what JAX has traced and compiled, as the cells of a notebook do. What else they leave is undone: flags,
    imports of their folder, environment. The workers of their sweeps are forked.
    """
    with forking() as address, _listening() as (here, calls):
        variables = {"RUN_FORKS": address, "RUN_WORKER": "tests.sweeps.forked_worker"}
        process = _FORKS.Process(target=_serve, args=(calls, variables), daemon=True)
        process.start()
        try:
            yield here
        finally:
            calls.shutdown(socket.SHUT_RDWR)
            process.join()


@contextlib.contextmanager
def _listening() -> Iterator[tuple[str, socket.socket]]:
    with tempfile.TemporaryDirectory() as place, socket.socket(socket.AF_UNIX) as calls:
        calls.bind(address := f"{place}/calls")
        calls.listen()
        yield address, calls


def _answer(calls: socket.socket, run: Callable[..., int]) -> None:
    """Runs what is called, one after the other, until the socket is shut."""
    with contextlib.suppress(OSError):
        while True:
            call, _ = calls.accept()
            with call, call.makefile("rw") as stream:
                files, (module, *arguments), cwd, environment, path = json.loads(stream.readline())
                print(run(module, arguments, cwd, environment, files, path), file=stream, flush=True)


def _fork(*command) -> int:
    process = _FORKS.Process(target=runs.become, args=command, daemon=True)
    process.start()
    process.join()
    return process.exitcode


def _serve(calls: socket.socket, variables: Mapping[str, str]) -> None:
    def run(module: str, arguments: list[str], cwd: str, environment: dict[str, str], *rest) -> int:
        return run_here(module, arguments, cwd, environment | variables, *rest)

    try:
        _answer(calls, run)
    finally:
        runs.leave()


def run_here(*command) -> int:
    """The exit status of a command that runs in this process."""
    modules, path, status = set(sys.modules), list(sys.path), 0
    named.load.cache_clear()
    with flagsaver.flagsaver():
        try:
            runs.run_module(*command)
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:  # as an interpreter
            traceback.print_exc()
            status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    runs.take_files([os.devnull] * 3)  # the caller waits until nobody writes to its own any more
    sys.path[:] = path
    files = {name: getattr(sys.modules[name], "__file__", None) or "" for name in set(sys.modules) - modules}
    for name in [name for name, file in files.items() if Path(file).is_relative_to(Path.cwd())]:
        del sys.modules[name]
    if psutil.Process().memory_info().rss > _MOST_MEMORY:
        jax.clear_caches()
    return status


def call(line: list[str], cwd: Path, address: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a command that who listens there runs in a folder, not that of this project."""
    assert line[:2] == [sys.executable, "-m"]
    assert cwd != runs.ROOT  # whose modules would be imported again
    with tempfile.NamedTemporaryFile("r") as out, tempfile.NamedTemporaryFile("r") as err:
        files = [os.devnull, out.name, err.name]
        with socket.socket(socket.AF_UNIX) as other:
            other.connect(address)
            with other.makefile("rw") as stream:
                told = [files, line[2:], str(cwd), runs.with_devices(1), [str(cwd)]]
                print(json.dumps(told), file=stream, flush=True)
                status = stream.readline()
        assert status, "the process of the commands has died"
        return int(status), out.read(), err.read()


def complete(line: list[str], cwd: Path, address: str) -> None:
    """As `call`, of a command that must succeed."""
    status, _, stderr = call(line, cwd, address)
    assert status == 0, stderr


def run_script(script: str, folder: Path, address: str) -> None:
    """Runs a script of a page of the documentation in a folder; each of its commands must succeed.

    Who listens at the address runs its `rlvr`.
    """
    with tempfile.TemporaryDirectory() as place:
        rlvr = Path(place, "rlvr")
        rlvr.write_text(f'#!/bin/sh\nexec "{sys.executable}" -IS "{_CLIENT}" "{address}" experiments.cli "$@"\n')
        rlvr.chmod(0o700)
        environment = runs.with_devices(1)
        environment["PATH"] = f"{place}:{environment['PATH']}"
        line = ["bash", "-ec", script]
        ended = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
