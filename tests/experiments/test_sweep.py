"""The commands `sweep` and `reproduce`: a real sweep, stored and made again; their page, with runs that pretend."""

import json
import re
import shlex
import sys
from pathlib import Path

import pytest
from absl import flags

import rlvr_jax
from experiments import cli
from rlvr_jax.config import Config, to_dict
from rlvr_jax.reporting import jsonl
from rlvr_jax.sweeps import pictures, workers
from tests.experiments.calls import forking
from tests.experiments.runs import ROOT, command, error_of, finish, metrics, run, start

METRICS = "eval/greedy_accuracy,train/reward"
SIZE = {"training__num_steps": 2, "sft__num_steps": 2, "sft__save_every": 2, "evaluation__every": 1}
SIZE |= {"algorithm__kl_coef": 0.0, "algorithm__reference": "none", "training__save_every": 2, "verifier__workers": 0}
SIZE |= {"evaluation__pass_problems": 1}  # with which an evaluation has the shape of a step


def line(name, workdir, *more, **changes):
    return [*command(name, workdir, **SIZE | changes), *more]


def test_a_sweep_is_stored_and_made_again_to_the_bit(tmp_path):
    with forking() as address:
        forked = {"RUN_FORKS": address, "RUN_WORKER": "tests.sweeps.forked_worker"}
        run = lambda line: finish(start(line, **forked))  # noqa: E731
        _store_and_make_again(run, tmp_path)


def _store_and_make_again(run, tmp_path):
    status, stdout, stderr = run(line("sweep", tmp_path / "sweep", "--grid=seed=0..2"))
    assert status == 0, stderr
    assert re.search(r"(?m)^eval/greedy_accuracy  seeds .*\nbase +3  ", stdout)
    assert "report: " in stdout
    folders = [tmp_path / "sweep" / "runs" / "base" / f"seed={seed}" for seed in range(3)]
    assert [len(metrics(folder)) for folder in folders] == [3, 3, 3]
    assert len({json.dumps(metrics(folder)) for folder in folders}) == 3
    assert metrics(tmp_path / "sweep" / "warm_starts" / "seed=0")[-1]["step"] == 2
    python, module = sys.executable, "experiments.reproduce"
    file = tmp_path / "mine.json"
    store = [python, "-m", module, f"--curve={file}", f"--store={tmp_path}/sweep", f"--metric={METRICS}"]
    again = [python, "-m", module, f"--curve={file}", f"--workdir={tmp_path}/again"]
    stored, made = run(store), run(again)
    assert stored[:2] == (0, f"stored: {file}\n"), stored
    assert made[0] == 0, made
    assert "base: seed 0 to the bit; train/reward of 1 seed lies in the band of 3 seeds" in made[1]
    assert (tmp_path / "again" / "reproduced.png").read_bytes().startswith(b"\x89PNG")


def test_bad_grids_are_one_line_before_any_run(tmp_path):
    wrong = {
        "config.algorithm.scal": "--grid=algorithm.scal=none",
        "'seed'": "--grid=seed",
        "--grid must be given": "--one_at_a_time",
        # The prompts do not fit, which only the setup of the run knows.
        "(with max_prompt_length=2)": "--grid=rollout.max_prompt_length=4,2",
    }
    for message, argument in wrong.items():
        assert message in error_of(run(line("sweep", tmp_path / "sweep", argument)), 2)
    assert not (tmp_path / "sweep" / "runs").exists()


@pytest.fixture
def pretend(monkeypatch, tmp_path):
    """Runs only pretend, and pictures are not drawn; in an empty folder."""
    monkeypatch.setattr(workers, "_WORKER", "tests.sweeps.fake_worker")
    for name in ("curves_svg", "differences_svg", "reproduction_png"):
        monkeypatch.setattr(pictures, name, lambda *_: b"<svg/>")
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)  # which the commands change
    monkeypatch.syspath_prepend(str(ROOT))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def do(text, monkeypatch):
    """The exit status of a command line, whose flags are its own: another command may have been imported before."""
    modules = {flag: flags.FLAGS.find_module_defining_flag(flag) or "" for flag in flags.FLAGS}
    others = {flag: flags.FLAGS[flag] for flag, module in modules.items() if module.startswith("experiments.")}
    for flag in others:
        delattr(flags.FLAGS, flag)
    shared = set(flags.FLAGS)
    monkeypatch.setattr(sys, "argv", shlex.split(text.replace("\\\n", " ")))
    try:
        cli.main()
        return 0
    except SystemExit as end:
        return end.code
    finally:
        for flag in set(flags.FLAGS) - shared:
            delattr(flags.FLAGS, flag)
        for name, flag in others.items():
            flags.FLAGS[name] = flag
            flags.FLAGS.register_flag_by_module(modules[name], flag)


