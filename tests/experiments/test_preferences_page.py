"""The page about chats, preferences and reward models: its commands run as they stand there, with a smaller policy."""

import json
import re
import shlex
import sys

import pytest

from rlvr_jax.learner.preferences import LOSSES
from tests.experiments.calls import complete
from tests.experiments.runs import ROOT, SMALL, metrics

PAGE = (ROOT / "docs" / "preferences.md").read_text()
(PYTHON,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
COMMANDS, PAIRS = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)
(START,) = re.findall(r"^    (rlvr prefer .*)$", (ROOT / "docs" / "start.md").read_text(), re.MULTILINE)


def test_every_loss_is_on_the_page():
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) == list(LOSSES)


def test_the_commands_lead_from_files_to_a_learned_reward(tmp_path, monkeypatch, commands):
    monkeypatch.chdir(tmp_path)
    exec(PYTHON.replace("range(2000)", "range(40)"), {})
    for line in [*COMMANDS.splitlines(), START.replace("runs/rm", "runs/start"), *PAIRS.splitlines()]:
        _, name, *arguments = shlex.split(line)
        overrides = [f"--config.{key}={value}" for key, value in SMALL.items()] if name != "export" else []
        arguments = [re.sub("--problems=.*", "--problems=8", x) for x in arguments]
        complete([sys.executable, "-m", f"experiments.{name}", *arguments, *overrides], tmp_path, commands)
    rows = {run: metrics(tmp_path / "runs" / run) for run in ("sft", "dpo", "rm", "rl")}
    assert {"data/mine/rows", "data/mine/left_out"} <= rows["sft"][0].keys()
    assert "eval/preference_accuracy" in rows["dpo"][-1]
    assert {"preferences/chosen_reward", "eval/calibration_error"} <= rows["rm"][-1].keys()
    assert "eval/calibration_error" in metrics(tmp_path / "runs" / "start")[-1]
    made = [json.loads(line) for line in (tmp_path / "made.jsonl").read_text().splitlines()]
    assert {policy for pair in made for policy in pair["policies"].values()} <= {"sft", "dpo"}
    assert all(pair["margin"] == pytest.approx(pair["scores"]["chosen"] - pair["scores"]["rejected"]) for pair in made)
    assert "preferences/loss" in metrics(tmp_path / "runs" / "again")[-1]
    last = rows["rl"][-1]
    assert last["train/reward"] == pytest.approx(last["train/reward_rm"])
    assert 0 <= last["train/score"] <= 1
    told = json.loads((tmp_path / "exports" / "rm" / "config.json").read_text())
    assert told["architectures"] == ["LlamaForSequenceClassification"]
    for name in ("heldout.json", "calibration.png"):
        assert (tmp_path / "runs" / "rm" / name).exists()
