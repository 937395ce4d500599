"""The warm process inside the sandbox from which every job is forked.

Run by `rlvr_jax.sandbox.host` as a new interpreter with an empty environment. It isolates itself, imports common
modules, reports that it is ready, and then forks a job for each request. Starting an interpreter and importing would
take most of a job's time; a fork takes a few milliseconds, and changes that a job makes to its copy do not persist.

The namespaces are those of clone(2): the zygote has its own user, network, mount, pid, ipc and host-name namespaces,
and a root with only the standard library; a job has nested mount, pid and ipc namespaces and its own /tmp. Then it
drops all capabilities and applies Landlock, seccomp and limits.
"""

import contextlib
import fcntl
import gc
import json
import os
import resource
import select
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr_jax.sandbox import codec, job, kernel, seccomp, trial

NOBODY = 65534
_STAGE = "/proc"  # the new root is mounted on it: it exists everywhere, and its content is not needed
SCRATCH_BYTES, SCRATCH_FILES = 64 << 20, 4096
_FILE_BYTES, _OPEN_FILES = 16 << 20, 64
_ALL_FILES = 1 << 20  # more than any process has open
MAX_REQUEST = 1 << 16

# Imported once for all programs: common and slow modules.
_PRELOADED = (
    "abc array base64 bisect calendar cmath collections concurrent.futures.thread copy dataclasses datetime decimal "
    "enum fractions functools hashlib heapq inspect io itertools json math numbers operator queue random re statistics "
    "string struct tempfile textwrap time typing unicodedata warnings"
)

_SEEDED = {"numpy": "numpy.random"}  # the generator that every job seeds
_ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def readable_paths(packages: Sequence[str] = ()) -> list[str]:
    """The folders of the standard library, of the shared libraries that it needs, and of packages besides."""
    library = str(Path(os.__file__).resolve().parent)
    extensions = sys.modules["_json"].__file__ if getattr(sys.modules.get("_json"), "__file__", None) else library
    wanted = ["/lib", "/lib64", "/usr/lib", "/usr/lib64", "/etc/ld.so.cache", "/usr/share/zoneinfo", "/nix/store"]
    wanted += [str(Path(sys.base_prefix).resolve() / "lib"), library, str(Path(extensions).resolve().parent), *packages]
    paths: list[str] = []
    for path in sorted({p for p in wanted if Path(p).exists()}):
        if not any(path.startswith(f"{parent}/") for parent in paths):
            paths.append(path)
    return paths


def _scratch(paths: Sequence[str]) -> str:
    """The private folder of each job with namespaces: /tmp, unless that would hide some of the paths."""
    return "/scratch" if any(path.startswith("/tmp/") for path in paths) else "/tmp"


def _build_root(paths: Sequence[str]) -> None:
    """A root with the paths, /dev/null, /dev/urandom and an empty folder for jobs, and nothing else."""
    kernel.mount(None, "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    kernel.mount("tmpfs", _STAGE, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV, "mode=755,size=1m")
    for path in [*paths, "/dev/null", "/dev/urandom"]:
        kernel.bind(path, _STAGE)
    Path(_STAGE + _scratch(paths)).mkdir()
    kernel.pivot_root(_STAGE)
    kernel.make_read_only("/", devices=True)


def _become_nobody() -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def isolate_with_namespaces(paths: Sequence[str]) -> None:
    """Continues as process 1 of new namespaces, as an ordinary user; raises OSError if that is not possible."""
    seccomp.job_filter(), kernel.landlock_version()  # raises if there is none
    proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    built = False
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):  # root without the capability: a container
            kernel.unshare(kernel.CLONE_NEWNS)
            built = True
        if built:  # while every path can still be read
            _build_root(paths)
        _become_nobody()
        kernel.set_dumpable(True)  # or /proc/self would belong to root
    uid, gid = os.geteuid(), os.getegid()
    kernel.unshare(
        kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWNET | kernel.CLONE_NEWIPC
        | kernel.CLONE_NEWUTS
    )  # fmt: skip
    kernel.map_users(proc, uid, gid)
    os.close(proc)
    if not built:
        _build_root(paths)
    socket.sethostname("sandbox")
    kernel.drop_bounding_capabilities()
    kernel.die_with_parent()
    if child := os.fork():  # the namespace's process 1 is a child; when it ends, all in it end
        os.closerange(3, _ALL_FILES)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) & 255)
    kernel.die_with_parent()


