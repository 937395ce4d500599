"""The page about curricula: its commands train, and the report shows the levels."""

import re

from rlvr_jax.reporting import jsonl
from tests.experiments.calls import run_script
from tests.experiments.runs import ROOT, SHORT, SMALL, overrides
from tests.pages import Page

PAGE = (ROOT / "docs" / "curriculum.md").read_text()
COMMANDS, SPO = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)


def test_the_commands_of_the_page_train_and_the_report_shows_the_levels(tmp_path, commands):
    small = overrides(SMALL | {"rollout.prompts": 8})  # in two minibatches
    run_script(
        COMMANDS.replace("--config=curriculum_modsum", f"--config=curriculum_modsum {small}"), tmp_path, commands
    )
    _, first, second = jsonl.read(tmp_path / "runs" / "sums" / "metrics.jsonl")
    shares = {name: value for name, value in first.items() if name.startswith("curriculum/share/")}
    assert sum(shares.values()) == 1
    assert set(shares) <= {f"curriculum/share/n{n}" for n in range(1, 7)}
    assert {name for name in second if name.startswith("curriculum/")} >= {*shares, "curriculum/left_out"}
    assert "Problems by level" in Page((tmp_path / "runs" / "sums" / "report.html").read_text()).panels


def test_the_command_of_spo_tracks_problems(tmp_path, commands):
    script = SPO.replace("num_steps=60", SHORT).replace("prompts=256", "prompts=8")
    run_script(script.replace("range(1000), 400", "range(1000), 40"), tmp_path, commands)
    rows = jsonl.read(tmp_path / "runs" / "spo" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert rows[2]["curriculum/left_out"] == 0
    assert rows[2]["task/digits/greedy_accuracy"] <= 1
