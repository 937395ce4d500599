"""Attacks: none scores, none gets out, none lasts. Those of the data set, and those of tests/sandbox/attacks.py."""

import contextlib
import json
import socket
import threading
from pathlib import Path

import pytest

from rlvr_jax.sandbox.engine import open_sandbox
from rlvr_jax.sandbox.host import Limits
from rlvr_jax.sandbox.script import run_script
from rlvr_jax.verifiers.pool import Job, Pool
from tests.processes import children
from tests.sandbox.attacks import ESCAPES, FLOODS, HACKS

ENGINES = ("namespaces", "landlock")
LIMITS = {"cpu_seconds": 1, "wall_seconds": 1.0, "memory_bytes": 1 << 29}
SUMS = [(1, 2, 3), (-1, 1, 0), (0, 0, 0), (10, -3, 7), (123, 456, 579)]
STDIO = {"type": "stdio", "cases": [{"stdin": f"{a} {b}\n", "stdout": f"{c}\n"} for a, b, c in SUMS]}
FORMS = {
    "function": {
        "type": "function",
        "entry_point": "add",
        "cases": [{"args": [a, b], "expected": c} for a, b, c in SUMS],
    },
    "literal asserts": {"type": "asserts", "tests": [f"assert add({a}, {b}) == {c}" for a, b, c in SUMS]},
    "other asserts": {
        "type": "asserts",
        "setup": "import math\npairs = [[1, 2], [-1, 1]]",
        "tests": [
            "result = add(1, 2)\nassert result == 3",
            "assert abs(add(-1, 1) - 0) < 1e-9 and math.isclose(add(123, 456), 579)",
            "assert [add(a, b) for a, b in pairs] == [sum(pair) for pair in pairs]",
            "assert not add(10, -3) != 7\nassert add(10, -3) in {7}",
            "for a in range(-3, 4):\n    assert add(a, 456) == 456 + a",
        ],
    },
    "humaneval": {
        "type": "humaneval",
        "prompt": 'def add(a, b):\n    """The sum.\n    >>> add(1, 2)\n    3\n    """\n',
        "entry_point": "add",
        "test": "def check(candidate):\n    for a, b in [(1, 2), (-1, 1), (123, 456)]:\n"
        "        assert candidate(a, b) == a + b\n    assert abs(candidate(10, -3) - 7.0) < 1e-6\n",
    },
}


@contextlib.contextmanager
def _listening(server: socket.socket):
    """What touches the server while the context lasts."""
    touched = []

    def listen():
        with contextlib.suppress(OSError):
            while True:
                server.accept()
                touched.append("contact")

    server.listen()
    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    yield touched
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(10)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder that nobody may touch, listeners that nobody may reach, a secret in the environment."""
    canary = tmp_path_factory.mktemp("canary")
    for folder in (canary, *canary.parents[:3]):
        if folder.owner() == canary.owner() and str(folder) != "/tmp":
            folder.chmod(0o777)  # the sandbox has to keep attackers out, not the permissions
    (canary / "victim.txt").write_text("FILE_SECRET")
    (canary / "victim.txt").chmod(0o666)
    tcp, abstract = socket.create_server(("127.0.0.1", 47123)), socket.socket(socket.AF_UNIX)
    abstract.bind("\0rlvr_canary")
    with pytest.MonkeyPatch.context() as patch, _listening(tcp) as by_tcp, _listening(abstract) as by_name:
        patch.setenv("RLVR_SECRET", "ENVIRONMENT_SECRET")
        yield canary, by_tcp, by_name


@pytest.fixture(scope="module")
def pool(world):
    assert _unharmed(world)  # the workers start when there is something to steal
    with Pool(2, timeout=120.0) as pool:
        yield pool


def _unharmed(world):
    canary, by_tcp, by_name = world
    return (
        [path.name for path in canary.iterdir()] == ["victim.txt"]
        and (canary / "victim.txt").read_text() == "FILE_SECRET"
        and not by_tcp
        and not by_name
    )


def _judge(pool, jobs):
    """The verdicts; afterwards the workers are the same, small, and have no process but their zygotes'."""
    verdicts = pool.judge(jobs)
    assert [v.error for v in verdicts] == [None] * len(jobs)
    for worker in pool.process_ids:
        status = Path(f"/proc/{worker}/status").read_text()
        peak = int(status.split("VmHWM:")[1].split()[0]) >> 10
        assert peak < 400, f"{peak} MiB"
        assert len(children(worker, recursive=True)) <= 3  # namespaces: two; landlock: one
    return verdicts


def _rows(data_sets, name, canary):
    text = (data_sets / "hostile" / name).read_text().replace("@CANARY@", str(canary))
    return [json.loads(line) for line in text.splitlines()]