def isolate_with_landlock(paths: Sequence[str]) -> None:
    """Continues as an ordinary user; the rest happens in each job. Raises OSError if that is not possible."""
    seccomp.job_filter(), kernel.landlock_version()
    if os.geteuid() == 0:
        _become_nobody()
    kernel.die_with_parent()
    for path in (os.__file__, *(p for p in paths if p.startswith(sys.base_prefix) or "-packages/" in p)):
        if not os.access(path, os.R_OK):
            raise PermissionError(f"user {os.geteuid()} may not read {path}, which programs need")


@dataclass(frozen=True)
class Confinement:
    """The confinement of every job of an engine, made once: the seccomp filter, and Landlock's rights by path.

    With namespaces, `scratch` is the folder over which each job mounts its own.
    """

    engine: str
    program: bytes
    rights: Mapping[str, int]
    scratch: str = ""


def confinement(engine: str, paths: Sequence[str]) -> Confinement:
    """The confinement for this machine; call it after the zygote has isolated itself."""
    if engine == "none":
        return Confinement(engine, b"", {})
    rights = {"/dev/null": kernel.WRITE_FILE, "/dev/urandom": kernel.READ_FILE}
    if engine == "namespaces":
        scratch = _scratch(paths)
        rights |= {scratch: kernel.WRITE, "/": kernel.READ}
        return Confinement(engine, seccomp.job_filter(writing=True), rights, scratch)
    rights |= dict.fromkeys((path for path in paths if os.access(path, os.R_OK)), kernel.READ)
    return Confinement(engine, seccomp.job_filter(writing=False), rights)


def _confine(how: Confinement, limits: Mapping[str, int]) -> None:
    """Confines this process, a job that has not read its program yet."""
    if sys.platform == "linux" and how.engine != "namespaces":
        kernel.die_with_parent()
    if how.engine == "namespaces":
        options = f"size={SCRATCH_BYTES},nr_inodes={SCRATCH_FILES},mode=777"
        kernel.mount("tmpfs", how.scratch, "tmpfs", kernel.MS_NOSUID | kernel.MS_NODEV | kernel.MS_NOEXEC, options)
        os.chdir(how.scratch)
    _limit(limits["memory_bytes"], limits["cpu_seconds"])
    if how.engine != "none":
        kernel.drop_capabilities()
        kernel.restrict_files(how.rights)
        kernel.set_filter(how.program)


def _limit(memory: int, seconds: int) -> None:
    for kind, amount in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, _FILE_BYTES),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_AS, memory),
    ):
        hard = resource.getrlimit(kind)[1]
        amount = amount if hard == resource.RLIM_INFINITY else min(amount, hard)
        with contextlib.suppress(ValueError, OSError):  # macOS refuses some
            resource.setrlimit(kind, (amount, amount))


def _arrange(files: list[int]) -> None:
    """Renumbers the job's files 0, 1, 2, …, and closes all others; -1 stands for no file."""
    free = 1 + max(2, *files)
    safe = [os.dup2(f, free + i) if f >= 0 else -1 for i, f in enumerate(files)]
    null = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(null, number)
    for number, file in enumerate(safe):
        if file >= 0:
            os.dup2(file, number)
    os.closerange(max(3, len(files)), _ALL_FILES)


def _stdin(text: bytes) -> int:
    """A read-only file with the text."""
    if not hasattr(os, "memfd_create"):
        import tempfile

        with tempfile.TemporaryFile() as file:
            file.write(text)
            file.seek(0)
            return os.dup(file.fileno())
    file = os.memfd_create("stdin", os.MFD_ALLOW_SEALING)
    rest = memoryview(text)
    while rest:
        rest = rest[os.write(file, rest) :]
    os.lseek(file, 0, os.SEEK_SET)
    fcntl.fcntl(file, fcntl.F_ADD_SEALS, 0xF)  # seal, shrink, grow, write
    return file


