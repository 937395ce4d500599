from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_jax.verifiers.number import MAX_DIGITS, canonical_number, verify
from tests.data.read import rows


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("72", "72"),
        (" 1,234 ", "1234"),
        ("1,234,567.50", "1234567.5"),
        ("$18", "18"),
        ("$ 18.00", "18"),
        ("-5.50", "-5.5"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("\u22125", "-5"),
        ("+5", "5"),
        ("42.", "42"),
        (".5", "0.5"),
        ("007", "7"),
        ("-0.0", "0"),
        ("50%", "50"),
        ("18 dollars.", "18"),
        ("60 miles per hour", "60"),
        ("60 miles/hour", "60"),
        ("9" * MAX_DIGITS, "9" * MAX_DIGITS),
    ],
)
def test_the_ways_to_write_a_number_have_one_canonical_form(text, canonical):
    assert canonical_number(text) == canonical
    verdict = verify(f"It is 3.\n#### {text}", canonical)
    assert (verdict.score, verdict.answer, verdict.parts) == (1.0, canonical, {"format": 1.0})


@pytest.mark.parametrize(
    "text",
    [
        *("", "3 or 4", "3, 4", "3 and 4", "3 or four", "3 4", "3-4", "3/4", "3 = 3", "(3)", "x = 3", "three"),
        *("3 million", "3k", "3 half", "3 tenths", "3 squared", "1e5", "3^2", "3 words too many here"),
        *("1,23", "1234,567", ",123", "--3", "-$-3", "3.0.0", "3..", ".", "-", "$", "nan", "inf"),
        *("3 \uff14", "\uff13", "\u0663", "3\u202e4"),
    ],
)
def test_a_line_that_is_not_one_number_scores_zero(text):
    verdict = verify(f"#### {text}", "3")
    assert (verdict.score, verdict.answer, verdict.parts) == (0.0, None, {"format": 0.0})
    assert verdict.reason


def test_only_the_line_of_the_last_mark_counts():
    assert verify("#### 3\n#### 4", "4").score == 1.0
    assert verify("#### 3\n#### 4", "3").score == 0.0
    assert verify("#### 3\nThe end, 5.", "3").score == 1.0
    assert verify("#### 3\r\n5", "3").score == 1.0
    assert verify("####\n3", "3").score == 0.0
    assert verify("####3", "3").score == 1.0
    assert verify("#### 3\n####", "3").score == 0.0


def test_without_the_mark_there_is_no_answer():
    verdict = verify("The answer is 3, ### 3", "3")
    assert (verdict.score, verdict.reason) == (0.0, "no #### in the completion")


def test_a_number_near_by_is_wrong():
    for text in ("3.0000004", "2.9999999999999999999999999999999999999", "-3", "33", "30", "0.3"):
        verdict = verify(f"#### {text}", "3")
        assert (verdict.score, verdict.parts) == (0.0, {"format": 1.0})


def test_a_number_beyond_the_bounds_is_refused():
    assert "digits" in verify("#### " + "1" * (MAX_DIGITS + 1), "3").reason
    assert "longer" in verify("#### 3" + " " * 400 + "3", "3").reason
    assert verify("#### " + " " * 10_000 + "33", "3").score == 0.0  # the line is read to its end


@pytest.mark.parametrize("reference", [3, None, "", "three", "3 or 4"])
def test_a_reference_that_is_not_a_number_is_refused(reference):
    with pytest.raises(ValueError, match="number as text"):
        verify("#### 3", reference)


@given(st.decimals(allow_nan=False, allow_infinity=False, places=4, min_value=-(10**9), max_value=10**9), st.data())
def test_two_numbers_match_exactly_when_their_values_are_equal(value, data):
    other = data.draw(
        st.sampled_from([value, -value, value + 1, value / 10, round(value, 1), value + data.draw(NUDGE)])
    )
    expected = Fraction(value) == Fraction(other)
    for text in (f"{other:f}", f"{other:,f}", f"${other:,f}"):
        assert verify(f"#### {text}", f"{value:f}").score == float(expected)


NUDGE = st.sampled_from([0]) | st.decimals(places=4, min_value=-1, max_value=1)


@given(st.text(st.sampled_from("#0123456789,.$-+% orx\n")))
def test_a_score_of_one_needs_the_answer_alone_on_the_last_marked_line(completion):
    if verify(completion, "12").score == 1.0:
        line = completion.split("####")[-1].split("\n")[0]
        digits = line.replace(",", "").replace(" ", "")
        assert "12" in digits
        assert "or" not in line
        assert digits.strip("+$.%0rox") == "12"


@pytest.mark.parametrize("split", ["train", "test"])
def test_every_gsm8k_reference_solution_scores_one_and_the_next_number_zero(data_sets, split):
    for problem in rows(data_sets / "gsm8k" / f"{split}.jsonl"):
        gold = problem["answer"].split("####")[1].strip()
        assert verify(problem["answer"], gold).score == 1.0, problem
        assert verify(problem["answer"], str(int(gold.replace(",", "")) + 1)).score == 0.0, problem


def test_published_model_solutions_are_judged_as_their_labels_say(data_sets):
    solutions = rows(data_sets / "verifier_outputs" / "gsm8k_openai_solutions.jsonl")
    assert {solution["expected"] for solution in solutions} == {0, 1}
    for solution in solutions:
        completion = solution["response"].replace("\nA: ", "\n#### ")
        assert verify(completion, solution["gold"]).score == solution["expected"], solution
