"""The notebooks at a small size: from top to bottom, and again from the last cell to the first. There is no network."""

import ast
import builtins
import contextlib
import errno
import functools
import importlib.util
import io
import json
import os
import re
import signal
import socket
import subprocess
import symtable
from pathlib import Path

import pytest

import rlvr_jax
from rlvr_jax import plot
from rlvr_jax.config import to_dict
from rlvr_jax.config_rules import check
from rlvr_jax.errors import PreemptedError
from rlvr_jax.evaluation.suites import suite_of
from rlvr_jax.experiments.benchmarks import over_optimisation
from rlvr_jax.runs import Run
from rlvr_jax.sweeps import pictures
from tests.experiments.runs import run
from tests.sweeps import fake_worker

pytestmark = pytest.mark.usefixtures("no_curves", "one_device", "elsewhere", "offline")
FOLDER = Path(__file__).parents[1] / "colabs"
SMALL = {
    "00_quickstart": {"DIGITS": 2, "WARM_UP": 20, "STEPS": 3, "PROBLEMS": 4, "GROUP": 4},
    "01_write_a_verifier": {"STEPS": 2},
    "02_reward_hacking": {"SEEDS": 2, "WARM_UP": 100, "STEPS": 2},
    "03_three_overoptimisations": {"SEEDS": 2, "MODELS": 2, "RACE_STEPS": 2, "PROGRAM_STEPS": 2},
    "04_mixtures": {"SEEDS": 2, "STEPS": 2},
    "05_tools": {"SEEDS": 2, "STEPS": 30},
    "06_thinking": {"SEEDS": 2, "WARM_UP": 100, "STEPS": 2, "PLAN_STEPS": 2, "BUDGETS": (1, 7)},
    "07_inference_time_compute": {"WARM_UP": 100, "STEPS": 1, "PROBLEMS": 8, "SAMPLES": 8},
    "08_complaints_about_grpo": {"SEEDS": 2, "STEPS": 2},
    "09_long_contexts": {"SEEDS": 2, "STEPS": 2, "LENGTHS": (2, 5)},
    "10_tulu_in_miniature": {"SEEDS": 2, "SFT, DPO, RL": (100, 100, 2)},
    "11_a_pod_without_a_pod": {"CONFIG": "quickstart"},
}
TINY = {"num_layers": 1, "width": 16, "num_heads": 2, "num_kv_heads": 1, "head_dim": 8, "mlp_width": 16}


def read(name):
    """The cells of a notebook."""
    return json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]


def cells(name):
    """The code of each cell, with the knobs turned to a small size; the number of those up to the knobs.

    Policies that a cell itself makes are tiny, and a pool has one process.
    """
    texts, begun = [], 0
    for cell in read(name):
        text = "".join(cell["source"])
        if "knobs" in cell["metadata"].get("tags", ()):
            for knob, value in SMALL[name].items():
                text, count = re.subn(rf"^{knob} = .*$", f"{knob} = {value!r}", text, flags=re.M)
                assert count == 1
            begun = len(texts) + 1
        if cell["cell_type"] == "code":
            texts.append(text.replace("PolicyConfig(", f"PolicyConfig(**{TINY}, ").replace("Pool(2, ", "Pool(1, "))
    return texts, begun


def show(text, found):
    """Executes a cell with the names that there are: what it prints, and the lines of its picture if it shows one."""
    tree, value = ast.parse(text), None
    *first, last = tree.body
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        if isinstance(last, ast.Expr):
            tree.body = first
        exec(compile(tree, text, "exec"), found)
        if isinstance(last, ast.Expr):
            value = eval(compile(ast.Expression(last.value), text, "eval"), found)
    axes = value.figure.axes if isinstance(value, plot.Picture) else []
    return printed.getvalue(), [line.get_xydata().tobytes() for of_one in axes for line in of_one.lines]


