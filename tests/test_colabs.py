"""The notebooks, from top to bottom at a small size, and a second time over the runs that the first time has made."""

import contextlib
import io
import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.experiments.runs import run

pytestmark = pytest.mark.usefixtures("no_curves", "one_device", "elsewhere")
FOLDER = Path(__file__).parents[1] / "colabs"
SMALL = {
    "00_quickstart": {"DIGITS": 2, "WARM_UP": 20, "STEPS": 3, "PROBLEMS": 4, "GROUP": 4},
    "01_write_a_verifier": {"STEPS": 2},
    "02_reward_hacking": {"SEEDS": 2, "WARM_UP": 100, "STEPS": 2},
    "06_thinking": {"SEEDS": 2, "WARM_UP": 100, "STEPS": 2},
    "07_inference_time_compute": {"WARM_UP": 100, "STEPS": 1, "PROBLEMS": 8, "SAMPLES": 4},
    "08_complaints_about_grpo": {"SEEDS": 2, "STEPS": 2},
    "11_a_pod_without_a_pod": {},
}


def cells(name):
    """The code of each cell, with the knobs turned to a small size."""
    for cell in json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]:
        text = "".join(cell["source"])
        if "knobs" in cell["metadata"].get("tags", ()):
            for knob, value in SMALL[name].items():
                text, count = re.subn(rf"^{knob} = .*$", f"{knob} = {value!r}", text, flags=re.M)
                assert count == 1
        if cell["cell_type"] == "code":
            yield text


def execute(name):
    """The names that the notebook defines, and all that it prints."""
    found, printed = {}, io.StringIO()
    with contextlib.redirect_stdout(printed):
        for number, text in enumerate(cells(name)):
            exec(compile(text, f"{name}, cell {number}", "exec"), found)
    return found, printed.getvalue()


def test_every_notebook_is_tested_and_clean():
    assert sorted(SMALL) == sorted(path.stem for path in FOLDER.glob("*.ipynb"))


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty folder, and the tests' own settings of XLA, which the commands in the notebooks would add to."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent))
    return tmp_path


def test_the_loop_that_is_written_out_learns_from_rewards():
    found, printed = execute("00_quickstart")
    assert len(found["curve"]) == len(found["lengths"]) == 3
    assert "gold: " in printed
    assert float(found["metrics"]["train/grad_norm"]) > 0
    assert found["Picture"](found["figure"])._repr_png_().startswith(b"\x89PNG")


def test_a_verifier_of_ones_own_is_tried_attacked_and_trained_on_and_the_run_is_kept():
    found, printed = execute("01_write_a_verifier")
    assert re.findall(r"(?m)^(\S+) +score 1", printed) == ["'9'", "honest"]
    assert printed.count("score 0") == 5 + 3
    for name, reason in (("loop", "time"), ("exit", "exit"), ("fill", "Memory"), ("other", "KeyError")):
        assert any(line.startswith(name) and reason in line for line in printed.splitlines()), name
    assert [row["step"] for row in found["run"].metrics] == [0, 1, 2]
    before = (found["run"].workdir / "metrics.jsonl").read_bytes()
    again, _ = execute("01_write_a_verifier")
    assert (again["run"].workdir / "metrics.jsonl").read_bytes() == before


def test_samples_are_chosen_by_oracle_majority_and_chance():
    found, printed = execute("07_inference_time_compute")
    assert (found["before"]["step"], found["after"]["step"]) == (0, 1)
    assert [len(axes.lines) for axes in found["figure"].axes] == [3, 3]
    assert found["ks"] == [1, 2, 4]
    assert printed.count("maj@4") == 2


@pytest.fixture
def pretend(monkeypatch):
    """Runs of sweeps only pretend."""
    monkeypatch.setattr("rlvr_jax.sweeps.workers._WORKER", "tests.sweeps.fake_worker")


@pytest.mark.usefixtures("pretend")
def test_rewards_are_compared_by_what_the_verifier_says_beside_the_score():
    found, printed = execute("02_reward_hacking")
    assert [len(variant.final.values) for variant in found["found"].variants] == [2] * 5
    assert [line.split(":")[0] for line in printed.splitlines()] == list(found["rewards"])


@pytest.mark.usefixtures("pretend")
def test_thinking_is_compared_by_its_price_and_by_what_it_is_needed_for():
    found, printed = execute("06_thinking")
    assert [len(found[name].variants) for name in ("hard", "easy")] == [3, 2]
    assert all(len(variant.final.values) == 2 for variant in (*found["hard"].variants, *found["easy"].variants))
    assert printed.count("six digits, ") == 3
    assert printed.count("two digits, ") == 2


@pytest.mark.usefixtures("pretend")
def test_complaints_are_judged_one_at_a_time():
    found, printed = execute("08_complaints_about_grpo")
    assert len(found["found"].variants) == 7
    assert printed.count("\n") == 7
    assert all(f"{label}: " in printed for label in found["changes"])


def test_a_plan_of_a_slice_fits_or_says_what_to_change(monkeypatch):
    def forked(command, **_):
        status, stdout, stderr = run([*command[:2], command[2].removeprefix("rlvr_jax."), *command[3:]])
        return subprocess.CompletedProcess(command, status, stdout, stderr)

    monkeypatch.setattr(subprocess, "run", forked)
    _, printed = execute("11_a_pod_without_a_pod")
    assert printed.count("memory") >= 4
    assert "error" not in printed.lower()
