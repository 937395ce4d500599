import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_jax.verifiers.modsum import verify


@pytest.mark.parametrize(("completion", "scratchpad"), [("#1", 0.0), ("44261#1", 1.0), ("0#1", 1.0)])
def test_the_right_digit_scores_one_with_or_without_scratchpad(completion, scratchpad):
    verdict = verify(completion, "1")
    assert (verdict.score, verdict.answer) == (1.0, "1")
    assert verdict.parts == {"format": 1.0, "scratchpad": scratchpad}


def test_a_wrong_digit_scores_zero_and_is_named():
    verdict = verify("44261#2", "1")
    assert (verdict.score, verdict.answer, verdict.reason) == (0.0, "2", "2 is not 1")
    assert verdict.parts == {"format": 1.0, "scratchpad": 1.0}


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "1",
        "#",
        "1#",
        "#11",
        "#1 ",
        " #1",
        "#1\n",
        "4 2#1",
        "##1",
        "#1#1",
        "-#1",
        "#-1",
        "\u0661#1",
        "#\u0661",
        "#²",
    ],
)
def test_any_other_form_scores_zero(completion):
    verdict = verify(completion, "1")
    assert (verdict.score, verdict.answer) == (0.0, None)
    assert verdict.parts == {"format": 0.0, "scratchpad": 0.0}


@given(st.text(st.sampled_from("0123456789#=\n ")), st.sampled_from("0123456789"))
def test_score_is_one_exactly_for_digits_then_the_mark_then_the_answer(completion, reference):
    expected = completion.endswith("#" + reference) and all(c in "0123456789" for c in completion[:-2])
    assert verify(completion, reference).score == float(expected)


@pytest.mark.parametrize("reference", [1, "", "11", "a", None, "\u0661"])
def test_a_reference_that_is_not_a_digit_is_refused(reference):
    with pytest.raises(ValueError, match="one digit as text"):
        verify("#1", reference)