def execute(name, again=True):
    """The names that the notebook defines, and all that it prints.

    With `again` its cells are executed again, from the last to the first, and must show the same.
    """
    found, (texts, begun) = {}, cells(name)
    shown = [show(text, found) for text in texts]
    if again:
        assert [show(text, found) for text in reversed(texts[begun:])] == shown[: begun - 1 : -1]
    return found, "".join(printed for printed, _ in shown)


def test_every_notebook_is_tested_says_what_it_costs_and_ends_with_what_to_try_next():
    assert sorted(SMALL) == sorted(path.stem for path in FOLDER.glob("*.ipynb"))
    for name in SMALL:
        first, *_, last = ("".join(cell["source"]) for cell in read(name))
        assert re.search(r"minutes? on two CPU cores", first.replace("\n", " ")), name
        assert "**What to try next.**" in last, name


def test_each_opens_with_a_cell_that_installs_what_is_missing_or_says_what_it_needs(monkeypatch):
    (opening,) = {cells(name)[0][0] for name in SMALL}
    commands = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: commands.append(command))
    show(opening, {})
    assert not commands
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(FileNotFoundError, match="REPOSITORY"):
        show(opening, {})
    monkeypatch.chdir(FOLDER)
    show(opening, {})
    assert [command[-1] for command in commands] == [".."]


@pytest.mark.parametrize("name", SMALL)
def test_a_cell_takes_every_name_from_one_cell_above(name):
    """So the order in which cells are executed again changes nothing, and what is missing has a place."""
    _, *texts = cells(name)[0]  # all but the one that installs
    tables = [symtable.symtable(text, name, "exec") for text in texts]
    bound = [{x.get_name() for x in table.get_symbols() if x.is_assigned() or x.is_imported()} for table in tables]
    for number, table in enumerate(tables):
        for taken in used(table) - bound[number] - {*dir(builtins)}:
            assert [i < number for i, names in enumerate(bound) if taken in names] == [True], (number, taken)


def used(table):
    """The names of the module that a cell and its functions read."""
    own = {
        x.get_name()
        for x in table.get_symbols()
        if x.is_referenced() and (table.get_type() == "module" or x.is_global())
    }
    return own.union(*map(used, table.get_children()))


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """An empty folder, and the tests' own settings of XLA, which the commands in the notebooks would add to."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(FOLDER.parent))
    return tmp_path


@pytest.fixture
def offline(monkeypatch):
    """Nothing outside of this machine can be reached."""
    connect = socket.socket.connect

    def refuse(self, address):
        if self.family != socket.AF_UNIX:
            raise OSError(errno.ENETUNREACH, f"no network, but {address} is asked for")
        return connect(self, address)

    def unknown(host, *_, **__):
        raise socket.gaierror(socket.EAI_NONAME, f"no network, but {host} is asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", unknown)


@pytest.fixture
def tiny(monkeypatch):
    """Policies of one narrow layer, verifiers in this process, evaluations in one batch of the shape of a step's."""
    less = {
        "evaluation.problems": 8,
        "evaluation.pass_problems": 1,
        "evaluation.pass_samples": 16,
        "verifier.workers": 0,
    }
    less |= {f"policy.{key}": value for key, value in TINY.items()}
    for name in ("sft", "train"):
        whole = getattr(rlvr_jax, name)
        changed = lambda config, workdir, changes, whole=whole: whole(config, workdir, less | changes)  # noqa: E731
        monkeypatch.setattr(rlvr_jax, name, changed)


def test_the_loop_that_is_written_out_learns_from_rewards():
    found, printed = execute("00_quickstart")
    assert len(found["curve"]) == len(found["lengths"]) == 3
    assert "gold: " in printed
    assert float(found["metrics"]["train/grad_norm"]) > 0
    assert found["Picture"](found["figure"])._repr_png_().startswith(b"\x89PNG")


