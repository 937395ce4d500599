"""The page about tasks of one's own: its commands run as they stand there, with fewer steps."""

import json
import re

from tests.experiments.calls import run_script
from tests.experiments.runs import ROOT, SHORT


def test_the_commands_of_the_page_lead_from_a_file_to_a_curve(tmp_path, commands):
    page = (ROOT / "docs" / "own_task.md").read_text()
    script, sweep = re.findall(r"```bash\n(.*?)```", page, re.DOTALL)
    assert len(script.strip().splitlines()) <= 15
    short = SHORT.replace("workers=0", "workers=1")  # it has a verifier of its own
    script = script.replace("num_steps=60", short).replace("sample(range(1000), 400)", "sample(range(1000), 60)")
    run_script(f"{script}{sweep.rstrip()} --dry_run > listed", tmp_path, commands)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert {"train/reward_digits", "task/mine/accuracy", "verify/errors"} <= rows[1].keys()
    assert {row["verify/errors"] for row in rows[1:]} == {0}
    assert (tmp_path / "run" / "report.html").stat().st_size > 10_000
    assert rows[2]["task/mine/greedy_accuracy"] <= 1
    assert len(re.findall(r"seed=\d", (tmp_path / "listed").read_text())) == 6
