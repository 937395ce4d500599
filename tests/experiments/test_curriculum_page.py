"""The page about curricula: its commands train, and the report shows the levels."""

import re

from rlvr_jax.reporting import jsonl
from tests.experiments.runs import ROOT, SHORT, run_script
from tests.pages import Page

PAGE = (ROOT / "docs" / "curriculum.md").read_text()
COMMANDS, SPO = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
SMALL = (
    "sft.num_steps=20 sft.save_every=20 sft.batch_size=4 training.num_steps=2 evaluation.problems=2 "
    "evaluation.pass_problems=0 rollout.prompts=4 rollout.group_size=2 policy.num_layers=1 verifier.workers=0"
)


def test_the_commands_of_the_page_train_and_the_report_shows_the_levels(tmp_path):
    small = " ".join(f"--config.{key}" for key in SMALL.split())
    run_script(COMMANDS.replace("--config=curriculum_modsum", f"--config=curriculum_modsum {small}"), tmp_path)
    _, first, second = jsonl.read(tmp_path / "runs" / "sums" / "metrics.jsonl")
    shares = {name: value for name, value in first.items() if name.startswith("curriculum/share/")}
    assert sum(shares.values()) == 1
    assert set(shares) <= {f"curriculum/share/n{n}" for n in range(1, 7)}
    assert {name for name in second if name.startswith("curriculum/")} >= {*shares, "curriculum/left_out"}
    assert "Problems by level" in Page((tmp_path / "runs" / "sums" / "report.html").read_text()).panels


def test_the_command_of_spo_tracks_problems(tmp_path):
    script = SPO.replace("num_steps=60", SHORT).replace("prompts=256", "prompts=8")
    run_script(script.replace("range(1000), 400", "range(1000), 40"), tmp_path)
    rows = jsonl.read(tmp_path / "runs" / "spo" / "metrics.jsonl")
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert rows[2]["curriculum/left_out"] == 0
    assert rows[2]["task/digits/greedy_accuracy"] <= 1
