"""The runs of a sweep in their processes: order, crashes, interrupts, what is left. The workers only pretend."""

import json
import os
import signal
import threading
import time

import pytest

from rlvr_jax import sweeps
from rlvr_jax.config import from_dict
from rlvr_jax.errors import ConfigError, PreemptedError, RunError
from rlvr_jax.sweeps import estimate, pictures, plan, workers
from rlvr_jax.training.lock import locked
from tests.experiments.runs import wait_until

SIZE = {"training": {"num_steps": 4}, "evaluation": {"every": 2}}
CONFIG = from_dict(SIZE | {"sft": {"num_steps": 4, "updates_per_call": 2, "save_every": 2}})
GRID = {"algorithm.scale": ["group_std", "none"]}


@pytest.fixture(autouse=True)
def _pretend(monkeypatch):
    monkeypatch.setattr(workers, "_WORKER", "tests.sweeps.fake_worker")
    for name in ("curves_svg", "differences_svg"):
        monkeypatch.setattr(pictures, name, lambda *_: b"<svg/>")


def sweep_of(folder, seeds, grid=GRID, **options):
    return plan.make_sweep(folder, CONFIG, {**grid, "seed": seeds}, **options)


def statuses(sweep):
    ends = [(run, plan.outcome(run)) for run in plan.runs(sweep)]
    return {str(run.folder.relative_to(sweep.folder)): end and end["status"] for run, end in ends}


def made(sweep):
    """How often each run was made."""
    files = {run.folder: run.folder / "made.txt" for run in plan.runs(sweep)}
    return [len(file.read_text().splitlines()) if file.exists() else 0 for file in files.values()]


def test_runs_of_a_seed_stand_together_after_their_warm_start(tmp_path):
    sweep = sweep_of(tmp_path, [0, 1], {"algorithm.scale": ["none"], "policy.width": [16, 32]})
    names = [str(run.folder.relative_to(tmp_path)) for run in plan.runs(sweep)]
    assert names == [
        f"{part}seed={seed}"
        for seed in (0, 1)
        for part in (
            "warm_starts/policy.width=16,",
            "runs/algorithm.scale=none,policy.width=16/",
            "warm_starts/policy.width=32,",
            "runs/algorithm.scale=none,policy.width=32/",
        )
    ]
    first, second = plan.runs(sweep)[:2]
    assert second.config.init_from == str(first.folder) == str(second.needs)
    assert (first.config.algorithm.scale, first.config.policy.width) == ("group_std", 16)
    cold = sweep_of(tmp_path, [0], warm_start=False)
    assert {run.kind for run in plan.runs(cold)} == {"rl"}
    assert not any(run.config.init_from for run in plan.runs(cold))


def test_a_sweep_is_what_its_file_says(tmp_path):
    grid = {"reward": [(("score", 1.0),), (("score", 1.0), ("format", 0.5))], "algorithm": [{"scale": "none"}]}
    sweep = sweep_of(tmp_path, range(2), grid, one_at_a_time=True)
    plan.write(sweep)
    assert plan.runs(plan.read(tmp_path)) == plan.runs(sweep)
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"sweep\.json is damaged"):
        plan.read(tmp_path)
    with pytest.raises(ConfigError, match=r"no sweep\.json"):
        plan.read(tmp_path / "none")


def test_failed_runs_and_dead_processes_are_recorded_and_the_others_go_on(tmp_path, capsys):
    sweep = sweep_of(tmp_path, [0, 911, 912, 1])
    found = sweeps.make(sweep)
    end = lambda seed: plan.outcome(next(x for x in plan.runs(sweep) if x.kind == "rl" and x.config.seed == seed))  # noqa: E731
    assert statuses(sweep) == {
        f"{folder}seed={seed}": "failed" if seed == 911 or (seed == 912 and "runs" in folder) else "finished"
        for seed in (0, 911, 912, 1)
        for folder in ("warm_starts/", "runs/algorithm.scale=group_std/", "runs/algorithm.scale=none/")
    }
    assert "warm_starts/seed=911/log.txt" in end(911)["error"]
    assert "exit status 7" in end(912)["error"]
    assert [sorted(x.failed) for x in found.variants] == [[911, 912], [911, 912]]
    assert sorted(found.variants[0].final.values) == [0, 1]
    lines = capsys.readouterr().err.splitlines()
    assert any("8/8" in line and "scale=none, seed 1: 2 s" in line for line in lines)
    assert any("scale=none, seed 912: FAILED" in line and "exit status 7" in line for line in lines)

    before = made(sweep)
    larger = sweep_of(tmp_path, [0, 911, 912, 1, 2])  # failed ones are not tried again, finished ones never
    sweeps.make(larger)
    assert made(larger) == [*before, 1, 1, 1]
    sweeps.make(larger, retry=True)
    warm = plan.runs(larger)[3]
    assert warm.kind == "sft"
    assert warm.config.seed == 911
    assert made(larger)[3] == 2


