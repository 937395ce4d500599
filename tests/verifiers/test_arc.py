import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_jax.verifiers.arc import MAX_SIZE, verify
from tests.data.read import rows

ONE = [[[0, 1, 2], [3, 4, 5]]]
TWO = [[[0, 1], [2, 3]], [[7]]]


def written(grids):
    return "\n\n".join("\n".join(" ".join(map(str, row)) for row in grid) for grid in grids)


@pytest.mark.parametrize(
    ("completion", "reference"),
    [
        ("0 1 2\n3 4 5", ONE),
        ("9 9\n9 9\n<answer>\n0 1 2\n3 4 5\n</answer>", ONE),
        ("<answer>0  1\t2 \r\n 3 4 5</answer>", ONE),
        ("The input is\n1 1\n1 1\nso the output is\n0 1 2\n3 4 5\nas I said.", ONE),
        ("0 1\n2 3\n\n7", TWO),
        ("<answer>\n\n0 1\n2 3\n\n\n7\n</answer>", TWO),
        ("First:\n0 1\n2 3\nSecond:\n7", TWO),
    ],
)
def test_the_right_grids_score_one(completion, reference):
    for score in ("share", "all"):
        verdict = verify(completion, reference, score=score)
        assert (verdict.score, verdict.parts) == (1.0, {"format": 1.0, "cells": 1.0})
    assert verdict.answer == written(reference)


@pytest.mark.parametrize(
    ("completion", "reference", "share", "cells"),
    [
        ("0 1 2\n3 4 4", ONE, 0, 5 / 6),
        ("0 1\n2 3\n4 5", ONE, 0, 0),
        ("0 1\n2 3\n\n8", TWO, 1 / 2, 4 / 5),
        ("0 1\n2 0\n\n7", TWO, 1 / 2, 4 / 5),
        ("7\n\n0 1\n2 3", TWO, 0, 0),
        ("0 1 10\n3 4 5", ONE, 0, 0),  # the first line is no row
        ("\u0660 1 2\n3 4 5", ONE, 0, 0),
    ],
)
def test_wrong_grids_score_by_share_or_nothing(completion, reference, share, cells):
    verdict = verify(completion, reference)
    assert verdict.score == share
    assert verdict.parts == {"format": 1.0, "cells": pytest.approx(cells)}
    assert verify(completion, reference, score="all").score == 0.0


@pytest.mark.parametrize(
    ("completion", "reference", "reason"),
    [
        ("", ONE, "0 grids, not 1"),
        ("0 1 2\n3 4", ONE, "differ in length"),
        ("012\n345", ONE, "0 grids, not 1"),
        ("[[0, 1, 2], [3, 4, 5]]", ONE, "0 grids, not 1"),
        ("<answer>0 1 2\n3 4 5\n\n0 1 2\n3 4 5</answer>", ONE, "2 grids, not 1"),
        ("<answer>It is\n0 1 2\n3 4 5</answer>", ONE, "other text"),
        ("<answer>0 1 2\nand\n3 4 5</answer>", ONE, "other text"),
        ("0 1\n2 3", TWO, "1 grids, not 2"),
        ("0 1\n2 3\n7", TWO, "1 grids, not 2"),
        ("0 " * MAX_SIZE + "0", ONE, "too many"),
        ("0\n" * (MAX_SIZE + 1), ONE, "too many"),
    ],
)
def test_what_is_not_the_grids_asked_for_has_no_format(completion, reference, reason):
    verdict = verify(completion, reference)
    assert (verdict.score, verdict.parts) == (0.0, {"format": 0.0, "cells": 0.0})
    assert reason in verdict.reason


@pytest.mark.parametrize(
    "reference", [None, [], "0 1", [[]], [[[]]], [[[0], [1, 2]]], [[[10]]], [[[True]]], [[["0"]]], [[0, 1]], {"a": 1}]
)
def test_a_reference_that_is_not_grids_is_refused(reference):
    with pytest.raises(ValueError, match="the reference of an ARC task is"):
        verify("0", reference)


def test_a_wrong_option_is_refused():
    with pytest.raises(ValueError, match="score must be 'share' or 'all'"):
        verify("0", ONE, score="some")


GRIDS = st.integers(1, 5).flatmap(
    lambda width: st.lists(st.lists(st.integers(0, 9), min_size=width, max_size=width), min_size=1, max_size=5)
)


@given(st.lists(GRIDS, min_size=1, max_size=3), st.data())
def test_written_grids_are_right_and_one_changed_cell_makes_one_grid_wrong(grids, data):
    assert verify(written(grids), grids).score == verify(f"<answer>{written(grids)}</answer>", grids).score == 1.0
    index = data.draw(st.integers(0, len(grids) - 1))
    changed = [[list(row) for row in grid] for grid in grids]
    changed[index][0][0] = (changed[index][0][0] + data.draw(st.integers(1, 9))) % 10
    verdict = verify(written(changed), grids)
    cells = sum(len(row) for grid in grids for row in grid)
    assert verdict.score == pytest.approx((len(grids) - 1) / len(grids))
    assert verdict.parts["cells"] == pytest.approx((cells - 1) / cells)


@given(st.text(st.sampled_from("01 \n\t<answer>/a")))
def test_any_text_gets_a_verdict_with_the_same_parts(text):
    verdict = verify(text, ONE)
    assert verdict.parts.keys() == {"format", "cells"}
    assert verdict.score <= verdict.parts["cells"] <= verdict.parts["format"]


def test_the_outputs_of_every_published_task_score_one(data_sets):
    tasks = rows(data_sets / "arc_agi1" / "tasks.jsonl")
    for task in tasks:
        outputs = [pair["output"] for pair in task["test"]]
        assert verify(f"<answer>\n{written(outputs)}\n</answer>", outputs).score == 1.0, task["task_id"]
        assert verify(written(outputs), outputs, score="all").score == 1.0, task["task_id"]
        wrong = verify(written([pair["input"] for pair in task["test"]]), outputs)
        assert wrong.score < 1.0, task["task_id"]
