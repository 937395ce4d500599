"""A run as a user meets it: real processes that are killed, pre-empted, continued, and given bad input."""

import json
import os
import re
import shlex
import shutil
import signal
import sys

import pytest

from tests.experiments.calls import call, complete, one_process
from tests.experiments.runs import (
    EVALUATED,
    IMITATED,
    ROOT,
    STEPS,
    TINY,
    command,
    complaints,
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
def here():
    """Address of the process in which the commands run that nothing happens to, so that they share what is compiled."""
    with one_process() as address:
        yield address


@pytest.fixture(scope="module")
def warm_start(here, tmp_path_factory):
    """The workdir of a supervised run that nothing happened to."""
    workdir = tmp_path_factory.mktemp("warm_start") / "sft"
    complete(command("sft", workdir), workdir.parent, here)
    return workdir


@pytest.fixture(scope="module")
def of_page(here, warm_start, tmp_path_factory):
    """The folder with the two runs of the page."""
    folder = tmp_path_factory.mktemp("of_page")
    first, again = re.findall(r"(?m)^    rlvr train (.*)$", (ROOT / "docs" / "runs.md").read_text())
    (folder / "runs" / "quickstart").mkdir(parents=True)
    (folder / "runs" / "quickstart" / "sft").symlink_to(warm_start)
    small = [f"--config.{key}={value}" for key, value in TINY.items()]
    train = [sys.executable, "-m", "experiments.train"]
    complete([*train, *shlex.split(first), *small], folder, here)
    complete([*train, *shlex.split(again), "--config.training.num_steps=1"], folder, here)
    return folder / "runs"


@pytest.fixture(scope="module")
def uninterrupted(of_page):
    """The workdir of a run that nothing happened to: the first one of the page."""
    return of_page / "mine"


@pytest.fixture(scope="module")
def line(warm_start):
    """A function of a workdir: the command of the same run."""
    return lambda workdir, **changes: command("train", workdir, init_from=warm_start, **changes)


def test_a_run_writes_every_step_and_learns(uninterrupted):
    rows = metrics(uninterrupted)
    assert [row["step"] for row in rows] == list(range(STEPS + 1))
    assert rows[-1]["train/response_length"] > rows[1]["train/response_length"]
    assert saved(uninterrupted, 0)["params/embed"] != saved(uninterrupted, STEPS)["params/embed"]
    assert {row["step"] for row in rows if "eval/greedy_accuracy" in row} == set(range(0, STEPS + 1, EVALUATED))
    steps = {json.loads(line)["step"] for line in (uninterrupted / "samples.jsonl").read_text().splitlines()}
    assert steps == {1, *range(0, STEPS + 1, EVALUATED)}


@pytest.fixture(scope="module")
def interrupted(here, uninterrupted, line, tmp_path_factory):  # noqa: ARG001, has compiled what the end needs
    """The workdir of a run that was killed, preempted, killed while it wrote a checkpoint, and lost its newest one.

    Besides, how the preempted run and the one with a damaged checkpoint ended, and what was there in between.
    """
    workdir = tmp_path_factory.mktemp("interrupted")
    same, folder, rows, said = line(workdir), workdir / "checkpoints", workdir / "metrics.jsonl", {}
    unfinished = lambda: [path for path in folder.glob("*tmp*") if not path.name.startswith("0.")]  # noqa: E731
    before_any_checkpoint = lambda: (workdir / "config.json").exists()  # noqa: E731
    assert interrupt(same, before_any_checkpoint, signal.SIGKILL)[0] == -signal.SIGKILL
    said["preempted"] = interrupt(same, lambda: lines_of(rows) >= 7, signal.SIGTERM, paused=7)
    said["step"], said["rows"] = saved_steps(workdir)[-1], metrics(workdir)
    said["report"] = (workdir / "report.html").read_text()
    for _ in range(5):  # while it writes a checkpoint, if the kill is quick enough
        assert interrupt(same, lambda: bool(unfinished()), signal.SIGKILL)[0] == -signal.SIGKILL
        if unfinished():
            break
    assert unfinished(), "no kill fell into the writing of a checkpoint"
    assert lines_of(rows) < STEPS + 1
    newest = folder / str(saved_steps(workdir)[-1])
    for path in [*newest.glob("*/ocdbt.process_0/d/*"), *newest.glob("*/d/*")]:
        os.truncate(path, path.stat().st_size // 2)
    said["damaged"], said["newest"] = call(same, workdir, here), newest.name
    shutil.rmtree(newest)
    complete(same, workdir, here)
    assert not unfinished()
    return workdir, said


def test_a_run_killed_at_several_moments_preempted_and_continued_ends_with_the_same_bits(uninterrupted, interrupted):
    workdir, said = interrupted
    assert said["rows"] == metrics(uninterrupted)[: said["step"] + 1]
    assert metrics(workdir) == metrics(uninterrupted)
    assert (workdir / "samples.jsonl").read_bytes() == (uninterrupted / "samples.jsonl").read_bytes()
    assert saved_steps(workdir) == saved_steps(uninterrupted)
    assert saved(workdir, STEPS) == saved(uninterrupted, STEPS)
    assert saved(workdir, 0) == saved(uninterrupted, 0)


def test_sigterm_saves_and_exits_with_143(interrupted):
    _, said = interrupted
    status, stdout, stderr = said["preempted"]
    assert (status, stdout) == (143, "")
    noted, message = filter(None, complaints(stderr).splitlines())
    assert said["step"] == said["rows"][-1]["step"] == 6
    assert noted.startswith("SIGTERM: ")
    assert message.startswith(f"SIGTERM: saved the state of step {said['step']} and stopped")
    assert "run the same command again" in message
    assert "step 0 → " in said["report"]


def test_a_damaged_newest_checkpoint_is_one_line(interrupted):
    _, said = interrupted
    message = error_of(said["damaged"], 1)
    assert f"could not be read at step {said['newest']}" in message
    assert "delete its folder" in message


def test_a_warm_start_preempted_and_continued_ends_with_the_same_bits(here, warm_start, tmp_path):
    line, rows = command("sft", tmp_path), tmp_path / "metrics.jsonl"
    assert interrupt(line, lambda: lines_of(rows) >= 2, signal.SIGTERM, paused=2)[0] == 143
    complete(line, tmp_path, here)
    assert metrics(tmp_path) == metrics(warm_start)
    assert saved(tmp_path, IMITATED) == saved(warm_start, IMITATED)


def test_the_commands_of_the_page_train_and_train_again_from_the_config_of_that_run(of_page):
    made, other = (json.loads((of_page / x / "config.json").read_text()) for x in ("mine", "other"))
    made["training"]["num_steps"] = 1
    assert (made["seed"], other["seed"], made | {"seed": 1}) == (0, 1, other)
    rows, others = (metrics(of_page / name) for name in ("mine", "other"))
    assert (len(rows), len(others)) == (STEPS + 1, 2)
    assert rows[1] != others[1]


def test_reinforcement_learning_starts_from_the_parameters_of_the_warm_start(of_page, warm_start):
    end, begin = saved(warm_start, IMITATED), saved(of_page / "mine", 0)
    params = [name for name in end if name.startswith("params/")]
    assert params
    assert all(end[name] == begin[name] for name in params)


def test_the_verifier_processes_start_before_jax_touches_a_device(tmp_path):
    python, flag, *train = command("train", tmp_path / "run", rollout__max_prompt_length=2)  # fails as soon as it does
    status, stdout, stderr = run([python, flag, "tests.experiments.devices_in_use", *train])
    assert (status, stdout) == (2, "devices in use: False\n"), stderr


def test_a_finished_run_started_again_says_so_and_changes_nothing(here, interrupted, line, warm_start, tmp_path):
    workdir, _ = interrupted
    for folder, again in ((workdir, line(workdir)), (warm_start, command("sft", warm_start))):
        before = contents(folder)
        status, stdout, stderr = call(again, tmp_path, here)
        assert (status, stderr) == (0, "")
        assert stdout.startswith(f"{folder} already holds all")
        after = contents(folder)
        assert before.keys() == after.keys()
        made_again = {"environment.json", "report.html", "curves.png"}
        assert {path for path in after if before[path] != after[path]} <= made_again


def test_a_run_that_can_not_start_is_one_line_that_says_why_and_changes_nothing(
    here, interrupted, line, warm_start, tmp_path
):
    workdir, _ = interrupted
    before = contents(workdir), contents(warm_start)
    shutil.copytree(workdir, tmp_path / "damaged")
    rows = tmp_path / "damaged" / "metrics.jsonl"
    rows.write_text(rows.read_text().replace('{"step": 3,', '{"step": 3;', 1))
    shutil.rmtree(tmp_path / "damaged" / "checkpoints" / str(STEPS))
    new = tmp_path / "new"
    wrong = [
        (
            line(workdir, rollout__group_size=2, optimizer__learning_rate=0.5),
            (2, "optimizer.learning_rate: 0.01 -> 0.5", "rollout.group_size: 4 -> 2"),
        ),
        (line(new, policy__width=32), (1, "another policy", "embed: (14, 16) instead of (14, 32)")),
        (line(tmp_path / "damaged"), (1, "metrics.jsonl, line 4: not a JSON object")),
    ]
    for bad, (status, *words) in wrong:
        message = error_of(call(bad, tmp_path, here), status)
        assert all(word in message for word in words), message
        assert "rollout.prompts" not in message
    assert not new.exists()
    assert (contents(workdir), contents(warm_start)) == before


def test_a_full_disk_is_one_line_and_with_more_room_the_same_command_ends_with_the_same_bits(
    uninterrupted, line, tmp_path
):
    disk = tmp_path / "disk"
    disk.mkdir()
    python, flag, *train = line(disk / "run")
    status, _, stderr = run([python, flag, "tests.experiments.small_disk", str(disk), *train])
    assert status == 0, stderr
    said = complaints(stderr).splitlines()
    assert len(said) == 1, stderr
    assert said[0].startswith("error: ")
    assert "No space left on device" in said[0]
    assert metrics(tmp_path / "disk-after" / "run") == metrics(uninterrupted)
    assert saved(tmp_path / "disk-after" / "run", STEPS) == saved(uninterrupted, STEPS)
