"""The command `rlvr` of the installed wheel, far from the repository, and what is done with a run from start to end.

The wheel lies in an environment of its own. It sees the packages that this one has, but not its editable installation.
It has the files of the repository, so all but the run itself is done by the commands of the repository.
"""

import json
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

from experiments.cli import COMMANDS
from rlvr_jax.hf.pretrained import load_pretrained
from rlvr_jax.hf.source import listed_stop_tokens
from rlvr_jax.text.tokenizers import decode, encode, pretrained_tokenizer, stop_tokens
from rlvr_jax.training.workdir import read_config
from tests.experiments.calls import call, complete
from tests.experiments.runs import ROOT, SMALL, complaints, error_of, lines_of, run, saved_steps

SIZE = SMALL | {"evaluation.pass_problems": 1, "evaluation.pass_samples": 2, "evaluation.ks": "(1,2)"}
SIZE |= {"verifier.workers": 1}
EVALUATION = ["--problems=8", "--samples=2", "--seed=3"]
OVERRIDES = [f"--config.{key}={value}" for key, value in SIZE.items()]


@pytest.fixture(scope="module")
def rlvr(tmp_path_factory) -> list[str]:
    """The command, by its path."""
    source, wheels, home = (tmp_path_factory.mktemp(name) for name in ("source", "wheels", "home"))
    for name in ("rlvr_jax", "configs", "experiments", "kernels"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index"]
    build = [*pip, "wheel", *offline, "--no-build-isolation", f"--wheel-dir={wheels}", str(source)]
    subprocess.run(build, check=True, capture_output=True, cwd=home)
    shutil.rmtree(source)
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    (own,) = (home / "lib").glob("python*/site-packages")
    (own / "packages.pth").write_text(sysconfig.get_path("purelib"))  # whose own .pth files are not read
    (wheel,) = wheels.iterdir()
    subprocess.run([*pip, f"--python={python}", "install", *offline, str(wheel)], check=True, capture_output=True)
    where = subprocess.run(
        [python, "-c", "from importlib.util import find_spec as f; print(f('rlvr_jax.kernels.attention').origin)"],
        capture_output=True,
        text=True,
        cwd=home,
        check=True,
    )
    assert where.stdout.startswith(str(own))
    for name in ("configs", "experiments", "kernels"):
        assert files(own / "rlvr_jax" / name) == files(ROOT / name)
    assert files(own / "rlvr_jax") >= files(ROOT / "rlvr_jax")
    return [str(home / "bin" / "rlvr")]


def files(folder: Path) -> set[Path]:
    """Those below a folder, which is not empty, but for what Python writes and the scripts for clusters."""
    found = {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}
    assert found
    return {path for path in found if not {"__pycache__", "launch"} & set(path.parts)}


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Path:
    """The folder in which the commands are started."""
    return tmp_path_factory.mktemp("elsewhere")


@pytest.fixture(scope="module")
def workdir(rlvr, elsewhere, commands) -> Path:
    """Of a shortened quickstart: a warm start and reinforcement learning from it."""
    stdout = called(commands, elsewhere, "sft", "--config=quickstart", "--workdir=run/sft", *OVERRIDES)
    assert re.fullmatch(
        r"loss \d\.\d{3} -> \d\.\d{3}; train from here with --config.init_from=run/sft\nreport: run/sft/report.html\n",
        stdout,
    )
    train = ("train", "--config", "quickstart", "--workdir=run", "--config.init_from=run/sft")
    stdout = done(rlvr, elsewhere, *train, *OVERRIDES)
    summary, *suggested, report = stdout.splitlines()
    share = r"[01]\.\d{3} -> [01]\.\d{3}"
    names = ("greedy accuracy", r"sampled accuracy \(pass@1\)", "pass@2")
    assert re.fullmatch(f"held-out problems, step 0 -> 2: {', '.join(f'{name} {share}' for name in names)}", summary)
    assert all(line.startswith("the curves suggest: ") for line in suggested)
    assert report == "report: run/report.html"
    return elsewhere / "run"


@pytest.fixture(scope="module")
def evaluated(elsewhere, workdir, commands) -> tuple[str, dict]:
    """What the command says of the run, and the numbers that it writes."""
    stdout = called(commands, elsewhere, "evaluate", "--workdir=run", *EVALUATION)
    return stdout, json.loads((workdir / "evaluation.json").read_text())


def done(rlvr: list[str], folder: Path, *arguments: object) -> str:
    """What the command prints; it must succeed and have nothing to complain about."""
    return without_complaints(run([*rlvr, *map(str, arguments)], cwd=folder))


def called(commands: str, folder: Path, name: str, *arguments: str) -> str:
    """The same of a command of the repository."""
    return without_complaints(call([sys.executable, "-m", f"experiments.{name}", *arguments], folder, commands))


def without_complaints(outcome: tuple[int, str, str]) -> str:
    status, stdout, stderr = outcome
    assert (status, complaints(stderr)) == (0, ""), stderr
    return stdout


def test_help_lists_the_commands_and_the_configs(rlvr, elsewhere):
    page = done(rlvr, elsewhere, "--help")
    assert all(f"  {name} " in page for name in COMMANDS)
    assert "  quickstart " in page


def test_the_quickstart_runs_from_any_folder(workdir):
    assert saved_steps(workdir) == [0, 2]
    assert lines_of(workdir / "metrics.jsonl") == 3
    environment = json.loads((workdir / "environment.json").read_text())
    assert environment["command"].startswith("rlvr train --config=quickstart --workdir=run ")


def test_evaluate_prints_a_table_and_writes_it(evaluated):
    stdout, numbers = evaluated
    assert (numbers["step"], numbers["problems"], numbers["samples"]) == (2, 8, 2)
    *lines, page, cost = [line.split() for line in stdout.splitlines()[2:]]
    assert page == ["page:", "run/evaluation.html"]
    notes = [line for line in lines if line[0] == "note:"]  # of responses that were cut off, if any were
    assert len(notes) == (numbers["task/modsum/cut_off"] > 0)
    lines = [line for line in lines if line not in notes]
    names = ("greedy_accuracy", "pass@1", "pass@2", "maj@2")
    assert [line[:2] for line in lines] in ([["modsum", x] for x in names[:i]] for i in (3, 4))
    assert (int(cost[0]), cost[1]) == (numbers["tokens"], "tokens")
    assert len(numbers["values"]["pass@2"]) == 8
    for task, name, mean, low, _, high in lines:
        key = f"task/{task}/{name}"
        assert [f"{numbers[key + end]:.4f}" for end in ("", "_low", "_high")] == [mean, low, high]
        assert float(low) <= float(mean) <= float(high)


@pytest.fixture(scope="module")
def exported(elsewhere, workdir, commands) -> Path:
    """The policy of the run as a Hugging Face checkpoint."""
    out = elsewhere / "exported"
    said = called(commands, workdir.parent, "export", "--workdir=run", f"--out={out}")
    assert said == f"policy of step 2 written to {out}\n"
    return out


def test_evaluate_and_export_agree_on_a_policy_with_and_without_its_workdir(elsewhere, evaluated, exported, commands):
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {path.name for path in exported.iterdir()}
    bare = ["--config=quickstart", *OVERRIDES, f"--config.pretrained={exported}", *EVALUATION, "--output=bare.json"]
    complete([sys.executable, "-m", "experiments.evaluate", *bare], elsewhere, commands)
    found = json.loads((elsewhere / "bare.json").read_text())
    assert found == evaluated[1] | {"step": 0, "seconds": found["seconds"]}


def test_a_policy_that_was_trained_from_nothing_is_exported_with_its_shape_and_tokenizer(exported, workdir, commands):
    shape, params = load_pretrained(exported)
    assert shape == read_config(workdir).policy
    assert params["embed"].shape == (shape.vocab_size, shape.width)
    tokenizer = pretrained_tokenizer(str(exported))
    assert decode(tokenizer, [encode(tokenizer, "123=#6")]) == ["123=#6"]
    assert stop_tokens(tokenizer, listed_stop_tokens(exported)) == (1,)
    again = [sys.executable, "-m", "experiments.export", f"--workdir={workdir}", f"--out={exported}"]
    assert "choose another folder" in error_of(call(again, workdir, commands), 1)


def test_report_is_drawn_again(elsewhere, workdir, commands):
    (workdir / "report.html").unlink()
    assert called(commands, elsewhere, "report", "--workdir=run", "--out=page.html") == "report: page.html\n"
    assert not (workdir / "report.html").exists()
    assert called(commands, elsewhere, "report", "run") == "report: run/report.html\n"
    assert (elsewhere / "page.html").read_bytes() == (workdir / "report.html").read_bytes()
    assert "modsum, seed 0" in (workdir / "report.html").read_text()


def test_decontaminate_compares_the_tasks_of_a_config(elsewhere, commands):
    stdout = called(commands, elsewhere, "decontaminate", "--config=quickstart", "--examples=50")
    assert "| modsum:train (50) | modsum:heldout (50) |" in stdout


def test_benchmark_is_there(elsewhere):
    assert "rlvr benchmark head " in done([sys.executable, "-m", "experiments.cli"], elsewhere, "benchmark", "--help")
