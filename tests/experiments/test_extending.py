"""The page about extensions: its programs and commands run as they stand there, with fewer steps."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.experiments.runs import ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text()
GUESS, BEST = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)


def test_the_examples_are_short():
    assert len(GUESS.strip().splitlines()) <= 30
    assert len(BEST.strip().splitlines()) <= 15


@pytest.mark.parametrize(("number", "workdir"), list(enumerate(["run", "best"])))
def test_the_commands_of_the_page_train(number, workdir, tmp_path):
    (tmp_path / "guess.py").write_text(GUESS)
    (tmp_path / "best.py").write_text(BEST)
    assert len(COMMANDS) == 2
    script = COMMANDS[number].replace("num_steps=60", "num_steps=2")
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "XLA_FLAGS": ""}
    ended = subprocess.run(["bash", "-ec", script], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    rows = [json.loads(line) for line in (tmp_path / workdir / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert all(row["verify/errors"] == 0 for row in rows[1:])
    assert number == 1 or all(1 < row["train/turns"] <= 2 for row in rows[1:])
    assert (tmp_path / workdir / "report.html").stat().st_size > 10_000


def test_the_advantage_of_the_page_is_that_of_the_best_of_each_group():
    import numpy as np

    program = {}
    exec(BEST, program)
    rewards, groups = np.array([1, 0, 0.5, 2, 2, 3, 3], np.float32), np.array([0, 0, 0, 1, 1, 2, 2])
    judged = np.array([True, True, False, True, True, True, False])
    assert program["best_of_group"](rewards, groups, judged).tolist() == [1, -1, 0, 0, 0, 0, 0]
