"""A run as a user meets it: real processes that are killed, pre-empted, continued, and given bad input."""

import json
import os
import re
import shlex
import shutil
import signal
import sys
from pathlib import Path

import pytest

from tests.experiments.runs import (
    EVALUATED,
    IMITATED,
    ROOT,
    STEPS,
    TINY,
    command,
    complaints,
    complete,
    contents,
    error_of,
    interrupt,
    lines_of,
    metrics,
    run,
    saved,
    saved_steps,
)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The workdir of a run that nothing happened to."""
    workdir = tmp_path_factory.mktemp("uninterrupted") / "run"
    complete(command("train", workdir))
    return workdir


@pytest.fixture(scope="module")
def warm_start(tmp_path_factory):
    """The workdir of a supervised run that nothing happened to."""
    workdir = tmp_path_factory.mktemp("warm_start") / "sft"
    complete(command("sft", workdir))
    return workdir


def assert_same_run(workdir: Path, other: Path, last: int = STEPS) -> None:
    assert metrics(workdir) == metrics(other)
    assert (workdir / "samples.jsonl").read_bytes() == (other / "samples.jsonl").read_bytes()
    assert saved_steps(workdir) == saved_steps(other)
    assert saved(workdir, last) == saved(other, last)
    assert saved(workdir, 0) == saved(other, 0)


def test_a_run_writes_every_step_and_learns(uninterrupted):
    rows = metrics(uninterrupted)
    assert [row["step"] for row in rows] == list(range(STEPS + 1))
    assert rows[-1]["train/response_length"] > rows[1]["train/response_length"]
    assert saved(uninterrupted, 0)["params/embed"] != saved(uninterrupted, STEPS)["params/embed"]
    assert {row["step"] for row in rows if "eval/greedy_accuracy" in row} == set(range(0, STEPS + 1, EVALUATED))
    steps = {json.loads(line)["step"] for line in (uninterrupted / "samples.jsonl").read_text().splitlines()}
    assert steps == {1, *range(0, STEPS + 1, EVALUATED)}


def test_a_run_killed_at_several_moments_and_continued_ends_with_the_same_bits(uninterrupted, tmp_path):
    line, folder = command("train", tmp_path), tmp_path / "checkpoints"
    unfinished = lambda: [path for path in folder.glob("*tmp*") if not path.name.startswith("0.")]  # noqa: E731
    moments = [
        lambda: (tmp_path / "config.json").exists(),  # before the first checkpoint
        lambda: lines_of(tmp_path / "metrics.jsonl") >= 1,
        *[lambda: bool(unfinished())] * 5,  # while it writes a checkpoint, if the kill is quick enough
    ]
    for moment in moments:
        assert interrupt(line, moment, signal.SIGKILL)[0] == -signal.SIGKILL
        if unfinished():
            break
    assert unfinished(), "no kill fell into the writing of a checkpoint"
    assert lines_of(tmp_path / "metrics.jsonl") < STEPS
    complete(line)
    assert not unfinished()
    assert_same_run(tmp_path, uninterrupted)


def test_sigterm_saves_exits_with_143_and_the_same_command_continues_to_the_same_bits(uninterrupted, tmp_path):
    line = command("train", tmp_path)
    outcome = interrupt(line, lambda: lines_of(tmp_path / "metrics.jsonl") >= 13, signal.SIGTERM, paused=13)
    assert outcome[:2] == (143, "")
    noted, message = filter(None, complaints(outcome[2]).splitlines())
    step = saved_steps(tmp_path)[-1]
    assert step == 12
    assert noted.startswith("SIGTERM: ")
    assert message.startswith(f"SIGTERM: saved the state of step {step} and stopped")
    assert "run the same command again" in message
    assert metrics(tmp_path)[-1]["step"] == step
    assert "step 0 → " in (tmp_path / "report.html").read_text()
    complete(line)
    assert metrics(tmp_path) == metrics(uninterrupted)
    assert saved(tmp_path, STEPS) == saved(uninterrupted, STEPS)


def test_a_warm_start_killed_and_preempted_ends_with_the_same_bits(warm_start, tmp_path):
    line, rows = command("sft", tmp_path), tmp_path / "metrics.jsonl"
    assert interrupt(line, lambda: lines_of(rows) >= 1, signal.SIGKILL)[0] in (0, -signal.SIGKILL)
    assert interrupt(line, lambda: lines_of(rows) >= 2, signal.SIGTERM)[0] in (0, 143)
    complete(line)
    assert metrics(tmp_path) == metrics(warm_start)
    assert saved(tmp_path, IMITATED) == saved(warm_start, IMITATED)


def test_the_commands_of_the_page_train_and_train_again_from_the_config_of_that_run(warm_start, tmp_path):
    first, again = re.findall(r"(?m)^    rlvr train (.*)$", (ROOT / "docs" / "runs.md").read_text())
    (tmp_path / "runs" / "quickstart").mkdir(parents=True)
    shutil.copytree(warm_start, tmp_path / "runs" / "quickstart" / "sft")
    small = [f"--config.{key}={value}" for key, value in (TINY | {"training.num_steps": 2}).items()]
    for arguments in ([*shlex.split(first), *small], shlex.split(again)):
        complete([sys.executable, "-m", "experiments.train", *arguments], tmp_path)
    made, other = (json.loads((tmp_path / "runs" / x / "config.json").read_text()) for x in ("mine", "other"))
    assert (made["seed"], other["seed"], made | {"seed": 1}) == (0, 1, other)
    rows, others = (metrics(tmp_path / "runs" / name) for name in ("mine", "other"))
    assert len(rows) == len(others) == 3
    assert rows[1:] != others[1:]


def test_a_finished_run_started_again_says_so_and_changes_nothing(uninterrupted, warm_start):
    workdirs = {"train": uninterrupted, "sft": warm_start}
    before = {name: contents(workdir) for name, workdir in workdirs.items()}
    for name, workdir in workdirs.items():
        status, stdout, stderr = run(command(name, workdir))
        assert (status, stderr) == (0, "")
        assert stdout.startswith(f"{workdir} already holds all")
        after = contents(workdir)
        assert before[name].keys() == after.keys()
        made_again = {"environment.json", "report.html", "curves.png"}
        assert {path for path in after if before[name][path] != after[path]} <= made_again


def test_a_run_that_can_not_start_is_one_line_that_says_why_and_changes_nothing(uninterrupted, warm_start, tmp_path):
    before = contents(uninterrupted), contents(warm_start)
    shutil.copytree(uninterrupted, tmp_path / "damaged")
    rows = tmp_path / "damaged" / "metrics.jsonl"
    rows.write_text(rows.read_text().replace('{"step": 3,', '{"step": 3;', 1))
    shutil.rmtree(tmp_path / "damaged" / "checkpoints" / str(STEPS))
    (tmp_path / "file").write_text("")
    new, nowhere = tmp_path / "new", tmp_path / "nowhere"
    wrong = [
        (
            command("train", uninterrupted, rollout__group_size=2, optimizer__learning_rate=0.5),
            (2, "optimizer.learning_rate: 0.01 -> 0.5", "rollout.group_size: 4 -> 2"),
        ),
        (command("train", warm_start), (2, "run: sft -> rl")),
        (command("train", new, init_from=nowhere), (1, f"{nowhere} is no folder")),
        (
            command("train", new, init_from=warm_start, policy__width=32),
            (1, "another policy", "embed: (14, 16) instead of (14, 32)"),
        ),
        (command("train", tmp_path / "file" / "run"), (1, f"{tmp_path / 'file' / 'run'}")),
        (command("train", tmp_path / "damaged"), (1, "metrics.jsonl, line 4: not a JSON object")),
    ]
    for line, (status, *words) in wrong:
        message = error_of(run(line), status)
        assert all(word in message for word in words), message
        assert "rollout.prompts" not in message
    assert not new.exists()
    assert (contents(uninterrupted), contents(warm_start)) == before


@pytest.fixture(scope="module")
def from_warm_start(warm_start, tmp_path_factory):
    """The workdir of a run of one step that starts from the warm start, and what it said of JAX at the pool's start."""
    workdir = tmp_path_factory.mktemp("from_warm_start") / "run"
    python, flag, *line = command("train", workdir, init_from=warm_start, training__num_steps=1)
    status, stdout, stderr = run([python, flag, "tests.experiments.devices_in_use", *line])
    assert status == 0, stderr
    return workdir, stdout


