"""The engines, on this machine as it is: user namespaces and Landlock are expected, and missing ones a failure."""

import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy
import pytest

import rlvr_jax
from rlvr_jax.sandbox import engine as engines
from rlvr_jax.sandbox.engine import discard, open_sandbox, sandbox_of_process, weaknesses
from rlvr_jax.sandbox.host import Limits, Sandbox, SandboxError, interpreter
from rlvr_jax.sandbox.script import run_script
from rlvr_jax.verifiers import verify
from rlvr_jax.verifiers.pool import Job, Pool
from tests.processes import sessions

NOBODY = 65534
DOUBLE = {"type": "function", "entry_point": "double", "cases": [{"args": [4], "expected": 8}]}
PROGRAM = "def double(n):\n    return 2 * n\n"
LIMITS = Limits(cpu_seconds=5, wall_seconds=5.0)


@pytest.fixture(params=["namespaces", "landlock"])
def sandbox(request):
    with open_sandbox(request.param) as sandbox:
        yield sandbox


def test_the_best_engine_is_found_tried_and_logged(caplog):
    caplog.set_level(logging.INFO)
    with open_sandbox() as sandbox:
        assert sandbox.engine == "namespaces"
    assert "programs run in the sandbox engine 'namespaces'" in caplog.text


def test_the_trial_of_escapes_finds_nothing_in_a_sandbox_and_much_without(sandbox):
    assert weaknesses(sandbox) == []
    with Sandbox("none") as unsafe:
        found = " ".join(weaknesses(unsafe))
    for name in ("read", "write", "tcp", "abstract_socket", "fork", "signal", "it changed a file of this machine"):
        assert name in found


def test_an_engine_in_which_an_escape_succeeds_is_refused(monkeypatch):
    monkeypatch.setattr(engines, "weaknesses", lambda _: ["read succeeds"])
    with pytest.raises(SandboxError, match=r"no sandbox holds .*namespaces: read succeeds.*landlock: read succeeds"):
        open_sandbox()


def test_the_unsafe_engine_has_to_be_asked_for_by_name(monkeypatch, caplog):
    monkeypatch.setattr(engines, "weaknesses", lambda _: ["read succeeds"])
    verdict = engines_verdict("auto")
    assert "SandboxError: no sandbox holds" in verdict.error
    assert "ask for engine 'none' by name" in verdict.error
    assert engines_verdict("none").score == 1.0
    assert "WITHOUT a sandbox" in caplog.text
    discard("none")


def engines_verdict(engine):
    discard(engine)
    return verify("code", PROGRAM, DOUBLE, engine=engine)


def test_an_unknown_engine_is_refused_with_the_list():
    with pytest.raises(ValueError, match="no sandbox engine 'docker'; there are auto, namespaces, landlock and none"):
        open_sandbox("docker")


def test_a_job_is_never_root_on_this_machine(sandbox):
    with sandbox.job("program", LIMITS) as job:
        assert job.user not in (0, None)
        status = Path(f"/proc/{job.process}/status").read_text().split("\n")
        fields = dict(line.split(":\t", 1) for line in status if ":\t" in line)
    assert set(fields["Uid"].split()) == {str(job.user)}
    assert {fields[name] for name in ("CapPrm", "CapEff", "CapInh", "CapAmb")} == {"0" * 16}
    assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")


def test_a_namespace_job_has_namespaces_of_its_own():
    names = ("user", "pid", "mnt", "ipc", "net", "uts")
    with open_sandbox("namespaces") as s, s.job("program", LIMITS) as a, s.job("program", LIMITS) as b:
        spaces = [
            {name: (Path(f"/proc/{number}/ns") / name).readlink() for name in names}
            for number in (os.getpid(), a.process, b.process)
        ]
    assert all(spaces[0][name] != spaces[1][name] for name in spaces[0])
    assert all(spaces[1][name] != spaces[2][name] for name in ("pid", "mnt", "ipc"))


