"""Metrics of tools, counted by hand."""

from collections import defaultdict

import numpy as np
import pytest

from rlvr_jax.envs import CallRecord
from rlvr_jax.rollout import kept
from rlvr_jax.rollout.episode import Episode, Sequence, Span
from rlvr_jax.tasks import Example
from rlvr_jax.text.tokenizers import byte_tokenizer
from rlvr_jax.training.record import doubling, sample_rows
from rlvr_jax.training.tool_metrics import describe_tools, warn_failing_tools
from rlvr_jax.verifiers.verdict import Verdict
from tests.episodes import grouped

EXAMPLE = Example("t/train/0", "?", "1", "t")
SPANS = {"p": "prompt", "s": "policy", "e": "env"}


def episode(form, *calls):
    """An episode of spans of these authors and lengths, `p1 s3 e6`, with calls."""
    spans = tuple(Span(SPANS[x[0]], np.full(int(x[1:]), 50, np.int32)) for x in form.split())
    turns = ("?",) * form.count("s")
    return Episode(EXAMPLE, 0, (Sequence(spans),), turns, "stop", calls=tuple(calls))


def call(turn, tool, outcome="ok", seconds=0.5, characters=4, executed=True):
    return CallRecord(turn, tool, outcome, seconds, characters, executed)


def test_calls_are_counted_by_tool_and_outcome():
    episodes = [
        episode("p1 s3 e6 s2", call(0, "python")),
        # Two calls share the tokens of an observation by their length; the last turn hit a limit.
        episode("p1 s3 e9 s2 e4 s2", call(0, "python", characters=2), call(0, "calculator", "raised"),
                call(1, "", "unclosed", executed=False), call(2, "calculator", "timed_out", 9.0, 0)),
        episode("p1 s3"),
        episode("p1 s3"),
    ]  # fmt: skip
    groups = grouped([Verdict(1.0)] * 4, episodes, 2)
    found = describe_tools(groups, ("calculator", "python", "search"))
    assert found == pytest.approx({
        "tool/python/calls": 0.5, "tool/python/episodes": 0.5, "tool/python/success": 1.0,
        "tool/python/tokens": (6 + 9 * 2 / 6) / 2, "time/tool/python": 1.0,
        "tool/calculator/calls": 0.5, "tool/calculator/episodes": 0.25, "tool/calculator/success": 0.0,
        "tool/calculator/tokens": 9 * 4 / 6 / 2, "time/tool/calculator": 9.5,
        "tool/search/calls": 0.0, "tool/search/episodes": 0.0, "time/tool/search": 0.0,
        "tool/malformed": 0.25,
        "tool/outcome/raised": 1, "tool/outcome/timed_out": 1, "tool/outcome/unclosed": 1,
    })  # fmt: skip
    assert describe_tools(groups, ()) == {}


def test_rows_of_samples_and_checkpoints_hold_the_calls():
    groups = grouped([Verdict(1.0)], [episode("p1 s3 e6 s2", call(0, "python"))], 1)
    (row,) = sample_rows(1, "train", groups, byte_tokenizer())
    assert [(x["author"], x["tokens"], x["trained"]) for x in row["spans"]] == [
        ("policy", 3, True), ("env", 6, False), ("policy", 2, True),
    ]  # fmt: skip
    assert row["calls"] == [{"turn": 0, "tool": "python", "outcome": "ok", "characters": 4}]
    (again,) = kept.from_json(kept.to_json(groups), [EXAMPLE])
    assert again.episodes[0].calls == groups[0].episodes[0].calls
    (plain,) = sample_rows(1, "train", grouped([Verdict(1.0)], [episode("p1 s3")], 1), byte_tokenizer())
    assert (plain["spans"], plain["calls"], plain["terms"]) == (None, [], None)


def test_a_tool_of_which_hardly_any_call_works_is_warned_of_once_with_its_first_error(caplog):
    failed = CallRecord(0, "add", "raised", error="ValueError: no\x1b (add.py, line 8)")
    made_to_fail, working = call(0, "shown", "unreliable"), call(0, "python")
    episodes = [episode("p1 s3", *[failed] * 2, made_to_fail, working), episode("p1 s3", working)]
    groups, is_news = grouped([Verdict(1.0)] * 2, episodes, 2), defaultdict(doubling)
    for step in (3, 4):
        warn_failing_tools(step, groups, is_news)
    (said,) = [record.getMessage() for record in caplog.records]
    assert "step 3: 2 of 2 calls of the tool add failed; the first: ValueError: no  (add.py, line 8)" in said
    (row, _) = sample_rows(1, "train", groups, byte_tokenizer())
    assert [x.get("error") for x in row["calls"]] == [failed.error, failed.error, None, None]
