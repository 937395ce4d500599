"""Rows of an evaluation, written and read again, and the battles that are made of them."""

import json
from dataclasses import replace

import numpy as np
import pytest

from experiments import builtin
from rlvr_jax.config import TaskConfig
from rlvr_jax.errors import ConfigError
from rlvr_jax.evaluation import evaluate, paired_difference
from rlvr_jax.evaluation.evaluate import Judging
from rlvr_jax.evaluation.harness import columns, settings_of
from rlvr_jax.evaluation.results import in_common, read_results, rows_of
from rlvr_jax.reporting import jsonl, suite_page
from rlvr_jax.training.arena import fought
from rlvr_jax.verifiers.judge import JudgeConfig
from tests.evaluation.test_evaluate import EXAMPLES, KEY, RIGHT_GREEDY, MadeUp
from tests.judges.server import last_of, serving

VALUES = {
    "pass@1": {
        **{f"plain: plain/heldout/{i}": x for i, x in enumerate([0.0, 0.0, 1.0, 1.0, 1.0])},
        **{f"with a tool: with a tool/heldout/{i}": x for i, x in enumerate([1.0, 1.0, 1.0, 1.0])},
        "other: other/heldout/0": 0.0,
    },
    "maj@4": {"plain: plain/heldout/0": 1.0},
}
SETTINGS = columns(VALUES, [("plain", "with a tool")])


def test_settings_of_the_same_problems_are_columns_with_paired_differences():
    plain = TaskConfig(name="gsm8k", options={"a": 1})
    tool = TaskConfig(name="gsm8k", options={"a": 1}, environment="tools")
    tasks = {
        "gsm8k": TaskConfig(),
        "plain": plain,
        "with a tool": tool,
        "x": TaskConfig(name="gsm8k", options={"a": 2}),
    }
    assert settings_of(tasks) == [("plain", "with a tool")]
    ((metric, (first, second)),) = SETTINGS
    assert (metric, first.task, first.mean, first.difference) == ("pass@1", "plain", 0.5, None)
    assert (second.mean, second.difference) == (1.0, paired_difference([1.0] * 4, [0.0, 0.0, 1.0, 1.0]))
    assert settings_of(builtin.suite("tools").tasks) == [("gsm8k", "gsm8k-python")]
    assert len(settings_of(builtin.suite("thinking").tasks)) == 2


def liked(_, groups):
    """Every judge's score is 0.25 but for the first problem, which it can't judge."""
    found = []
    for i, group in enumerate(groups):
        (verdict,) = group.verdicts
        judged = verdict.error is None
        verdict = replace(verdict, parts={"j": 0.25} if judged else {}) if i else replace(verdict, error="judge j: no")
        found.append(replace(group, verdicts=(verdict,)))
    return found


@pytest.fixture(scope="module")
def found():
    judging = Judging(("j",), list, liked)
    return evaluate(MadeUp(), EXAMPLES, EXAMPLES[:4], 4, KEY, (1, 4), True, judging)


def write(path, rows):
    path.write_bytes(b"".join(jsonl.encode(row) for row in rows))
    return path


def test_scores_of_judges_are_means_over_what_they_could_judge(found):
    assert found.metrics["eval/judge/j"] == 0.25
    assert len(found.values["judge/j"]) == 4  # of 6: one that it fails on, and one that the verifier failed on
    assert found.metrics["eval/judge/j_unjudged"] == 1
    assert found.metrics["eval/greedy_accuracy"] == sum(RIGHT_GREEDY) / 6
    rows = rows_of(found)
    assert [row["scores"] for row in rows[:3]] == [{}, {}, {"j": 0.25}]
    assert [len(row["samples"]) for row in rows] == [4, 4, 4, 4, 0, 0]
    assert [row["length"] for row in rows] == [1, 2, 3, 4, 5, 6]