def test_reinforcement_learning_starts_from_the_parameters_of_the_warm_start(from_warm_start, warm_start):
    end, begin = saved(warm_start, IMITATED), saved(from_warm_start[0], 0)
    params = [name for name in end if name.startswith("params/")]
    assert params
    assert all(end[name] == begin[name] for name in params)


def test_the_verifier_processes_start_before_jax_touches_a_device(from_warm_start):
    assert from_warm_start[1].startswith("devices in use: False\n")


def test_a_damaged_newest_checkpoint_is_one_line_and_without_it_the_run_continues(uninterrupted, tmp_path):
    shutil.copytree(uninterrupted, tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / str(STEPS)
    for path in newest.glob("*/ocdbt.process_0/d/*"):
        os.truncate(path, path.stat().st_size // 2)
    for path in newest.glob("*/d/*"):
        os.truncate(path, path.stat().st_size // 2)
    line = command("train", tmp_path / "run")
    message = error_of(run(line), 1)
    assert f"could not be read at step {STEPS}" in message
    assert "delete its folder" in message
    shutil.rmtree(newest)
    complete(line)
    assert_same_run(tmp_path / "run", uninterrupted)


def test_a_full_disk_is_one_line_and_with_more_room_the_same_command_ends_with_the_same_bits(uninterrupted, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    python, flag, *line = command("train", disk / "run")
    status, _, stderr = run([python, flag, "tests.experiments.small_disk", str(disk), *line])
    assert status == 0, stderr
    (message,) = complaints(stderr).splitlines()
    assert message.startswith("error: ")
    assert "No space left on device" in message
    assert_same_run(tmp_path / "disk-after" / "run", uninterrupted)


def test_a_checkpoint_that_can_not_be_written_is_one_line(uninterrupted, tmp_path):
    largest = max(path.stat().st_size for path in (uninterrupted / "checkpoints" / "0").rglob("*") if path.is_file())
    python, flag, *line = command("train", tmp_path, training__save_every=1)
    outcome = run([python, flag, "tests.experiments.small_files", str(largest - 1), *line], doomed=True)
    message = error_of(outcome, 1)
    assert f"a checkpoint in {tmp_path / 'checkpoints'} could not be written" in message
    assert "Complete checkpoints: none" in message
