"""A run in several processes, on CPU: the curve of one process, and what happens when a process ends."""

import dataclasses
import json
import math
import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from rlvr_jax import policy
from rlvr_jax.training.loop import INIT
from rlvr_jax.training.reading import load_params
from rlvr_jax.training.workdir import read_config
from tests.experiments.runs import command, finish, lines_of, metrics, saved_steps, start, wait_until

# Words of the library for collectives on CPU, whose threads print through each other.
GLOO = {"Gloo", "Rank", "is", "connected", "to", "peer", "ranks", "Expected", "number", "of"}
STEPS = 3
# On four devices, each has one of the 4 prompts of a batch.
TINY = {
    "training__num_steps": STEPS,
    "training__save_every": 1,
    "training__keep_checkpoints": STEPS,
    "evaluation__every": STEPS,
    "evaluation__pass_problems": 1,  # an evaluation has the shape of a step
    "mesh__fsdp": 2,
    "algorithm__minibatches": 2,
    "curriculum__sampling": "towards_half",
    "verifier__timeout": 100.0,
    "tasks__modsum__verifier": "tests/experiments/judge_on_hosts.py:judge",
}
IN_FLIGHT = {
    "rollout__slots": 8,
    "rollout__in_flight": "recompute",
    "rollout__patience": 4,
    "training__max_lag": 1,
}


def started(
    workdir: Path,
    count: int,
    doomed: bool = False,
    hangs: int = -1,
    when: str = "metrics.jsonl",
    largest: Mapping[int, int] | None = None,
    **changes: object,
) -> list[subprocess.Popen]:
    """The processes of a run with four devices in all.

    In the process `hangs` the verifier hangs from the step on before which `when` is in the workdir. The processes of
    `largest` can't write files of more bytes than that.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    line = command("train", workdir, **(TINY | changes))
    flags = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={count}"] if count > 1 else []
    lines = [[*line, *flags, *([f"--process_id={i}"] if flags else [])] for i in range(count)]
    for i, size in (largest or {}).items():
        lines[i][2:2] = ["tests.experiments.small_files", str(size)]
    variables = {"RUN_HANGS": str(hangs), "RUN_HANGS_FROM": str(workdir / when)}
    variables |= {"RUN_PATIENCE": "6"} if doomed else {}  # seconds after which a killed process counts as dead
    return [start(line, 4 // count, doomed, RUN_PROCESS=str(i), **variables) for i, line in enumerate(lines)]


def completed(workdir: Path, count: int, **changes: object) -> list[tuple[int, str, str]]:
    outcomes = [finish(process) for process in started(workdir, count, **changes)]
    assert [outcome[0] for outcome in outcomes] == [0] * count, outcomes
    return outcomes


def rows_of(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "samples.jsonl").read_text().splitlines()]


def checksums(workdir: Path, step: int) -> dict[str, dict[str, int]]:
    """Those of a checkpoint, whose arrays only as many devices could read."""
    data = json.loads((workdir / "checkpoints" / str(step) / "_CHECKPOINT_METADATA").read_text())
    return data["custom_metadata"]["checksums"]


def assert_close(rows: list[dict], others: list[dict]) -> None:
    """Sums over devices in several processes may be rounded otherwise; the samples of a tiny run are still the same."""
    assert [row["step"] for row in rows] == [row["step"] for row in others]
    for row, theirs in zip(rows, others, strict=True):
        for name in row.keys() & theirs.keys():
            assert math.isclose(row[name], theirs[name], rel_tol=1e-4, abs_tol=1e-5), (row["step"], name)


def told(row: dict) -> str | None:
    """What the tool has said in an episode."""
    return next((span["text"] for span in row["spans"] or () if span["author"] == "env"), None)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The workdir of a run in two processes with two devices each, and what they said."""
    workdir = tmp_path_factory.mktemp("pair") / "run"
    return workdir, completed(workdir, 2)


def test_the_first_of_two_processes_alone_writes(pair):
    workdir, (first, second) = pair
    assert [row["step"] for row in metrics(workdir)] == list(range(STEPS + 1))
    assert saved_steps(workdir) == list(range(STEPS + 1))
    assert "report: " in first[1]
    assert set(re.findall("[A-Za-z]+", second[1])) <= GLOO
    assert "training " in first[2]
    assert "training " not in second[2]


def test_two_processes_begin_as_one(pair):
    config = read_config(pair[0])
    shape = dataclasses.replace(config.policy, vocab_size=14)  # 12 characters, pad and end
    key = jax.random.fold_in(jax.random.fold_in(jax.random.key(config.seed), INIT), 0)
    made = jax.jit(policy.init, static_argnums=0)(shape, key)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), made)
    begun, _ = load_params(pair[0], shapes, 0)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-7), begun, made)


def test_each_process_judges_its_own_groups(pair):
    """The verifier says in which process it ran."""
    workdir, _ = pair
    of_step = [row["reason"] for row in rows_of(workdir) if row["step"] == 1 and row["split"] == "train"]
    assert of_step == ["process 0"] * 4 + ["process 1"] * 4


@pytest.fixture(scope="module")
def killed(pair, tmp_path_factory):
    """The workdir of two processes that continued the run at step 1, of which one was killed in step 3.

    Besides, how the other one ended.
    """
    workdir = tmp_path_factory.mktemp("killed") / "run"
    copied(pair[0], workdir, 1)
    first, second = started(workdir, 2, doomed=True, hangs=1, when="checkpoints/2")  # so that the kill is in time
    wait_until(lambda: first.poll() is not None or (workdir / "checkpoints" / "2").exists())
    second.kill()
    return workdir, finish(first)


