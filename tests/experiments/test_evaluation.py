"""The page about evaluation: its commands, its suite, and comparisons problem by problem."""

import json
import re

import pytest

from tests.experiments.runs import ROOT, command, complete, error_of, run

PAGE = (ROOT / "docs" / "evaluation.md").read_text()
SIZE = {"training__num_steps": 1, "evaluation__every": 1, "tasks__modsum__options__digits": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With the workdir of a run, which is that of the page."""
    folder = tmp_path_factory.mktemp("evaluation")
    complete(command("train", folder / "runs" / "quickstart", **SIZE))
    return folder


def evaluate(folder, line):
    words = line.split()
    assert words[:2] == ["rlvr", "evaluate"]
    small = [re.sub(r"--problems=.*", "--problems=8", re.sub(r"--samples=.*", "--samples=4", x)) for x in words[2:]]
    return run([*command("evaluate", None)[:3], *small], cwd=folder)


def test_the_commands_of_the_page_compare_two_policies_on_the_same_problems(folder):
    lines = re.search(r"```bash\n(.*?)```", PAGE, re.DOTALL)[1].splitlines()
    outcomes = [evaluate(folder, line) for line in lines]
    assert [status for status, _, _ in outcomes] == [0, 0, 0], outcomes
    compared = outcomes[2][1].split("problem by problem\n")[1].splitlines()
    assert [line.split()[:2] for line in compared][:2] == [["all", "greedy_accuracy"], ["all", "pass@1"]]
    assert {re.search(r"(\d+) problems: ", line)[1] for line in compared} == {"7"}  # all that are held out
    start, end = (json.loads((folder / x).read_text()) for x in ("start.json", "runs/quickstart/evaluation.json"))
    difference = end["eval/pass@1"] - start["eval/pass@1"]
    assert float(compared[1].split()[2]) == pytest.approx(difference, abs=1e-4)
    assert start["values"]["pass@1"].keys() == end["values"]["pass@1"].keys()


def test_the_suite_of_the_page_is_evaluated_and_a_second_time_with_a_warning(folder):
    suite = json.loads(re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)[1])
    suite["tasks"]["short"]["options"]["digits"], suite["tasks"]["long"]["options"]["digits"] = 1, 2
    suite["changes"]["rollout.max_response_length"] = 8
    (folder / "mine.json").write_text(json.dumps(suite))
    line = "rlvr evaluate --workdir=runs/quickstart --suite=./mine.json --problems=8 --samples=4"
    (first, stdout, stderr), (second, again, warning) = evaluate(folder, line), evaluate(folder, line)
    assert (first, second) == (0, 0), stderr
    assert {"short", "long"} <= {row.split()[0] for row in stdout.splitlines()}
    assert stdout.splitlines()[:-1] == again.splitlines()[:-1]
    assert ("unseen" in stderr, "./mine.json" in warning, "unseen" in warning) == (False, True, True)
    assert (folder / "runs" / "quickstart" / "evaluation_mine.json").exists()


def test_what_is_no_evaluation_is_named_before_anything_is_sampled(folder):
    for line, message in (
        ("rlvr evaluate --workdir=runs/quickstart --against=runs/nothing", "--against"),
        ("rlvr evaluate --workdir=runs/quickstart --against=runs/quickstart/metrics.jsonl", "--against"),
        ("rlvr evaluate --workdir=runs/quickstart --suite=smal", "small"),
    ):
        assert message in error_of(evaluate(folder, line), 2)
