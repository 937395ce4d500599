"""Pairs of scored responses: which are made, which are left out, and the table of sources."""

import json

import pytest

from rlvr_jax.evaluation.pairs import Asked, Response, binarised
from rlvr_jax.tasks.conversations import read_preferences


def asked(id, *scores, leaks=False):
    numbers = [None if score is None else float(score) for score in scores]
    responses = tuple(Response("ab"[i % 2], f"text {i}", score, 10 + i) for i, score in enumerate(numbers))
    return Asked(id, f"problem {id}", responses, leaks)


def test_the_best_is_paired_with_the_worst_and_ties_are_counted(tmp_path):
    empty = Asked("e", "problem e", (Response("a", " ", 1.0), Response("b", "x", 0.0)))
    problems = [
        asked("1", 0.2, 0.9, 0.5),
        asked("2", 0.5, 0.5),
        asked("3", None, 1.0),
        asked("4", 1, 0, leaks=True),
        empty,
    ]
    made = binarised(problems)
    (row,) = made.rows
    assert (row["chosen"], row["rejected"], row["margin"]) == ("text 1", "text 0", pytest.approx(0.7))
    assert row["policies"] == {"chosen": "b", "rejected": "a"}
    assert made.left_out == {"unjudged": 1, "empty responses": 1, "too few responses": 2, "ties": 1, "leaked": 1}
    assert made.sources["a"]["responses"] == 5
    assert made.sources["a"]["unjudged"] == 1
    assert made.sources["a"]["score"] == pytest.approx((0.2 + 0.5 + 0.5 + 1.0) / 4)
    assert (made.sources["b"]["chosen"], made.sources["b"]["rejected"]) == (1, 0)
    file = tmp_path / "pairs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in made.rows))
    (read,), left_out = read_preferences(str(file))
    assert (read.prompt, read.completions, read.margin, left_out.count) == ("problem 1", ("text 1", "text 0"), 0.7, 0)


def test_a_random_other_one_is_worse_and_the_choice_among_equals_is_by_seed():
    problems = [asked(str(i), 1.0, 1.0, 0.5, 0.0) for i in range(40)]
    worst, other = binarised(problems), binarised(problems, "random")
    assert {row["rejected"] for row in worst.rows} == {"text 3"}
    assert {row["rejected"] for row in other.rows} == {"text 2", "text 3"}
    assert {row["chosen"] for row in worst.rows} == {"text 0", "text 1"}
    assert binarised(problems, "random").rows == other.rows
    assert binarised(problems, "random", seed=1).rows != other.rows
