"""The `code` section of `verifier_report`: published programs, attacks, and speed with isolation."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from rlvr_jax.sandbox.engine import ENGINES, open_sandbox
from rlvr_jax.sandbox.host import Limits, SandboxError
from rlvr_jax.sandbox.script import run_script
from rlvr_jax.verifiers.pool import Job, Pool

Row = Mapping[str, Any]

WORKERS = 2
SPEED_PROGRAMS, SPEED_ROUNDS = 300, 3
SLOW = 123  # the one problem of MBPP that computes for seconds
_SUMS = ((1, 2, 3), (-1, 1, 0), (0, 0, 0), (10, -3, 7), (123, 456, 579))
_ADD = {
    "type": "function",
    "entry_point": "add",
    "cases": [{"args": [a, b], "expected": c} for a, b, c in _SUMS],
}
_ADD_STDIO = {"type": "stdio", "cases": [{"stdin": f"{a} {b}\n", "stdout": f"{c}\n"} for a, b, c in _SUMS]}


def _rows(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _pool() -> Pool:
    return Pool(WORKERS, timeout=120.0)


def mbpp_job(row: Row, engine: str) -> Job:
    """The canonical solution of a row of MBPP against its tests."""
    reference = {"type": "asserts", "setup": row["test_setup_code"], "tests": row["test_list"]}
    return Job("code", row["code"], reference, {"engine": engine})


def humaneval_job(row: Row, engine: str) -> Job:
    """The canonical solution of a row of HumanEval against its tests."""
    reference = {"type": "humaneval"} | {key: row[key] for key in ("prompt", "entry_point", "test")}
    return Job("code", row["canonical_solution"], reference, {"engine": engine})


@contextlib.contextmanager
def _world() -> Iterator[tuple[Path, list[str]]]:
    """The targets of the attacks: a secret in the environment, a folder, a TCP and a local server.

    The list collects the servers that were reached.
    """
    reached: list[str] = []

    def listen(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                server.accept()
                reached.append(str(server.getsockname()))

    servers = [socket.create_server(("127.0.0.1", 47123)), socket.socket(socket.AF_UNIX)]
    servers[1].bind("\0rlvr_canary")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        Path(folder, "victim.txt").write_text("FILE_SECRET")
        Path(folder, "victim.txt").chmod(0o666)
        os.environ["RLVR_SECRET"] = "ENVIRONMENT_SECRET"
        for server in servers:
            server.listen()
            threading.Thread(target=listen, args=(server,), daemon=True).start()
        try:
            yield Path(folder), reached
        finally:
            del os.environ["RLVR_SECRET"]
            for server in servers:
                server.shutdown(socket.SHUT_RDWR)
                server.close()


def blocked_attacks(data: Path, engine: str) -> tuple[str, str]:
    """Attacks of the data set that neither score nor escape, and honest programs that pass."""
    with _world() as (folder, reached), _pool() as pool, open_sandbox(engine) as sandbox:
        attacks = [
            {**row, "code": row["code"].replace("@CANARY@", str(folder))}
            for row in _rows(data / "hostile" / "attacks.jsonl")
        ]
        controls = _rows(data / "hostile" / "controls.jsonl")
        options = {"engine": engine, "cpu_seconds": 1, "wall_seconds": 1.0}
        references = [_ADD_STDIO if row["task"] == "add_stdio" else _ADD for row in attacks]
        verdicts = pool.judge(
            [Job("code", row["code"], ref, options) for row, ref in zip(attacks, references, strict=True)]
        )
        passed = pool.judge([Job("code", row["code"], _ADD, {"engine": engine}) for row in controls])
        held = 0
        for row, verdict in zip(attacks, verdicts, strict=True):
            if row["category"] == "escape":  # run once more to get its output
                printed = run_script(sandbox, row["code"], b"", Limits(cpu_seconds=1, wall_seconds=1.0)).stdout
                held += b"LEAK" not in printed and b"SECRET" not in printed
            else:
                held += verdict.score == 0.0
        if reached or [path.name for path in folder.iterdir()] != ["victim.txt"]:
            held = 0
    return f"{held} of {len(attacks)}", f"{sum(v.score == 1.0 for v in passed)} of {len(controls)}"


def _plain(row: Row) -> bool:
    """The program and its tests in a fresh interpreter, without any isolation."""
    code = "\n".join([row["code"], row["test_setup_code"], *row["test_list"]])
    return subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True).returncode == 0


def programs_per_second(rows: Sequence[Row], engine: str) -> tuple[float, float]:
    """In the sandbox, and in one plain process each, in alternation: the best of `SPEED_ROUNDS` rounds."""
    jobs, sandboxed, plain = [mbpp_job(row, engine) for row in rows], 0.0, 0.0
    with _pool() as pool, ThreadPoolExecutor(WORKERS) as threads:
        pool.judge(jobs[:20])
        for _ in range(SPEED_ROUNDS):
            start = time.monotonic()
            pool.judge(jobs)
            between = time.monotonic()
            list(threads.map(_plain, rows))
            sandboxed = max(sandboxed, len(jobs) / (between - start))
            plain = max(plain, len(jobs) / (time.monotonic() - between))
    return sandboxed, plain


def code_lines(data: Path) -> tuple[list[str], list[list[str]]]:
    """The header of the table, and a line for each engine."""
    humaneval, mbpp = _rows(data / "humaneval" / "HumanEval.jsonl"), _rows(data / "mbpp" / "mbpp.jsonl")
    lines = []
    for engine in ENGINES:
        try:
            open_sandbox(engine).close()
        except SandboxError as error:
            lines.append([f"`{engine}`", f"refused: {error}", *[""] * 5])
            continue
        with _pool() as pool:
            passed = [v.score == 1.0 for v in pool.judge([humaneval_job(row, engine) for row in humaneval])]
            passed_mbpp = [v.score == 1.0 for v in pool.judge([mbpp_job(row, engine) for row in mbpp])]
        sandboxed, plain = programs_per_second([r for r in mbpp if r["task_id"] != SLOW][:SPEED_PROGRAMS], engine)
        lines.append(
            [
                f"`{engine}`",
                f"{sum(passed)} of {len(passed)}",
                f"{sum(passed_mbpp)} of {len(passed_mbpp)}",
                *blocked_attacks(data, engine),
                f"{sandboxed:.0f} ({sandboxed / plain:.1f}x)",
                f"{plain:.0f}",
            ]
        )
    header = ["engine", "HumanEval", "MBPP", "attacks blocked", "honest programs", f"programs/s, {WORKERS} workers"]
    return [*header, "unsandboxed, programs/s"], lines
