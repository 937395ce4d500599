"""The names of metrics: those of the page."""

import re

from rlvr_jax.reporting.names import NAMES, is_known, nearest
from tests.experiments.runs import ROOT


def test_the_names_are_those_of_the_page():
    page = (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8").split("## samples.jsonl")[0]
    cells = re.findall(r"^\| (`[^|]*) \|", page, re.MULTILINE)
    names = [name for cell in cells for name in re.findall(r"`([^`]+)`", cell) if "/" in name]
    assert sorted(re.sub(r"<\w+>", "*", name) for name in names) == sorted(NAMES)


def test_misspelt_names_are_unknown_and_have_neighbours():
    assert is_known("train/reward_format/repetition(n=4)")
    assert not is_known("train/acuracy")
    assert not is_known("trian/reward")
    assert nearest("train/acuracy")[0] == "train/accuracy"
