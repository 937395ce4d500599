"""The decontamination command: reports, and what it says to bad input."""

import gzip
import json
import re
import sys

import pytest

from experiments.decontaminate import markdown
from rlvr_jax.tasks.decontamination import Match
from tests.experiments.runs import error_of, run

PEN = "A pen costs 3 dollars and a pencil costs 1 dollar. How many dollars do 4 pens and 2 pencils cost together?"


def decontaminate(*arguments) -> list[str]:
    return [sys.executable, "-m", "experiments.decontaminate", *map(str, arguments)]


@pytest.fixture
def problems(tmp_path):
    """The arguments for a training file of four problems and a held-out file of two."""
    train = [{"question": text} for text in ("What is 2 + 2?", PEN, PEN.replace("4", "7"), "Name a prime number.")]
    heldout = [{"text": PEN.upper()}, {"text": "Who wrote Faust?"}]
    with gzip.open(tmp_path / "train.jsonl.gz", "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in train)
    (tmp_path / "heldout.jsonl").write_text("".join(json.dumps(row) + "\n" for row in heldout))
    return f"--train={tmp_path}/train.jsonl.gz:question", f"--heldout={tmp_path}/heldout.jsonl:text"


def test_files_are_compared_and_every_match_is_a_line_of_the_report(problems, tmp_path):
    report = tmp_path / "matches.jsonl"
    status, stdout, stderr = run(decontaminate(*problems, f"--report={report}"))
    assert (status, stderr) == (0, "")
    assert re.search(
        r"train\.jsonl\.gz:question \(4\) \| .*heldout\.jsonl:text \(2\) \| 1 \| 0 \| 0 \| 0 \|\n$", stdout
    )
    rows = [json.loads(line) for line in report.read_text().splitlines()]
    assert [(row["train_id"], row["heldout_id"], row["kind"], row["overlap"]) for row in rows] == [
        ("train.jsonl.gz:2", "heldout.jsonl:1", "exact", 1.0),
        ("train.jsonl.gz:3", "heldout.jsonl:1", "numbers", 1.0),
    ]
    assert all(row["shared"].startswith("A PEN COSTS 3 DOLLARS") for row in rows)


def test_the_tasks_of_a_config_are_held_against_each_other():
    status, stdout, stderr = run(decontaminate("--config=configs/quickstart.py", "--examples=300"))
    assert (status, stderr) == (0, "")
    assert "| modsum:train (300) | modsum:heldout (300) | 0 | 0 | 0 | 0 |" in stdout


def test_markdown_counts_each_held_out_prompt_under_its_strongest_match_and_says_what_it_leaves_out():
    matches = [
        Match("t1", "h1", "ngrams", 0.5, "a | b \\frac"),
        Match("t2", "h1", "ngrams", 0.75, "x"),
        Match("t1", "h2", "exact", 1.0, "y"),
        Match("t3", "h2", "numbers", 1.0, "y"),
    ]
    text = markdown([("T", "H", 10, 5, matches), ("U", "H", 7, 5, [])], show=3)
    assert "| T (10) | H (5) | 1 | 0 | 1 | 0 |" in text
    assert "| U (7) | H (5) | 0 | 0 | 0 | 0 |" in text
    assert re.findall(r"\| (h\d) \| (t\d) \|", text) == [("h2", "t1"), ("h2", "t3"), ("h1", "t2")]
    assert "1 more matches" in text
    assert "| a \\| b \\\\frac |" in markdown([("T", "H", 10, 5, matches)], show=4)


def test_bad_input_is_one_line(problems, tmp_path):
    (tmp_path / "torn.jsonl").write_text('{"text": "a"}\n{"text": ')
    train, heldout = problems
    wrong = {
        "give --config, or both": [train, "--heldout="],
        "name the field": [train, f"--heldout={tmp_path}/heldout.jsonl"],
        r"heldout.jsonl, line 1: not a JSON record with 'question'": [train, heldout.replace("text", "question")],
        r"torn.jsonl, line 2: not a JSON record": [train, f"--heldout={tmp_path}/torn.jsonl:text"],
        "absent.jsonl: there is no such file": [train, f"--heldout={tmp_path}/absent.jsonl:text"],
        "unknown task 'maths'": [train, "--heldout=maths"],
        "the splits of a task are train and heldout": [train, "--heldout=modsum:test"],
        "must end in .md or .jsonl": [train, heldout, f"--report={tmp_path}/report.txt"],
        "--overlap must be": [train, heldout, f"--report={tmp_path}/report.md", "--overlap=0"],
    }
    for message, arguments in wrong.items():
        outcome = run(decontaminate(*arguments))
        assert re.search(message, error_of(outcome, 2)), outcome
