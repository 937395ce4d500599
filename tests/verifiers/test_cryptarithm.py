import json
import re
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_jax.verifiers.cryptarithm import MAX_LENGTH, assignment, verify
from tests.data.read import rows

REFERENCE = {"equation": "SEND + MORE = MONEY"}
SOLUTION = {"S": 9, "E": 5, "N": 6, "D": 7, "M": 1, "O": 0, "R": 8, "Y": 2}
WRITTEN = ", ".join(f"{letter}={digit}" for letter, digit in SOLUTION.items())


@pytest.mark.parametrize(
    "completion",
    [
        WRITTEN,
        WRITTEN.replace(", ", "\n").replace("=", ": "),
        WRITTEN.replace(", Y", " and Y") + ".",
        json.dumps(SOLUTION),
        f"It is <answer>\n{WRITTEN}\n</answer>",
        f"<answer>S=1</answer> no: <answer>{WRITTEN}</answer>",
    ],
)
def test_an_assignment_that_makes_the_sum_hold_scores_one_however_it_is_written(completion):
    verdict = verify(completion, REFERENCE)
    assert (verdict.score, verdict.parts) == (1.0, {"format": 1.0, "letters": 1.0})
    assert verdict.answer == "D=7, E=5, M=1, N=6, O=0, R=8, S=9, Y=2"


@pytest.mark.parametrize(
    ("completion", "parts", "reason"),
    [
        (WRITTEN.replace("D=7", "D=3"), (1, 1), "SEND [+] MORE = MONEY does not hold"),
        (WRITTEN.replace("D=7", "D=5"), (1, 0), "two letters have the same digit"),
        (WRITTEN.replace(", Y=2", ""), (1, 0), "not an assignment of exactly the letters D, E, M, N, O, R, S, Y"),
        (WRITTEN + ", X=3", (1, 0), "not an assignment of exactly the letters"),
        (WRITTEN + ", Y=3", (0, 0), "Y is assigned twice"),
        (WRITTEN + ", Y=2", (0, 0), "Y is assigned twice"),
        (WRITTEN.replace("Y=2", "Y=22"), (0, 0), "not an assignment such as .* at ', Y=22'"),
        (WRITTEN.replace("Y=2", "Y=2 or Y=3"), (0, 0), "not an assignment"),
        ("It is " + WRITTEN, (0, 0), "not an assignment"),
        ("", (0, 0), "empty"),
        ("{}", (0, 0), "empty"),
        ("A=1 " * MAX_LENGTH, (0, 0), "characters, more than"),
        ("9567 + 1085 = 10652", (0, 0), "not an assignment"),
    ],
)
def test_anything_else_scores_zero_with_the_reason(completion, parts, reason):
    verdict = verify(completion, REFERENCE)
    assert verdict.score == 0.0
    assert (verdict.parts["format"], verdict.parts["letters"]) == parts
    assert re.search(reason, verdict.reason)


def test_a_word_may_start_with_zero_only_if_that_is_allowed():
    reference = {"equation": "AB + C = DE"}
    completion = "A=0, B=7, C=5, D=1, E=2"
    assert verify(completion, reference).reason == "a word starts with 0"
    assert verify(completion, reference).parts["letters"] == 0.0
    assert verify(completion, reference, leading_zeros=True).score == 1.0


@pytest.mark.parametrize(
    "reference",
    [
        None,
        {},
        {"equation": 1},
        {"equation": "A + B"},
        {"equation": "A - B = C"},
        {"equation": "a + b = c"},
        "A + B = C",
    ],
)
def test_a_reference_of_another_shape_is_refused(reference):
    with pytest.raises(ValueError, match="the reference of a cryptarithm is"):
        verify("A=1", reference)


@given(
    st.dictionaries(st.sampled_from("ABCDEFGHIJ"), st.integers(0, 9), min_size=1),
    st.sampled_from([", ", "\n", "; ", " "]),
)
def test_any_assignment_is_read_back(digits, separator):
    assert assignment(separator.join(f"{letter} = {digit}" for letter, digit in digits.items())) == digits
    assert assignment(json.dumps(digits)) == digits


@given(st.text(st.sampled_from("AB=:12, \n{}\"'and.")))
def test_any_text_is_an_assignment_or_refused(text):
    try:
        digits = assignment(text)
    except ValueError:
        return
    assert digits
    assert sum(map(str.isdigit, text)) == len(digits)


@pytest.fixture(scope="module")
def problems(data_sets):
    return rows(data_sets / "cryptarithm" / "train.jsonl")


@pytest.mark.whole
def test_the_published_counts(problems):
    # the others have solutions with leading zeros only
    assert (len(problems), sum(bool(problem["example_solution"]) for problem in problems)) == (1601, 1509)


def test_every_known_solution_of_tinyzeros_equations_scores_one_and_of_a_changed_equation_none(problems):
    solved = [problem for problem in problems if problem["example_solution"]]
    assert 0 < len(solved) < len(problems)
    for problem in solved:
        completion = json.dumps(problem["example_solution"])
        assert verify(completion, problem).score == 1.0, problem
        other = problem["equation"].replace(" = ", " + ") + " = " + problem["words"][0]
        assert verify(completion, {"equation": other}).score == 0.0, problem


def test_as_many_assignments_score_as_an_exhaustive_search_has_found(problems):
    small = [problem for problem in problems if len(set("".join(problem["words"]))) == 3][:8]
    assert len(small) == 8
    for problem in small:
        letters = sorted(set("".join(problem["words"])))
        completions = [json.dumps(dict(zip(letters, digits, strict=True))) for digits in permutations(range(10), 3)]
        without, allowed = (
            sum(verify(completion, problem, leading_zeros=zeros).score for completion in completions)
            for zeros in (False, True)
        )
        assert without == problem["num_solutions_no_leading_zero"], problem
        assert allowed == problem["num_solutions_leading_zero_ok"], problem