@pytest.mark.usefixtures("tiny")
def test_a_verifier_of_ones_own_is_tried_attacked_and_trained_on_and_the_run_goes_on_after_an_interrupt(monkeypatch):
    found, (texts, _) = {}, cells("01_write_a_verifier")
    printed = "".join(show(text, found)[0] for text in texts[:-1])
    assert re.findall(r"(?m)^(\S+) +score 1", printed) == ["'9'", "honest"]
    assert printed.count("score 0") == 5 + 3
    for name, reason in (("loop", "time"), ("exit", "exit"), ("fill", "Memory"), ("other", "KeyError")):
        assert any(line.startswith(name) and reason in line for line in printed.splitlines()), name

    with monkeypatch.context() as patch:
        patch.setattr("rlvr_jax.training.loop.warn_unjudged", lambda *_: os.kill(os.getpid(), signal.SIGINT))
        with pytest.raises(PreemptedError):
            show(texts[-1], found)
    show(texts[-1], found)
    assert [row["step"] for row in found["run"].metrics] == [0, 1, 2]
    before = (found["run"].workdir / "metrics.jsonl").read_bytes()
    show(texts[-1], found)
    assert (found["run"].workdir / "metrics.jsonl").read_bytes() == before


@pytest.mark.usefixtures("tiny")
def test_samples_are_chosen_by_oracle_majority_and_chance():
    found, printed = execute("07_inference_time_compute")
    assert (found["before"]["step"], found["after"]["step"]) == (0, 1)
    assert [len(axes.lines) for axes in found["figure"].axes] == [3, 3]
    assert found["ks"] == [1, 2, 4, 8]
    assert printed.count("maj@8") == 2


@pytest.fixture
def pretend(monkeypatch):
    """Runs and their evaluations only pretend, and reports have no pictures; configs, suites and keys are checked."""
    monkeypatch.setattr("rlvr_jax.sweeps.workers._WORKER", "tests.sweeps.fake_worker")
    for name in ("curves_svg", "differences_svg"):
        monkeypatch.setattr(pictures, name, lambda *_: b"<svg/>")
    for name, kind in (("sft", "sft"), ("prefer", "preferences"), ("train", "rl")):
        monkeypatch.setattr(rlvr_jax, name, functools.partial(made, kind))
    monkeypatch.setattr(rlvr_jax, "sample", lambda run, output, **_: Path(output).write_text(f"{run.workdir}\n"))
    monkeypatch.setattr(rlvr_jax, "evaluate", evaluated)


def made(kind, config, workdir, changes=None):
    """A run with the config and metrics of a pretended one."""
    config, folder = rlvr_jax._config(config, changes), Path(workdir)
    check(config, 1, run=kind)
    config = to_dict(config)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    lines = [json.dumps(row) + "\n" for row in fake_worker.rows(config["seed"], steps=config["training"]["num_steps"])]
    (folder / "metrics.jsonl").write_text("".join(lines))
    return Run(folder)


def evaluated(run, *, suite=None, samples=16, **_):
    """Half of each task is right."""
    tasks = suite_of(suite, "").tasks if suite else json.loads((run.workdir / "config.json").read_text())["tasks"]
    told = [
        {"answer": str(i % 3), "score": float(i % 3 == 0), "error": None, "length": 5 + i % 3} for i in range(samples)
    ]
    row = {"task": "copy", "id": "copy/heldout/0", "problem": "C:hadgb=", "response": "hadgb", "samples": told}
    names = [f"task/{label}" for label in tasks] + ["eval"]
    return {f"{name}/{metric}": 0.5 for name in names for metric in ("greedy_accuracy", "pass@1")} | {"rows": [row]}


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
    assert len(found["mixed"].variants) == 2
    assert {name: list(of) for name, of in found["accuracy"].items()} == {"Sum": ["1", "7"], "First digit": ["1", "7"]}
    assert printed.count("length_difficulty") == 2