def run_job(how: Confinement, request: dict[str, Any], files: list[int]) -> None:
    """Runs a job's process. `files` of the request are the connection, then those of its kind."""
    status = 1
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        kind = request["kind"]
        if kind == "script":
            connection, output, errors = files
            stdin = _stdin(_read_all(connection))
            _arrange([stdin, output, errors, connection])
        else:
            _arrange([-1, -1, -1, *files])
        job.prepare()
        try:
            _confine(how, request)
        except OSError as error:
            os.write(job.CHANNEL, f"e{error}".encode())
            return
        os.write(job.CHANNEL, b"r")  # confined: the host may send the program
        {"program": job.serve_program, "script": job.run_script, "tests": trial.run}[kind]()
        status = 0
    except EOFError:
        status = 0
    finally:
        os._exit(status)


def _read_all(connection: int) -> bytes:
    """Standard input comes first, with its length in four bytes before it."""
    length = int.from_bytes(codec.read_exactly(connection, 4), "big")
    return codec.read_exactly(connection, length)


def _fork(engine: str) -> int:
    if engine == "namespaces":
        return kernel.clone(kernel.CLONE_NEWNS | kernel.CLONE_NEWPID | kernel.CLONE_NEWIPC)
    return os.fork()


def serve(how: Confinement, control: socket.socket) -> None:
    """Forks jobs until the host closes the control connection.

    Reports each job's end on its own status connection; any message of the host there is an order to kill it.
    """
    wake_read, wake_write = os.pipe()
    for end in (wake_read, wake_write):
        os.set_blocking(end, False)
    signal.set_wakeup_fd(wake_write)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(wake_read, select.POLLIN)
    running: dict[int, int] = {}  # process: its status connection
    control.sendall(b"r")
    while True:
        for file, _ in poll.poll():
            if file == wake_read:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake_read, 4096)
            elif file == control.fileno():
                data, files, *_ = socket.recv_fds(control, MAX_REQUEST, 8)
                if not data:
                    return
                status, *job_files = files
                pid = _fork(how.engine)
                if pid == 0:
                    run_job(how, json.loads(data), job_files)
                for held in job_files:
                    os.close(held)
                running[pid] = status
                poll.register(status, select.POLLIN)
                control.sendall(b"s")
            else:  # the host asks for the job's end, or has closed its own end
                poll.unregister(file)
                for pid, status in running.items():
                    if status == file:
                        os.kill(pid, signal.SIGKILL)
        while running:
            pid, code, usage = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                break
            status = running.pop(pid, -1)
            if status >= 0:
                with contextlib.suppress(KeyError):
                    poll.unregister(status)
                used = {"code": code, "cpu": usage.ru_utime + usage.ru_stime, "rss": usage.ru_maxrss}
                with contextlib.suppress(OSError):
                    os.write(status, json.dumps(used).encode())
                os.close(status)


def _import(packages: Mapping[str, Sequence[str]]) -> None:
    """Imports the modules for programs. Raises ImportError, or OSError for a package that starts threads."""
    for name in _PRELOADED.split():
        __import__(name)
    path = list(sys.path)
    sys.path += {str(Path(folders[0]).parent): None for folders in packages.values()}
    os.environ.update(_ONE_THREAD)  # a process that forks jobs has one
    for name in packages:
        __import__(name)
        __import__(_SEEDED.get(name, name))
    for name in _ONE_THREAD:
        del os.environ[name]
    sys.path[:] = path  # other packages in the same folder are hidden from programs
    if packages and sys.platform == "linux" and len(list(Path("/proc/self/task").iterdir())) > 1:
        raise OSError(f"one of the packages {', '.join(packages)} starts threads when it is imported")


def main(engine: str, control_file: int, packages: Mapping[str, Sequence[str]]) -> None:
    """Isolates this process, and serves. Errors are written to standard error.

    Args:
      engine: see `rlvr_jax.sandbox.engine`.
      control_file: the connection to the host.
      packages: name -> its folder and those of its shared libraries, for further imports of programs.
    """
    os.chdir("/")
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    control = socket.socket(fileno=control_file)
    os.set_inheritable(control_file, False)
    try:
        _import(packages)
        paths = readable_paths([path for of_one in packages.values() for path in of_one])
        {
            "namespaces": isolate_with_namespaces,
            "landlock": isolate_with_landlock,
            "none": lambda _: None,
        }[engine](paths)
        how = confinement(engine, paths)
    except (OSError, ImportError) as error:
        sys.stderr.write(f"{error}\n")
        sys.stderr.flush()
        os._exit(1)
    gc.collect()
    gc.freeze()
    try:
        serve(how, control)
    finally:
        os._exit(0)