def test_a_metric_that_the_bases_first_run_lacks_ends_the_sweep_before_the_other_runs(tmp_path):
    sweep = sweep_of(tmp_path, range(2))
    for _ in range(2):  # also when it is continued
        with pytest.raises(ConfigError, match=r"train/finish/length.*seed=0.*no such metric"):
            sweeps.make(sweep, metric="train/finish/length")
        assert made(sweep) == [1, 1, 0, 0, 0, 0]
    with pytest.raises(ConfigError, match=r"train/entropi: .*train/entropy"):
        sweeps.make(sweep, metric="train/entropi")


def test_several_at_once_share_the_cores_and_make_each_run_once(tmp_path, monkeypatch):
    monkeypatch.setattr(workers, "shares", lambda number: [workers.Share() for _ in range(number)])
    sweep = sweep_of(tmp_path, range(4))
    sweeps.make(sweep, at_once=3)
    assert made(sweep) == [1] * 12


def test_an_interrupt_saves_and_the_next_call_goes_on(tmp_path):
    sweep = sweep_of(tmp_path, [0, 913, 1])
    log = tmp_path / "runs" / "algorithm.scale=group_std" / "seed=913"

    def press():
        wait_until(log.exists)
        time.sleep(0.1)
        os.kill(os.getpid(), signal.SIGINT)

    presser = threading.Thread(target=press)
    presser.start()
    with pytest.raises(PreemptedError, match=r"SIGINT.*4 of 9 runs"):
        sweeps.make(sweep)
    presser.join()
    assert (tmp_path / "report.html").exists()
    assert plan.outcome(next(run for run in plan.runs(sweep) if run.folder == log)) is None
    assert len(plan.left(sweep)) == 5


def test_what_can_not_run_is_refused_before_the_first_run(tmp_path):
    sweep = sweep_of(tmp_path, [910])
    with pytest.raises(ConfigError, match=r"config\.seed is refused"):
        sweeps.make(sweep)
    assert set(statuses(sweep).values()) == {None}
    with pytest.raises(ConfigError, match="--at_once must be 1 or more"):
        workers.make_runs(sweep, 0)
    with locked(tmp_path), pytest.raises(RunError, match="in use by"):
        sweeps.make(sweep)


def test_the_folder_of_something_else_is_refused_and_left_as_it_is(tmp_path):
    sweeps.make(sweep_of(tmp_path, [0, 1]))
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    others = {
        "seed=1": sweep_of(tmp_path, [0]),
        "scale=group_std/seed=0": sweep_of(tmp_path, [0, 1], {"algorithm.clip_low": [0.1]}),
        "a sweep": plan.make_sweep(tmp_path, CONFIG, {**GRID, "seed": [0]}, reproduces=True),
    }
    for message, other in others.items():
        with pytest.raises(ConfigError, match=f"{message}.*use another --workdir"):
            sweeps.make(other)
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    for reproduces in (False, True):
        with pytest.raises(ConfigError, match="run is the folder of a run"):
            sweeps.make(plan.make_sweep(tmp_path / "run", CONFIG, {"seed": [0]}, reproduces=reproduces))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["config.json"]


def test_a_run_that_another_process_still_makes_has_no_end(tmp_path):
    sweep = sweep_of(tmp_path, [914, 0])
    with pytest.raises(RunError, match=r"2 of 6 runs are not made: .*seed=914 is in use"):
        sweeps.make(sweep)
    assert [status for name, status in statuses(sweep).items() if name.startswith("runs")] == [None] * 2 + [
        "finished"
    ] * 2
    assert (tmp_path / "report.html").exists()


def test_a_folder_with_other_runs_is_refused_with_the_keys(tmp_path):
    sweep = sweep_of(tmp_path, [0])
    run = plan.runs(sweep)[1]
    run.folder.mkdir(parents=True)
    record = {"run": "rl", "training": {"num_steps": 4}, "algorithm": {"clip_low": 0.5}, "init_from": "/moved/seed=0"}
    (run.folder / "config.json").write_text(json.dumps(record))
    with pytest.raises(ConfigError, match=r"seed=0 holds a run .*algorithm\.clip_low: 0\.5 -> 0\.2"):
        plan.check_folder(sweep)


def test_a_dry_run_knows_the_time_once_a_run_is_finished(tmp_path):
    sweep = sweep_of(tmp_path, [0, 1])
    assert (
        estimate.lines(sweep).splitlines()[-1] == "6 of 6 runs are left: time unknown: no run of this sweep is finished"
    )
    sweeps.make(sweep_of(tmp_path, [0]))
    lines = estimate.lines(sweep).splitlines()
    assert lines[0].split() == ["warm_starts/seed=0", "finished,", "about", "0:00:02"]
    assert lines[4].split() == ["runs/algorithm.scale=group_std/seed=1", "4", "steps,", "about", "0:00:02"]
    assert lines[-1] == "3 of 6 runs are left: about 0:00:06"
    assert estimate.lines(sweep, 2).splitlines()[-1] == "3 of 6 runs are left: about 0:00:03"
    plan.write_outcome(plan.runs(sweep)[3], status="failed", error="a reason")
    assert estimate.lines(sweep).splitlines()[-1].startswith("2 of 6 runs are left")
    assert estimate.lines(sweep, retry=True).splitlines()[-1].startswith("3 of 6 runs are left")