@pytest.mark.usefixtures("pretend")
def test_a_failing_tool_is_compared_with_its_rescues():
    found, printed = execute("05_tools")
    base, bonus, left_out, slow, works = found["found"].variants
    assert base.changes == {}
    assert [[*variant.changes] for variant in (bonus, left_out)] == [["reward"], [found["unjudged"]]]
    assert [variant.changes[found["reliability"]] for variant in (slow, works)] == [[[0, 0.3], [60, 1.0]], 1.0]
    assert printed.count("step 30: 0.50 0.50") == 2 * 5


@pytest.mark.usefixtures("pretend")
def test_compaction_is_compared_with_truncation_and_tried_on_longer_streams():
    found, printed = execute("09_long_contexts")
    assert [len(variant.final.values) for variant in found["found"].variants] == [2, 2]
    assert found["by_length"] == {"trained": {"2": (0.5, 0.5), "5": (0.5, 0.5)}} | {
        "warm start": {"2": (0.5, 0.5), "5": (0.5, 0.5)}
    }
    assert printed.count("B|1|---|") == 4
    drawn = plot.curves(found["found"], found["shown"], stored=rlvr_jax.stored("compaction")).figure.axes
    assert [len(axes.lines) for axes in drawn] == [4, 2]
    for name, message in (("kv_search", "none of which"), ("plans", "no panel"), ("compactio", "compaction")):
        with pytest.raises(ValueError, match=message):
            plot.curves(found["found"], found["shown"], stored=rlvr_jax.stored(name))


@pytest.mark.usefixtures("pretend")
def test_every_stage_starts_from_the_one_before():
    found, printed = execute("10_tulu_in_miniature")
    folder = Path("runs/tulu/seed=1")
    configs = {name: json.loads((folder / name / "config.json").read_text()) for name in ("dpo", "rlvr", "rm_rl")}
    assert {name: Path(config["init_from"]).name for name, config in configs.items()} == {
        "dpo": "sft",
        "rlvr": "dpo",
        "rm_rl": "sft",
    }
    assert [config["seed"] for config in configs.values()] == [1, 1, 1]
    assert (folder / "pairs_2000.jsonl").read_text() == f"{folder / 'sft'}\n"
    assert list(found["found"]) == ["SFT", "SFT, DPO", "SFT, DPO, RLVR", "SFT, RM, RL"]
    assert printed.count("all 0.50 0.50") == 4


@pytest.mark.usefixtures("pretend")
def test_three_proxies_part_from_what_is_wanted(monkeypatch):
    stored = over_optimisation.stored()

    def of_seed(folder, seed, sizes, *_):
        for end in ("", "_kl"):
            made("rl", "letters", folder / f"rl_{sizes[0]}{end}", {"training.num_steps": 2})
        return {kind: {name: of[seed] for name, of in stored[kind].items()} for kind in ("rl", "best_of_n")}

    monkeypatch.setattr(over_optimisation, "of_seed", of_seed)
    found, printed = execute("03_three_overoptimisations")
    assert [len(found[name].variants) for name in ("races", "programs")] == [2, 2]
    assert printed.count("..B.o....F") == 4
    assert printed.count("no alarm") == 3 * 2 * 2


@pytest.mark.usefixtures("pretend")
def test_domains_are_mixed_scaled_and_left_out():
    found, printed = execute("04_mixtures")
    assert len(found["found"].variants) == 3
    assert [len(runs) for runs in found["alone"].values()] == [2, 2, 2]
    weights = [[x.changes for x in found["trained"].variants]]
    assert weights == [[{}, {"tasks.sums.weight": 0.0}, {"tasks.letters.weight": 0.0}]]
    assert list(found["letters"]) == ["both", "letters only", "sums only"]
    assert printed.count("2C4F9RRLR") == 3


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
    _, printed = execute("11_a_pod_without_a_pod", again=False)
    assert printed.count("memory") >= 4
    assert "error" not in printed.lower()
