"""The choice of the sandbox engine of this machine: each is tested with attacks, best first.

`namespaces`: own user, pid, mount, ipc and network namespaces, a root with only the standard library, its own /tmp in
memory; Landlock, seccomp, limits, no capabilities. Needs Linux, user namespaces, Landlock.

`landlock`: Landlock, seccomp and limits. No writable folder, so programs that use `tempfile` fail; and a program can
find out which paths exist. Needs Linux 5.13 with Landlock.

`none`: limits of CPU time and memory only, for trusted programs. Must be requested by name.

On machines other than x86_64 and aarch64, or without Linux, only `none` works.
"""

import contextlib
import functools
import logging
import os
import socket
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlvr_jax.sandbox import codec
from rlvr_jax.sandbox.host import JobError, Limits, Sandbox, SandboxError

ENGINES = ("namespaces", "landlock")
UNSAFE = "none"
_LIMITS = Limits(cpu_seconds=5, wall_seconds=20.0, memory_bytes=1 << 30)
_SECRET = "what only the host knows"
_log = logging.getLogger(__name__)

# Each function tries one escape and returns whether it succeeded.
_ESCAPES = """
import os, posix, socket, ctypes

def read(path):
    return len(open(path).read()) > 0

def write(path):
    open(path, "w").write("x")
    return True

def processes(number):
    return len(open(f"/proc/{number}/environ", "rb").read()) >= 0

def signal(number):
    os.kill(number, 0)
    return True

def tcp(port):
    socket.create_connection(("127.0.0.1", port), 1)
    return True

def abstract_socket(name):
    socket.socket(socket.AF_UNIX).connect("\\0" + name)
    return True

def fork(_):
    if posix.fork() == 0:
        os._exit(0)
    return True

def settings(_):
    os.close(os.open("/proc/sys/kernel/core_pattern", os.O_WRONLY))
    return True

def namespace(_):
    return ctypes.CDLL(None).unshare(0x10000000) == 0

def environment(name):
    return name in os.environ
"""


def _attempts(sandbox: Sandbox, arguments: dict[str, Any]) -> list[str]:
    """The names of the successful escapes and of other faults."""
    with sandbox.job("program", _LIMITS) as job:
        loaded = job.ask({"program": _ESCAPES, "room": job.room})
        if "ok" not in loaded:
            raise SandboxError(f"{sandbox.engine}: the trial program does not load: {loaded}")
        wrong = ["it runs as root"] if job.user == 0 else []
        for name, argument in arguments.items():
            function = job.ask({"do": "global", "args": [name]})["ok"]
            answer = job.ask({"do": "call", "args": [function, codec.encode(argument)]})
            if answer.get("ok") is True:
                wrong.append(f"{name} succeeds")
            elif not (answer.get("ok") is False or "raised" in answer):
                raise SandboxError(f"{sandbox.engine}: no clear answer to the attempt {name!r}: {answer}")
    return wrong


def weaknesses(sandbox: Sandbox) -> list[str]:
    """The escapes of a short list that succeed when tried in this sandbox."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o777)
        canary = folder / "canary"
        canary.write_text(_SECRET)
        canary.chmod(0o666)
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        arguments: dict[str, Any] = {
            "read": str(canary),
            "write": str(canary),
            "processes": os.getpid(),
            "signal": os.getpid(),
            "tcp": tcp.getsockname()[1],
            "fork": None,
            "settings": None,
            "namespace": None,
            "environment": next((name for name in os.environ if name not in ("HOME", "LC_ALL", "PATH", "TZ")), "x"),
        }
        if os.uname().sysname == "Linux":
            name = f"rlvr_{os.getpid()}_{id(canary)}"
            abstract = stack.enter_context(socket.socket(socket.AF_UNIX))
            abstract.bind("\0" + name)
            abstract.listen()
            arguments["abstract_socket"] = name
        wrong = _attempts(sandbox, arguments)
        if canary.read_text() != _SECRET or {path.name for path in folder.iterdir()} != {"canary"}:
            wrong.append("it changed a file of this machine")
        return wrong


def open_sandbox(engine: str = "auto", packages: Sequence[str] = ()) -> Sandbox:
    """A sandbox of the best engine that works on this machine, or of the named one.

    Args:
      engine: `auto`, or a name of the table above. `auto` never selects `none`.
      packages: installed packages that programs may import besides the standard library, read-only.

    Raises:
      ValueError: there is no such engine, or a package is not installed.
      SandboxError: it does not work here, or a program could escape; with the reason.
    """
    if engine not in ("auto", *ENGINES, UNSAFE):
        raise ValueError(f"there is no sandbox engine {engine!r}; there are auto, {', '.join(ENGINES)} and {UNSAFE}")
    if engine == UNSAFE:
        _log.warning("programs run WITHOUT a sandbox, as was asked for: they can do whatever this user can")
        return Sandbox(UNSAFE, packages)
    refused = []
    for name in ENGINES if engine == "auto" else (engine,):
        try:
            sandbox = Sandbox(name, packages)
        except SandboxError as error:
            refused.append(str(error))
            continue
        try:
            wrong = weaknesses(sandbox)
        except (SandboxError, JobError, OSError, KeyError) as error:
            wrong = [f"its trial failed: {error!r}"]
        if not wrong:
            _log.info("programs run in the sandbox engine %r", name)
            return sandbox
        sandbox.close()
        refused.append(f"{name}: {'; '.join(wrong)}")
    raise SandboxError(
        f"no sandbox holds on this machine, so no program is run ({' | '.join(refused)}). "
        f"Allow user namespaces or Landlock here, or ask for engine {UNSAFE!r} by name if you trust every program"
    )


@functools.cache
def _of_process(engine: str, packages: tuple[str, ...], process: int) -> dict[str, Sandbox]:
    del engine, packages, process  # a key only: after a fork, the child needs its own sandbox
    return {}


def sandbox_of_process(engine: str = "auto", packages: tuple[str, ...] = ()) -> Sandbox:
    """This process's sandbox of the engine with the packages, opened on the first call and cached."""
    held = _of_process(engine, packages, os.getpid())
    if "it" not in held:
        held["it"] = open_sandbox(engine, packages)
    return held["it"]


def discard(engine: str = "auto", packages: tuple[str, ...] = ()) -> None:
    """Closes the sandbox cached by `sandbox_of_process`; the next call opens a new one."""
    if sandbox := _of_process(engine, packages, os.getpid()).pop("it", None):
        sandbox.close()
