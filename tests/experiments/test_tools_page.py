"""The page about tools: its commands run as they stand there, with fewer steps; its tools and options exist."""

import json
import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from configs import base
from rlvr_jax.config import from_dict
from rlvr_jax.envs import make_env
from rlvr_jax.rollout.episode import LIMITED
from rlvr_jax.tools import FORMATS, TOOLS, job_of, make_tools, result_of
from rlvr_jax.training.setup import make_setup
from rlvr_jax.verifiers import verify
from rlvr_jax.verifiers.pool import Pool
from tests.experiments.calls import complete
from tests.experiments.runs import ROOT, TURNS, overrides
from tests.pages import Page

PAGE = (ROOT / "docs" / "tools.md").read_text()
SETTINGS, NOTES, OWN, ADDING, SUMS, SERVER, OF_SERVER = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
(COMMANDS,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)


def configured(*programs):
    config = base.get_config()
    base.set_tasks(config, gsm8k={})
    for program in programs:
        exec(program, {"config": config})
    return from_dict(config.to_dict())


def test_the_settings_of_the_page_make_an_environment():
    config = configured(SETTINGS)
    task = config.tasks["gsm8k"]
    env = make_env(task.environment, task.environment_options)
    assert {x["function"]["name"] for x in env.tools.schemas} == {"python", "calculator"}
    assert {name for name, _ in config.reward} - {"score"} <= set(env.parts)


def test_a_tool_of_ones_own_is_called(tmp_path, monkeypatch):
    (tmp_path / "notes.py").write_text(NOTES)
    (tmp_path / "notes.txt").write_text("a cat\na dog\nanother cat\n")
    monkeypatch.chdir(tmp_path)
    options = configured(SETTINGS, OWN).tasks["gsm8k"].environment_options["tools"]
    assert make_tools(["notes.py:grep"])[0].name == "grep"
    (tool,) = make_tools(options)
    assert (list(tool.parameters["properties"]), tool.tokens) == (["pattern", "most"], 200)
    with Pool(0) as pool:
        (future,) = pool.submit([job_of(tool, {"pattern": "cat", "most": 1})])
    assert (tool.name, result_of(future.result(), None).text) == ("lookup", "a cat")


def test_the_tool_of_a_task_of_ones_own_is_called_and_its_config_makes_a_run(tmp_path, monkeypatch):
    (tmp_path / "adding.py").write_text(ADDING)
    (tmp_path / "sums.jsonl").write_text("".join(f'{{"q": "1{x}+3", "a": "{x + 13}"}}\n' for x in range(10)))
    monkeypatch.chdir(tmp_path)
    exec(SUMS, made := {})
    setup = make_setup(from_dict(made["get_config"]().to_dict()))
    source = setup.sources["sums"]
    assert setup.tasks["sums"].example("train", 0).prompt.endswith("+3=")
    state, _ = source.env.start(source.task.example("train", 0))
    _, action = source.env.step(state, "<12+3>")
    with Pool(0) as pool:
        (future,) = pool.submit(action.calls)
    assert result_of(future.result(), None).text == "15"
    assert verify("adding.py:check", "<12+3>\n15", "15").score == 1


def test_the_tools_of_the_server_of_the_page_are_called(tmp_path, monkeypatch):
    (tmp_path / "notes_server.py").write_text(SERVER)
    (tmp_path / "notes.txt").write_text("a cat\na dog\nanother cat\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    calculator, lines = make_tools(configured(SETTINGS, OF_SERVER).tasks["gsm8k"].environment_options["tools"])
    assert (lines.name, lines.description) == ("lines", "Finds the lines of the notes that contain a word.")
    assert (list(lines.parameters["properties"]), calculator.name) == (["word"], "calculator")
    with Pool(0) as pool:
        (future,) = pool.submit([job_of(lines, {"word": "cat"})])
    assert result_of(future.result(), None).text == "a cat\nanother cat"


@pytest.mark.parametrize("names", [TOOLS, FORMATS, set(LIMITED) & {"calls", "tool_seconds"}])
def test_the_page_names_all_there_are(names):
    assert [name for name in names if f"`{name}`" not in PAGE] == []


def test_the_commands_of_the_page_train(tmp_path, commands):
    for command in COMMANDS.strip().splitlines():
        program, name, *flags = shlex.split(command)
        small = overrides(TURNS).split()
        assert program == "rlvr"
        complete([sys.executable, "-m", f"experiments.{name}", *flags, *small], tmp_path, commands)
    rows = [json.loads(line) for line in (tmp_path / "runs/calculator/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert all({"tool/calculator/episodes", "time/tool/calculator", "tool/malformed"} <= row.keys() for row in rows[1:])
    episodes = [x for x in Page((tmp_path / "runs/calculator/report.html").read_text()).samples if "spans" in x]
    assert episodes or rows[-1]["train/turns"] == 1