def test_results_are_read_by_workdir_or_file_and_what_is_wrong_is_named(found, tmp_path):
    rows = rows_of(found)
    write(tmp_path / "evaluation.jsonl", rows)
    write(tmp_path / "evaluation_small.jsonl", rows[1:])
    whole, small = read_results(str(tmp_path)), read_results(f"mine={tmp_path}", "small")
    assert (whole.name, len(whole.rows), small.name, len(small.rows)) == (tmp_path.name, 6, "mine", 5)
    assert read_results(f"{tmp_path}/evaluation_small.json").name == "evaluation_small"
    assert in_common([whole, small]) == [(row["task"], row["id"]) for row in rows[1:]]
    with pytest.raises(ConfigError, match=rf"two policies have the name '{tmp_path.name}'"):
        in_common([whole, whole])
    with pytest.raises(ConfigError, match=r"evaluation_unseen\.jsonl.*--suite=unseen"):
        read_results(str(tmp_path), "unseen")
    for bad in ('{"task": "x"}', json.dumps({**rows[0], "score": "1"})):
        (tmp_path / "bad.jsonl").write_text(f"{json.dumps(rows[0])}\n{bad}\n")
        with pytest.raises(ConfigError, match=r"bad\.jsonl, line 2"):
            read_results(str(tmp_path / "bad.jsonl"))
    other = write(tmp_path / "other.jsonl", [{**rows[0], "id": "another"}])
    with pytest.raises(ConfigError, match="no problem in common"):
        in_common([whole, read_results(str(other))])


def test_battles_are_decided_by_the_verifier_or_by_a_judge(found, tmp_path):
    rows = [{**row, "error": None} for row in rows_of(found)]
    better = [{**row, "score": 1.0, "response": "the better one", "length": 2 * row["length"]} for row in rows]
    better[0] = {**better[0], "error": "it died"}
    better[1] = rows[1]
    results = [read_results(str(write(tmp_path / f"{name}.jsonl", x))) for name, x in (("a", rows), ("b", better))]
    battles, left_out = fought(results, None)
    assert (battles.names, left_out, battles.problem.tolist()) == (("a", "b"), 1, [1, 2, 3, 4, 5])
    assert battles.outcome.tolist() == [0.5, *(0.5 if right else 0.0 for right in RIGHT_GREEDY[2:])]
    np.testing.assert_allclose(battles.style, [0.0, *[-1 / 3] * 4])

    def reply(body, _):
        first = last_of(body).split("Response B:")[0]
        return "Better: A" if "the better one" in first else "Better: B" if "2=" not in last_of(body) else "no idea"

    with serving(reply) as server:
        config = JudgeConfig(model="m", endpoint=server.url, retries=0)
        battles, left_out = fought(results, ("j", config, tmp_path))
        assert len(server.requests) == 2 * 5  # nothing is asked about equal responses
    assert left_out == 1
    assert dict(zip(battles.problem.tolist(), battles.outcome.tolist(), strict=True)) == {
        0: 0.0,
        1: 0.5,
        3: 0.0,
        4: 0.0,
        5: 0.0,
    }


def test_the_page_shows_numbers_differences_and_escaped_responses(found):
    rows = rows_of(found)
    rows[2]["response"] = "<script>alert(1)</script>\x1b[0m"
    result = found.metrics | {
        "problems": 6,
        "samples": 4,
        "tokens": found.tokens,
        "seconds": 1.5,
        "values": found.values,
    }
    difference = {"task": "all", "metric": "pass@1", "difference": 0.25, "low": 0.1, "high": 0.4, "p": 0.01}
    differences = [difference | {"word": "better", "problems": 6}]
    text = suite_page.page_of("small", "a policy", result, ("a", "b"), rows, differences, SETTINGS).decode()
    assert "<script>" not in text
    assert "\\x1b" in text
    assert text.count("<svg") == 4
    expected = ("with a tool", "+0.500", "+0.2500", "judge/j", "maj@4", "Expected calibration error", rows[5]["id"])
    assert [x for x in expected if x not in text] == []
