"""The host's side of the sandbox: a zygote and the jobs that it forks.

Messages of a job are untrusted: they are bounded and decoded by `rlvr_jax.sandbox.codec`, and a job that sends invalid,
too much or no data is killed. The kernel limits its CPU time. A second limit, on wall time, is for jobs that sleep or
wait: its clock stops while the job waits for a core, so results do not depend on the load of the machine.
"""

import contextlib
import importlib.util
import json
import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr_jax.sandbox import codec

START_SECONDS = 60.0  # for a zygote, or a job before it reads its program, on a busy machine
_PATIENCE = 20  # maximum multiple of its limits that a job may take because it waits for a core
_PROMPT_SECONDS = 0.05  # within these the clocks are not checked
_PACKAGE_ROOT = str(Path(__file__).parents[2])
_ENVIRONMENT = {
    "HOME": "/tmp",
    "LC_ALL": "C.UTF-8",
    "PATH": "/usr/bin:/bin",
    "PYTHONHASHSEED": "0",
    "PYTHONUTF8": "1",
    "TZ": "UTC",
}


class SandboxError(RuntimeError):
    """The sandbox does not work on this machine, or has failed; not the fault of a program."""


class JobError(Exception):
    """A job that ended without an answer: too long, too much, or dead. The message is for the verdict's reason."""


@dataclass(frozen=True)
class Limits:
    """The limits of a job.

    Attributes:
      cpu_seconds: CPU time of the whole job, enforced by the kernel; an integer.
      wall_seconds: time asleep or waiting.
      memory_bytes: address space, interpreter included.
      output_bytes: of a script. (For return values of functions see `codec`.)
    """

    cpu_seconds: int = 6
    wall_seconds: float = 6.0
    memory_bytes: int = 1 << 30
    output_bytes: int = 4 << 20

    def __post_init__(self) -> None:
        if not (isinstance(self.cpu_seconds, int) and 1 <= self.cpu_seconds <= 3600):
            raise ValueError(f"cpu_seconds must be a whole number from 1 to 3600, not {self.cpu_seconds!r}")
        if not 0 < self.wall_seconds <= 36000:
            raise ValueError(f"wall_seconds must be positive and at most 36000, not {self.wall_seconds!r}")
        if not (isinstance(self.memory_bytes, int) and self.memory_bytes >= 128 << 20):
            raise ValueError(f"memory_bytes must be at least {128 << 20}, not {self.memory_bytes!r}")
        if not (isinstance(self.output_bytes, int) and self.output_bytes >= 1):
            raise ValueError(f"output_bytes must be positive, not {self.output_bytes!r}")

    @property
    def longest_seconds(self) -> float:
        """Seconds after which a job is killed on any machine: far more than it can use by itself."""
        return _PATIENCE * (self.cpu_seconds + self.wall_seconds)


def _held_up_seconds(process: int | None) -> float | None:
    """Seconds for which a process has run or waited for a core; None if unknown, or if it is gone."""
    try:
        running, waiting, _ = Path(f"/proc/{process}/schedstat").read_text().split()
    except (OSError, ValueError):
        return None
    return (int(running) + int(waiting)) / 1e9