def test_a_program_sees_a_fixed_world(sandbox):
    program = (
        "import os, sys, time, locale, random\n"
        "print(sorted(os.environ.items()), sys.argv, time.tzname[0], hash('a'))\n"
        "print([random.random() for _ in range(2)], list({'x', 'y', 'z', 'w'}), sys.stdout.encoding, __name__)\n"
        "print(sorted(os.listdir('/')) if os.access('/', os.R_OK) else '')\n"
    )
    first, second = (run_script(sandbox, program, b"", LIMITS) for _ in range(2))
    assert first == second
    assert b"UTC" in first.stdout
    assert first.failure is None or sandbox.engine == "landlock"


_USES_NUMPY = """
import os, sys
import numpy as np
from numpy.polynomial import Polynomial
print(np.linalg.solve(np.eye(2), [1.0, 2.0]).tolist(), np.random.rand(), Polynomial([1, 2])(3), np.fft.fft([1, 0])[0])
print([name for name in os.environ if "THREADS" in name])
for name in ("jax", "pytest", "numpy.nothing"):
    try: __import__(name); print("LEAK", name)
    except ImportError: pass
for path in (np.__file__, os.path.dirname(np.__file__) + "/new", os.path.dirname(np.__file__) + "/../jax/version.py"):
    try: open(path, "a"); print("LEAK", path)
    except OSError: pass
try: print("LEAK", len(open(os.path.dirname(np.__file__) + "/../pip/__init__.py").read()))
except OSError: pass
"""


@pytest.mark.parametrize("engine", ["namespaces", "landlock"])
def test_packages_are_there_by_name_read_only_in_the_same_isolation(engine):
    with open_sandbox(engine, ("numpy",)) as sandbox:
        assert weaknesses(sandbox) == []
        first, second = (run_script(sandbox, _USES_NUMPY, b"", LIMITS) for _ in range(2))
    assert first == second
    assert (first.failure, first.stderr) == (None, b"")
    assert first.stdout.decode() == f"[1.0, 2.0] {numpy.random.RandomState(0).rand()} 7.0 (1+0j)\n[]\n"


@pytest.mark.parametrize("name", ["nothing_of_the_kind", "numpy.linalg", "../numpy", "sys", ""])
def test_a_package_that_is_not_installed_is_refused_by_name(name):
    with pytest.raises(ValueError, match=re.escape(repr(name))):
        open_sandbox("namespaces", (name,))


def test_a_script_reads_its_input_however_large_and_its_output_is_bounded(sandbox):
    large = b"7" * (1 << 20)
    output = run_script(sandbox, "import sys\nprint(len(sys.stdin.read()))", large, LIMITS)
    assert (output.stdout, output.failure) == (b"1048576\n", None)
    output = run_script(sandbox, "while True: print('x' * 1000)", b"", Limits(5, 5.0, 1 << 30, 10_000))
    assert output.failure == "printed more than 10000 bytes"
    output = run_script(sandbox, "import sys\nsys.stderr.write('y' * 10**6)\nsys.exit(3)", b"", LIMITS)
    assert (len(output.stderr), output.failure) == (16 << 10, "its process ended early (exit code 3)")


def test_a_sleeping_job_is_ended_and_a_busy_one_by_the_kernel(sandbox):
    asleep = run_script(sandbox, "import time\ntime.sleep(1000)", b"", Limits(5, 0.2))
    assert (asleep.timed_out, asleep.failure) == (True, "timed out: waited for more than 0.2 s")
    busy = run_script(sandbox, "while True: pass", b"", Limits(1, 100.0))
    assert (busy.timed_out, busy.failure) == (True, "timed out: more than 1 s of CPU time")


def test_the_clock_of_wall_time_stands_still_for_a_job_that_works(sandbox):
    """However little of a core it gets: one CPU second is well over the 0.3 s in which it may wait."""
    program = "import time\nend = time.process_time() + 1\nwhile time.process_time() < end: pass\nprint('done')"
    assert run_script(sandbox, program, b"", Limits(5, 0.3)).stdout == b"done\n"