def test_the_commands_of_the_page(pretend, monkeypatch, capsys):
    page = (ROOT / "docs" / "sweeps.md").read_text()
    lines = [text for block in re.findall(r"```bash\n(.*?)```", page, re.DOTALL) for text in block.splitlines()]
    assert len(lines) == 5
    for text in lines:
        status = do(text, monkeypatch)
        out = capsys.readouterr().out
        # What only pretends to be the quickstart is not in its band.
        assert status == (1 if text.endswith("--curve=quickstart") else 0), out
    assert "scale=none: seed 0 to the bit; eval/greedy_accuracy of 1 seed lies in the band" in out
    stored = (pretend / "mine.json").read_text()
    assert do("rlvr reproduce --curve=mine.json --rebuild", monkeypatch) == 0
    assert "mine.json" in capsys.readouterr().out
    assert json.loads((pretend / "mine.json").read_text())["curves"] == json.loads(stored)["curves"]
    data = json.loads((pretend / "runs" / "scales" / "results.json").read_text())
    assert [x["label"] for x in data["variants"]] == ["scale=group_std", "scale=none"]
    for measured, variant in zip(
        re.findall(r"(?m)^    (rlvr sweep (?:.*\\\n)+.*)$", page),
        (("preset=gspo", 8), ("preset=dapo", 5), ("kl_coef=0.0", 5), ("preset=gspo", 3)),
        strict=True,
    ):
        assert do(f"{measured} --dry_run", monkeypatch) == 0
        assert capsys.readouterr().out.count(variant[0]) == variant[1]
    assert data["variants"][1]["final"]["pairs"] == 5


def test_the_notebook_of_the_page(pretend):
    page = (ROOT / "docs" / "sweeps.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    space = {}
    exec(code, space)
    assert space["found"].variants[1].sentence.startswith("better at the end (+0.200)")
    assert (pretend / "runs" / "scales" / "report.html").exists()
    again = rlvr_jax.sweep(
        str(ROOT / "configs" / "countdown.py"), "algorithm.scale=group_std,none;seed=0..4", "runs/scales"
    )
    assert again == space["found"]
    assert repr(again).splitlines()[1].split()[:2] == ["scale=group_std", "5"]


def test_one_at_a_time_and_a_dry_run(pretend, monkeypatch, capsys):
    grid = "algorithm.clip_low=0.1,0.2;algorithm.clip_high=0.3;seed=3"
    text = f"rlvr sweep --config=quickstart --one_at_a_time --grid='{grid}'"
    assert do(f"{text} --dry_run", monkeypatch) == 0
    out = capsys.readouterr().out
    assert "time unknown" in out
    for wrong in ("--at_once=0", "--metric=eval/pass@9"):
        assert do(f"{text} --dry_run {wrong}", monkeypatch) == 2
    Path("taken").touch()
    assert do(f"{text} --workdir=taken", monkeypatch) == 2
    assert "taken is a file; name a folder" in capsys.readouterr().err
    assert not (pretend / "runs").exists()
    assert do(text, monkeypatch) == 0
    labels = [row.split()[0] for row in capsys.readouterr().out.splitlines()[1:4]]
    assert labels == ["base", "clip_low=0.1", "clip_high=0.3"]
    assert do("rlvr report --workdir=runs/quickstart_sweep", monkeypatch) == 0
    assert "clip_high=0.3" in capsys.readouterr().out


@pytest.mark.usefixtures("pretend")
def test_the_report_of_several_runs(monkeypatch, capsys):
    for name in ("a", "b"):
        Path("runs", name).mkdir(parents=True)
        Path("runs", name, "config.json").write_text(json.dumps(to_dict(Config())))
        jsonl.append(f"runs/{name}/metrics.jsonl", [{"step": 1, "train/reward": 0.5}])
    assert do("rlvr report runs/a runs/b --out=both.html", monkeypatch) == 0
    assert capsys.readouterr().out == "report: both.html\n"
    assert '<div id="curves-of-runs">' in Path("both.html").read_text()
    for arguments, wrong in (("runs/a runs/a", "runs/a is given twice"), ("", "RUN"), ("runs/a runs/c", "runs/c")):
        assert do(f"rlvr report {arguments}", monkeypatch) == 2
        assert wrong in capsys.readouterr().err


@pytest.mark.usefixtures("pretend")
def test_a_curve_that_is_not_stored_is_named_with_those_that_are(monkeypatch, capsys):
    assert do("rlvr reproduce --curve=quickstrat", monkeypatch) == 2
    assert "quickstart" in capsys.readouterr().err
    assert do("rlvr reproduce --curve=quickstart --seeds='0;rollout.prompts=3'", monkeypatch) == 2
    assert "--seeds=0;rollout.prompts=3" in capsys.readouterr().err
    assert do("rlvr reproduce --store=nothing", monkeypatch) == 2
    assert "--store needs --curve" in capsys.readouterr().err
    assert do("rlvr reproduce --curve=x.json --store=nothing", monkeypatch) == 2
    assert "nothing is not the folder of a sweep" in capsys.readouterr().err