class Job:
    """One process of the sandbox; a context manager that kills it at the end.

    `process` and `user` are its ids on the host, None if unknown.
    """

    def __init__(self, connection: socket.socket, status: socket.socket, limits: Limits):
        self.connection, self.status, self.limits = connection, status, limits
        self.process: int | None = None
        self.user: int | None = None
        self.others: list[Job] = []  # whose time is not time that this one waits
        self.room = codec.HOST_BYTES, codec.HOST_ITEMS  # limits of messages to the host, in bytes and items
        self._idle = 0.0  # seconds waited so far
        self._deadline = time.monotonic() + START_SECONDS
        self._ending: dict[str, Any] | None = None

    def __enter__(self) -> "Job":
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()
        self.end()
        self.status.close()

    def await_ready(self) -> None:
        """Waits until the job is confined."""
        self.wait({self.connection: select.POLLIN}, START_SECONDS)
        received, ancillary, *_ = self.connection.recvmsg(1000, 256)
        if received != b"r":
            why = received[1:].decode(errors="replace") or self.ending()
            raise SandboxError(f"a job could not be confined: {why}")
        for level, kind, data in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, getattr(socket, "SCM_CREDENTIALS", None)):
                self.process, self.user, _ = struct.unpack("3i", data[:12])
        self._idle, self._deadline = 0.0, time.monotonic() + self.limits.longest_seconds

    def _held_up(self) -> float | None:
        seconds = [_held_up_seconds(job.process) for job in (self, *self.others)]
        return None if None in seconds else sum(seconds)

    def wait(self, events: dict[Any, int], seconds: float | None = None) -> list[int]:
        """The file descriptors with an event.

        Raises JobError when the job's total waiting exceeds its limit of wall time, or `seconds`. Computing and waiting
        for a core do not count.
        """
        limit = self.limits.wall_seconds if seconds is None else seconds
        poll = select.poll()
        for file, event in events.items():
            poll.register(file, event)
        if not (ready := poll.poll(min(limit, _PROMPT_SECONDS) * 1000)):
            since, before, worked = time.monotonic(), self._idle, self._held_up()
            while not ready:
                ready = poll.poll(max(0.0, limit - self._idle) * 1000 + 1)
                now, work = time.monotonic(), self._held_up()
                if work is not None or worked is None:  # otherwise it is gone, and its usage unknown
                    self._idle = before + (now - since) - ((work or 0.0) - (worked or 0.0))
                if not ready and (self._idle >= limit or now >= self._deadline):
                    raise JobError(f"timed out: waited for more than {limit:g} s")
        return [file for file, _ in ready]

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            self.wait({self.connection: select.POLLOUT})
            try:
                rest = rest[self.connection.send(rest, socket.MSG_DONTWAIT) :]
            except BlockingIOError:
                continue
            except OSError:
                raise JobError(self.ending()) from None

    def send(self, message: dict[str, Any]) -> None:
        """Sends a message. Raises CodecError if it is too large, JobError if the job does not receive it."""
        self._write(codec.framed(message))

    def send_bytes(self, data: bytes) -> None:
        """Four bytes of length, and the data."""
        self._write(len(data).to_bytes(4, "big") + data)

    def _read(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            self.wait({self.connection: select.POLLIN})
            try:
                part = self.connection.recv(min(count - len(data), 1 << 16), socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue
            except OSError:
                part = b""
            if not part:
                raise JobError(self.ending())
            data += part
        return bytes(data)

    def receive(self) -> dict[str, Any]:
        """The next message. Raises JobError if it is late or invalid."""
        length = int.from_bytes(self._read(4), "big")
        if length > self.room[0]:
            raise JobError("sent what is not an answer")
        try:
            return codec.loads(self._read(length))
        except codec.CodecError:
            raise JobError("sent what is not an answer") from None

    def ask(self, message: dict[str, Any]) -> dict[str, Any]:
        """The answer to a message."""
        self.send(message)
        return self.receive()

    def end(self) -> dict[str, Any]:
        """Kills the job if it lives, waits until it is gone, and returns how it ended: `code` as of `os.wait`,
        `cpu` seconds, `rss` as of `getrusage`."""
        if self._ending is None:
            with contextlib.suppress(OSError):  # it has already ended, possibly with its zygote
                self.status.sendall(b"k")
            self.status.settimeout(START_SECONDS)
            try:
                self._ending = json.loads(self.status.recv(4096))
            except (OSError, ValueError):
                self._ending = {"code": -1, "cpu": 0.0, "rss": 0}
        return self._ending

    def ending(self) -> str:
        """A description of a job's end, after it has closed its connection; waits for it within the limits."""
        if self._ending is None:
            self.wait({self.status: select.POLLIN})
        end = self.end()
        if end["code"] == -1:
            return "the sandbox broke down"
        code = os.waitstatus_to_exitcode(end["code"])
        if code == -9 and end["cpu"] > self.limits.cpu_seconds - 0.5:
            return f"timed out: more than {self.limits.cpu_seconds} s of CPU time"
        return f"its process ended early ({f'signal {-code}' if code < 0 else f'exit code {code}'})"


class Sandbox:
    """A zygote of one engine; a context manager that ends it and its jobs. Thread-safe."""

    def __init__(self, engine: str, packages: Sequence[str] = ()):
        """Starts the zygote.

        Args:
          engine: see `rlvr_jax.sandbox.engine`.
          packages: installed packages that programs may import besides the standard library, read-only.

        Raises:
          ValueError: a package is not installed.
          SandboxError: the engine does not work here; with the reason.
        """
        self.engine = engine
        folders = {name: package_folders(name) for name in packages}
        self._lock = threading.Lock()
        ours, theirs = socket.socketpair()
        boot = (
            f"import sys; sys.path.insert(0, {_PACKAGE_ROOT!r}); from rlvr_jax.sandbox import zygote; "
            f"del sys.path[0]; zygote.main({engine!r}, {theirs.fileno()}, {folders!r})"
        )
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115
        with theirs:
            self._zygote = subprocess.Popen(
                [interpreter(engine), "-S", "-B", "-P", "-c", boot],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=self._errors,
                env=_ENVIRONMENT,
                cwd="/",
            )
        self._control = ours
        try:
            ours.settimeout(START_SECONDS)
            if ours.recv(1) != b"r":
                raise OSError("the zygote has ended")
        except OSError as error:
            self.close()
            raise SandboxError(f"{engine}: {self._why or error}") from error

    def __enter__(self) -> "Sandbox":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the zygote. Idempotent."""
        if self._errors.closed:
            return
        self._control.close()
        try:
            self._zygote.wait(5.0)
        except subprocess.TimeoutExpired:
            self._zygote.kill()
            self._zygote.wait()
        self._errors.seek(0)
        self._why = self._errors.read()[-1000:].decode(errors="replace").strip()
        self._errors.close()

    def job(self, kind: str, limits: Limits, files: Sequence[int] = (), stdin: bytes | None = None) -> Job:
        """Starts a job, confined and waiting for its first message.

        Args:
          kind: `program`, `script` or `tests`, see `rlvr_jax.sandbox.job` and `trial`.
          limits: of the job.
          files: further file descriptors for it: a script's output and errors; the connection of tests to their
              program.
          stdin: standard input of a script.

        Raises:
          SandboxError: the zygote has died.
        """
        ours, theirs = socket.socketpair()
        status, status_theirs = socket.socketpair()
        job = Job(ours, status, limits)
        if hasattr(socket, "SO_PASSCRED"):
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        request = {"kind": kind, "memory_bytes": limits.memory_bytes, "cpu_seconds": limits.cpu_seconds}
        script = kind == "script"
        own = [theirs.fileno()]
        try:
            with self._lock, theirs, status_theirs:
                socket.send_fds(self._control, [json.dumps(request).encode()], [status_theirs.fileno(), *own, *files])
                if self._control.recv(1) != b"s":
                    raise SandboxError("the zygote has died")
            if script:
                job.send_bytes(stdin or b"")
            job.await_ready()
            if hasattr(socket, "SO_PASSCRED"):
                ours.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
        except (OSError, JobError) as error:
            job.__exit__()
            raise SandboxError(f"the zygote does not start jobs: {error}") from error
        except BaseException:
            job.__exit__()
            raise
        return job


def package_folders(name: str) -> list[str]:
    """The folder of an installed package, and that of its bundled shared libraries, if any.

    Raises:
      ValueError: it is not installed.
    """
    spec = importlib.util.find_spec(name) if isinstance(name, str) and name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations or spec.origin is None:
        raise ValueError(f"programs are to use the package {name!r}, which is not installed here: pip install {name}")
    folder = Path(spec.origin).resolve().parent
    return [str(path) for path in (folder, folder.with_name(f"{folder.name}.libs")) if path.is_dir()]


def interpreter(engine: str) -> str:
    """The Python to run: this one; for Landlock started by root, one of the same version readable by any user."""
    here = str(Path(sys.executable).resolve())
    if engine != "landlock" or os.geteuid() != 0:
        return here
    elsewhere = f"/usr/bin/python3.{sys.version_info.minor}"
    return here if _anyone_may_read(Path(os.__file__)) or not Path(elsewhere).exists() else elsewhere


def _anyone_may_read(path: Path) -> bool:
    return all(folder.stat().st_mode & 0o005 == 0o005 for folder in path.resolve().parents)