def copied(workdir: Path, to: Path, step: int) -> None:
    """As it was before the checkpoints that came after that of a step."""
    shutil.copytree(workdir, to)
    for late in saved_steps(to):
        if late > step:
            shutil.rmtree(to / "checkpoints" / str(late))


def test_a_killed_process_ends_the_other(killed):
    workdir, (status, _, stderr) = killed
    assert status == 1
    assert "process 1 on " in stderr
    assert saved_steps(workdir)[-1] == 2


def test_two_processes_continue_a_run_to_the_bit(killed, pair):
    assert metrics(killed[0])[:3] == metrics(pair[0])[:3]
    assert checksums(killed[0], 2) == checksums(pair[0], 2)


def test_one_process_continues_what_two_have_begun_with_the_same_curve(killed, pair, tmp_path):
    copied(killed[0], tmp_path / "run", 1)
    completed(tmp_path / "run", 1)
    runs = tmp_path / "run", pair[0]
    assert_close(*map(metrics, runs))
    samples = [[{**row, "reason": None} for row in rows_of(run)] for run in runs]  # the process that judged
    assert samples[0] == samples[1]
    assert saved_steps(runs[0]) == saved_steps(runs[1])
    assert {path.name for path in runs[0].iterdir()} == {path.name for path in runs[1].iterdir()}


@pytest.mark.full
def test_a_disk_that_is_full_of_one_process_s_part_of_a_checkpoint_ends_both_at_once(pair, tmp_path):
    parts = (pair[0] / "checkpoints").glob("0/*/ocdbt.process_1/d/*")
    size = max(path.stat().st_size for path in parts)
    first, second = started(tmp_path / "run", 2, doomed=True, largest={1: size - 1})
    outcomes = [finish(process) for process in (first, second)]
    assert [status for status, _, _ in outcomes] == [1, 1], outcomes
    for (_, _, stderr), begin in zip(outcomes, ("error: process 1 on ", "error: a checkpoint in "), strict=True):
        (line,) = [x for x in stderr.splitlines() if x.startswith("error: ")]
        assert line.startswith(begin)
        assert "could not be written" in line
        assert "File too large" in line


@pytest.mark.full
def test_four_processes_continue_the_run_of_two(pair, tmp_path):
    copied(pair[0], tmp_path / "run", 1)
    completed(tmp_path / "run", 4)
    assert_close(metrics(tmp_path / "run"), metrics(pair[0]))


def test_tools_and_verifiers_that_hang_on_one_host_hold_up_nobody_and_sigterm_to_one_process_saves_in_all(tmp_path):
    workdir, few = tmp_path / "run", {"evaluation__problems": 2, "evaluation__pass_problems": 0}
    few |= {"rollout__group_size": 2, "algorithm__minibatches": 1, "algorithm__kl_coef": 0.0}
    few |= {"training__num_steps": 100}
    limits = {"verifier__timeout": 1.0, "verifier__workers": 2}
    asks = {"tasks__modsum__environment": "tests/experiments/judge_on_hosts.py:asking"} | IN_FLIGHT
    processes = started(workdir, 2, True, hangs=1, **limits, **few, **asks)
    wait_until(lambda: processes[0].poll() is not None or lines_of(workdir / "metrics.jsonl") >= 2)
    processes[1].send_signal(signal.SIGTERM)
    outcomes = [finish(process) for process in processes]
    assert [status for status, _, _ in outcomes] == [143, 143], outcomes
    assert all("SIGTERM: saved the state of step" in stderr for _, _, stderr in outcomes)
    rows = metrics(workdir)
    assert saved_steps(workdir)[-1] == rows[-1]["step"]
    samples = [row for row in rows_of(workdir) if row["step"] == 1 and row["split"] == "train"]
    assert {(row["reason"], row["error"] is None, told(row)) for row in samples} <= {
        ("process 0", True, "0"), ("process 0", True, None), ("", False, "+"), ("", False, None)
    }  # fmt: skip
    (host,) = (workdir / "checkpoints" / str(rows[-1]["step"]) / "host").glob("*metadata*")
    episodes = json.loads(host.read_text())["in_flight"]["episodes"]
    results = {(value, error is None) for _, log in episodes for call in log["results"] for value, error in call}
    assert results  # come back when the run goes on
    trained = {told(row) for row in rows_of(workdir) if row["split"] == "train"} - {None}
    results |= {{"0": ("0", True), "+": (None, False)}[text] for text in trained}
    assert results == {("0", True), (None, False)}  # of both hosts, the second one's tools hung


@pytest.mark.full
def test_episodes_that_go_on_over_updates_and_packing_in_two_processes(tmp_path):
    options = {
        **IN_FLIGHT,
        "tasks__modsum__environment": "tests/experiments/judge_on_hosts.py:asking",
        "tasks__modsum__environment_options": "{'tool': 'anywhere'}",
        "training__packing": "prefix_tree",
        "algorithm__minibatches": 1,
    }
    completed(tmp_path / "alone", 1, **options)
    completed(tmp_path / "pair", 2, **options)
    assert_close(metrics(tmp_path / "pair"), metrics(tmp_path / "alone"))