def test_threads_may_share_a_sandbox(sandbox):
    results = {}

    def run(number):
        results[number] = run_script(sandbox, f"print({number} ** 2)", b"", LIMITS).stdout

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: f"{number**2}\n".encode() for number in range(8)}


def _process_state(number):
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "gone"


def _await_gone(numbers):
    deadline = time.monotonic() + 60
    while {_process_state(number) for number in numbers} - {"gone", "Z"}:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_closing_a_sandbox_ends_its_jobs(sandbox):
    job = sandbox.job("program", LIMITS)
    sandbox.close()
    _await_gone([job.process])
    job.__exit__()


def test_a_dead_zygote_is_replaced():
    assert verify("code", PROGRAM, DOUBLE).score == 1.0
    zygote = sandbox_of_process()._zygote
    zygote.send_signal(signal.SIGKILL)
    zygote.wait()
    assert verify("code", PROGRAM, DOUBLE).score == 1.0
    assert sandbox_of_process()._zygote is not zygote


def test_nothing_is_left_of_a_worker_that_the_pool_kills(monkeypatch):
    monkeypatch.setattr("rlvr_jax.verifiers.jobs.LONGEST", {})  # or it would wait for the program's own limits
    asleep = Job("code", "import time\ntime.sleep(1000)\n", DOUBLE, {"wall_seconds": 1000.0})
    with Pool(1, timeout=1.5) as pool:
        worker = pool.process_ids[0]
        assert pool.judge([asleep])[0].error == "timed out after 1.5 s"
    deadline = time.monotonic() + 60
    while worker in sessions():
        assert time.monotonic() < deadline
        time.sleep(0.05)


# Run as an ordinary user: opens the engines named, and says which came or why not.
_OPEN = """
import ctypes, os, sys
sys.path.insert(0, sys.argv[1])
from rlvr_jax.sandbox.engine import open_sandbox
from rlvr_jax.sandbox.host import Limits, SandboxError
from rlvr_jax.sandbox.script import run_script
for name in sys.argv[2:]:
    if name == "no more namespaces":
        user, group = os.getuid(), os.getgid()
        assert ctypes.CDLL(None).unshare(0x10000000) == 0
        for file, text in (("setgroups", "deny"), ("gid_map", f"{group} {group} 1"), ("uid_map", f"{user} {user} 1")):
            open(f"/proc/self/{file}", "w").write(text)
        open("/proc/sys/user/max_user_namespaces", "w").write("0")
        continue
    try:
        with open_sandbox(name) as sandbox:
            print(sandbox.engine, run_script(sandbox, "print(6 * 7)", b"", Limits()).stdout.decode().strip())
    except SandboxError as error:
        print("refused:", error)
"""


@pytest.fixture(scope="module")
def package():
    """A copy of the package that any user may read."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        shutil.copytree(Path(rlvr_jax.__file__).parent / "sandbox", Path(folder) / "rlvr_jax" / "sandbox")
        shutil.copy(rlvr_jax.__file__, Path(folder) / "rlvr_jax")
        yield folder


def _as_ordinary_user(package, *names):
    python, user = sys.executable, {}
    if os.geteuid() == 0:
        python, user = interpreter("landlock"), {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    command = [python, "-B", "-c", _OPEN, package, *names]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", env={"PATH": "/usr/bin:/bin"}, **user)
    return done.stdout.splitlines(), done.stderr


def test_both_engines_work_for_an_ordinary_user(package):
    lines, errors = _as_ordinary_user(package, "auto", "namespaces", "landlock")
    assert (lines, errors) == (["namespaces 42", "namespaces 42", "landlock 42"], "")


def test_without_user_namespaces_landlock_is_the_engine_and_the_other_says_why_not(package):
    lines, errors = _as_ordinary_user(package, "no more namespaces", "auto", "namespaces")
    assert lines[0] == "landlock 42", errors
    assert lines[1].startswith("refused: no sandbox holds on this machine")
    assert "namespaces: [Errno 28] unshare" in lines[1]