def _reference(row):
    return STDIO if row["task"] == "add_stdio" else FORMS["function"]


@pytest.mark.parametrize("engine", ENGINES)
def test_no_attack_of_the_data_set_scores_or_gets_out(engine, pool, world, data_sets):
    rows = _rows(data_sets, "attacks.jsonl", world[0])
    assert len(rows) == 56
    verdicts = _judge(pool, [Job("code", r["code"], _reference(r), {"engine": engine, **LIMITS}) for r in rows])
    scored = {r["name"] for r, v in zip(rows, verdicts, strict=True) if v.score > 0}
    assert scored <= {r["name"] for r in rows if r["expected"]["reward"] == "any"}
    assert all("SECRET" not in f"{v.answer and ''}{v.reason}" for v in verdicts)
    assert _unharmed(world)


@pytest.mark.parametrize("engine", ENGINES)
def test_honest_programs_pass(engine, pool, world, data_sets):
    rows = _rows(data_sets, "controls.jsonl", world[0])
    assert len(rows) == 14
    verdicts = _judge(pool, [Job("code", r["code"], FORMS[f], {"engine": engine}) for f in FORMS for r in rows])
    names = [r["name"] for _ in FORMS for r in rows]
    failed = {name for name, v in zip(names, verdicts, strict=True) if v.score < 1}
    assert failed == (set() if engine == "namespaces" else {"tempfile_use"})  # Landlock alone: nowhere to write


@pytest.mark.parametrize(("engine", "form"), [*(("namespaces", form) for form in FORMS), ("landlock", "humaneval")])
def test_no_hack_scores(engine, form, pool, world):
    assert len(HACKS) >= 50
    verdicts = _judge(pool, [Job("code", code, FORMS[form], {"engine": engine, **LIMITS}) for code in HACKS.values()])
    assert {name for name, v in zip(HACKS, verdicts, strict=True) if v.score > 0} == set()
    assert _unharmed(world)


@pytest.mark.parametrize("engine", ENGINES)
def test_no_escape_comes_through(engine, world):
    limits = Limits(cpu_seconds=5, wall_seconds=5.0)
    with open_sandbox(engine) as sandbox:
        leaks = {
            name: output.stdout
            for name, code in ESCAPES.items()
            if b"LEAK" in (output := run_script(sandbox, code.replace("@CANARY@", str(world[0])), b"", limits)).stdout
            or b"SECRET" in output.stdout + output.stderr
        }
    assert leaks == {}
    assert _unharmed(world)


@pytest.mark.parametrize("engine", ENGINES)
def test_no_escape_comes_through_that_the_data_set_prints(engine, world, data_sets):
    rows = [r for r in _rows(data_sets, "attacks.jsonl", world[0]) if r["category"] == "escape"]
    assert len(rows) == 9
    limits = Limits(cpu_seconds=5, wall_seconds=5.0)
    with open_sandbox(engine) as sandbox:
        for row in rows:
            output = run_script(sandbox, row["code"] + "\nprint(add(1, 2))", b"", limits)
            assert b"LEAK" not in output.stdout, row["name"]
            assert b"SECRET" not in output.stdout + output.stderr, row["name"]
    assert _unharmed(world)


def test_floods_are_bounded(pool, world):
    verdicts = _judge(
        pool, [Job("code", code, FORMS["function"], {"engine": "namespaces", **LIMITS}) for code in FLOODS.values()]
    )
    assert {name for name, v in zip(FLOODS, verdicts, strict=True) if v.score > 0} <= {"wide source"}
    verdicts = _judge(
        pool,
        [
            Job("code", FLOODS[n], FORMS["other asserts"], {"engine": "namespaces", **LIMITS})
            for n in ("iterator without end",)
        ],
    )
    assert [v.score for v in verdicts] == [0.0]
    assert _unharmed(world)


def test_nothing_of_a_job_is_there_for_the_next(pool):
    leave = (
        "import math, os, builtins, random\nmath.pi = 3\nbuiltins.sum = None\nrandom.seed(5)\nos.environ['X'] = '1'\n"
        "open('/tmp/left', 'w').write('x')\n__import__('sys').path.insert(0, '/tmp')\n"
        "def add(a, b):\n    return a + b\n"
    )
    find = (
        "import math, os, builtins, random, sys\nclean = math.pi > 3.1 and sum([1]) == 1 and 'X' not in os.environ and "
        "os.listdir('/tmp') == [] and '/tmp' not in sys.path and random.random() == random.Random(0).random()\n"
        "def add(a, b):\n    return a + b if clean else None\n"
    )
    verdicts = _judge(
        pool, [Job("code", code, FORMS["function"], {"engine": "namespaces"}) for code in [leave, find] * 6]
    )
    assert [v.score for v in verdicts] == [1.0] * 12
