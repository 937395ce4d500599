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
        ("2 407 sheets", "2407"),
        ("$26$", "26"),
        (r"\(26\)", "26"),
        (r"\$1{,}026", "1026"),
        (r"26\text{ cm}", "26"),
        ("(26)", "26"),
        ("(\u20ac26)", "26"),
        ("-\u00a326.10", "-26.1"),
        ("26\u20ac", "26"),
        ("26 times", "26"),
        ("5 weeks ago", "5"),
        ("7 jars of fig jam.", "7"),
        ("31 wet dogs", "31"),
        ("4 pills a night", "4"),
        ("$9.25 on paint for the shed.", "9.25"),
        ("26 more stamps than Ann", "26"),
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
        *(
            "**26**",
            "**26 eggs**",
            "*26*",
            r"$\boxed{26}$",
            r"\boxed{26} eggs",
            "26;",
            "26,",
            "= 26",
            ": 26",
            "**$26**",
        ),
        *("26<|eot_id|> 7", "26</s>", "The answer is 26.", "Answer: 26 books", "**Answer:** 26"),
    ],
)
def test_emphasis_and_end_marks_around_the_number_do_not_count(text):
    assert verify(f"It is 3.\n#### {text}", "26").score == 1.0
    assert verify(f"It is 3.\n#### {text}", "7").score == 0.0


@pytest.mark.parametrize(
    "text",
    [
        *("", "3 or 4", "3, 4", "3 and 4", "3 or four", "3 4", "3-4", "3/4", "3 = 3", "(3, 4)", "x = 3", "three"),
        *("3 million", "3k", "3 half", "3 tenths", "3 squared", "1e5", "3^2", "3!", "3 times x", "3 times four"),
        *("3 pi", "3 xy", "3 sin t", "3 dozen eggs", "3 plus tax", "3 boxes or so", "3 at least", "3 is too few"),
        *(
            "3 eggs, 4 hens",
            "3 eggs and a half",
            "3 minus one",
            "3 less than the total",
            "3 isn't right",
            "3 or**",
            "3/x",
        ),
        *(
            "not 3",
            "maybe 3",
            "Or 3",
            "The answer is not 3.",
            "The answer is 3 or 4.",
            r"\boxed{3} or \boxed{4}",
            "= 3 = 3",
        ),
        *(
            "(3) or (4)",
            "**3** or **4**",
            "3 unless it rains",
            "3 if so",
            "3 perhaps",
            "3 degrees below",
            "3 3",
            "3 \u6216",
        ),
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
    assert verify("#### 3 #### 4", "4").score == 1.0
    assert verify("#### 3 #### 4", "3").score == 0.0
    assert verify("#### 3\nThe end, 5.", "3").score == 1.0
    assert verify("#### 3\r\n5", "3").score == 1.0
    assert verify("####\n3", "3").score == 0.0
    assert verify("####3", "3").score == 1.0
    assert verify("**#### 3**", "3").score == 1.0


@pytest.mark.parametrize(
    "heading",
    [
        *("Check", "Verification", "", "###", "Why it is so:", "Step 4: add 5", "2. Add them up", "(b) The other way"),
        *("**Conclusion**", "Using 9 instead", "1) Start", "2 Checking the sum", "A second look"),
    ],
)
def test_a_heading_is_no_answer(heading):
    assert verify(f"So it is 3.\n#### 3\n#### {heading}\nAnd 1 + 2 = 3.", "3").score == 1.0
    for other in ("4", "2", "5", "9", "1"):
        verdict = verify(f"#### {heading}\nThis gives {other}, and it is right.", other)
        assert (verdict.score, verdict.parts) == (0.0, {"format": 0.0})


@pytest.mark.parametrize("last", ["4", "3 or 4", "four", "maybe 3", "Or rather 3?", "not 3", "4, I think", "3, 4 or 5"])
def test_a_later_line_with_a_number_replaces_an_earlier_one_even_if_it_hedges(last):
    assert verify(f"#### 3\n#### {last}", "3").score == 0.0


def test_without_the_mark_there_is_no_answer():
    for completion in ("The answer is 3, ### 3", "3", r"\boxed{3}", "<think>#### 3</think> Done.", "<think>#### 3"):
        verdict = verify(completion, "3")
        assert (verdict.score, verdict.parts) == (0.0, {"format": 0.0})
        assert "no ####" in verdict.reason


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


@pytest.mark.parametrize(
    ("line", "reference", "unit", "value"),
    [
        ("45%", "45", 1.0, 0.0),
        ("45 percent of them", "45", 1.0, 0.0),
        ("45%", "0.45", 1.0, 1.0),
        ("0.45", "45%", 1.0, 1.0),
        ("45", "45%", 1.0, 0.0),
        ("0.45%", "0.45", 0.0, 0.0),
        ("450%", "45", 0.0, 0.0),
    ],
)
def test_percent_signs_follow_the_convention(line, reference, unit, value):
    assert verify(f"#### {line}", reference).score == unit
    assert verify(f"#### {line}", reference, percent="value").score == value
    with pytest.raises(ValueError, match="percent is"):
        verify(f"#### {line}", reference, percent="ratio")
