"""The page about extensions: its programs and commands run as they stand there, with fewer steps."""

import json
import re
import shlex
import sys

import numpy as np
import pytest

from tests.experiments.calls import complete
from tests.experiments.runs import ROOT, SHORT, overrides

PAGE = (ROOT / "docs" / "extending.md").read_text()
FILES = ("guess.py", "calculator.py", "best.py", "reinforce.py")
PROGRAMS = dict(zip(FILES, re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL), strict=True))
MORE = {"rollout.prompts": 16, "rollout.group_size": 8}  # samples, of which some call the tool
COMMANDS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)


def test_the_examples_are_short():
    assert {file for file in FILES if len(PROGRAMS[file].strip().splitlines()) > 32} == set()


@pytest.mark.parametrize("workdir", ["run", "tool", "best", "loss"])
def test_the_commands_of_the_page_train(workdir, after_quickstart, commands):
    for file, program in PROGRAMS.items():
        (after_quickstart / file).write_text(program)
    more = overrides(MORE if workdir in ("run", "tool") else {})
    (command,) = (command for command in COMMANDS if f"--workdir={workdir} " in command)
    program, name, *flags = shlex.split(command.replace("num_steps=60", f"{SHORT} {more}").replace("\\\n", ""))
    assert program == "rlvr"
    complete([sys.executable, "-m", f"experiments.{name}", *flags], after_quickstart, commands)
    rows = [json.loads(line) for line in (after_quickstart / workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert all(row["verify/errors"] == 0 for row in rows[1:])
    assert all((row["train/turns"] > 1) == (workdir in ("run", "tool")) for row in rows[1:])
    assert (after_quickstart / workdir / "report.html").stat().st_size > 10_000


def test_the_advantage_of_the_page_is_that_of_the_best_of_each_group():
    program = {}
    exec(PROGRAMS["best.py"], program)
    rewards, groups = np.array([1, 0, 0.5, 2, 2, 3, 3], np.float32), np.array([0, 0, 0, 1, 1, 2, 2])
    judged = np.array([True, True, False, True, True, True, False])
    assert program["best_of_group"](rewards, groups, judged).tolist() == [1, -1, 0, 0, 0, 0, 0]
