r"""Digits that stand apart are not one number; digits in groups of three are; decimal commas."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_jax.verifiers import verify

BOUNDED = settings(derandomize=True, deadline=None, max_examples=100)
NARROW = [" ", r"\,", r"\;", r"\:", r"\ ", "~", "\u2009", "\u00a0", "\u202f", r" \, ", "$ $", r"\thinspace "]
WIDE = ["\n", r"\quad ", r"\qquad ", "\t", "\r\n", "\u2003", r" \quad ", "$\n$", r"\ \quad\ "]
OTHER = [r"\text{ }", r"\mbox{}", r"\phantom{0}", r"\hspace{1em}", "{}", r"\\", r"\newline ", "|", "'"]

FORMS = ["{}", "-{}", "{}x", "x^{{{}}}", "({},8)", r"\{{8,{}\}}", r"\sqrt{{{}}}", "{} cm", "x={}", r"\frac{{{}}}{{7}}"]
FORMS += [r"{}\%", "0.{}", "[0,{}]", r"x<{}", r"\text{{{}}}", r"\text{{room {}}}", "8:{}", r"8\cdot{}", "{}_9"]


def score(answer: str, gold: str) -> float:
    verdict = verify("math", rf"So it is $\boxed{{{answer}}}$.", gold)
    assert verdict.error is None
    return verdict.score


@BOUNDED
@given(
    st.integers(1, 9999),
    st.integers(0, 99),
    st.sampled_from(NARROW + WIDE + OTHER),
    st.sampled_from(FORMS),
)
def test_two_numbers_side_by_side_are_not_the_number_of_all_their_digits(first, second, gap, form):
    joined, apart = form.format(f"{first}{second}"), form.format(f"{first}{gap}{second}")
    assert score(apart, joined) == 0.0
    assert score(joined, joined) == 1.0


@pytest.mark.parametrize(
    ("answer", "gold"),
    [
        ("{4}{7}", "47"),
        ("{4}{7}", "28"),
        ("4{7}", "28"),
        ("4 7", "28"),
        ("3 .5", "3.5"),
        ("3. 5", "3.5"),
        ("6 3/4", "63/4"),
        (r"6\frac{3}{4}", r"\frac{63}{4}"),
        ("6 13/4", "613/4"),
        ("6 13/4", r"\frac{37}{4}"),
        ("45 67", "4567"),
        ("4 5678", "45678"),
        ("4\n567", "4567"),
        (r"4\quad 567", "4567"),
        ("0 123", "123"),
        (r"\sum_{k=1}^{1 2} k!", r"\sum_{k=1}^{12} k!"),
        (r"\text{page -3}", r"\text{page 3}"),
        (r"\text{factor 1.5}", r"\text{factor 15}"),
        (r"\text{rooms 1 and 2}", r"\text{rooms 12}"),
    ],
)
def test_digits_apart_are_neither_joined_nor_multiplied(answer, gold):
    assert score(answer, gold) == 0.0
    assert score(gold, answer) == 0.0


@BOUNDED
@given(st.integers(1000, 10**12), st.sampled_from([*NARROW[:9], ",", "{,}", r",\!"]), st.sampled_from(["", "-"]))
def test_digits_in_groups_of_three_are_one_number(value, separator, sign):
    grouped = sign + f"{value:,}".replace(",", separator)
    assert score(grouped, f"{sign}{value}") == 1.0
    assert score(f"{sign}{value}", grouped) == 1.0
    assert score(grouped, f"{sign}{value + 1}") == 0.0


def test_a_wide_gap_separates_the_values_of_a_list():
    assert score("14\n15", "14, 15") == 1.0
    assert score(r"14 \quad 15", "15, 14") == 1.0
    assert score(r"14 \quad 15", "14") == 0.0


@pytest.mark.parametrize(
    ("answer", "gold"), [("6 3/4", "6.75"), (r"6 \, \tfrac34", r"\frac{27}{4}"), ("-6 3/4", "-6.75")]
)
def test_a_whole_number_and_a_fraction_are_a_mixed_number(answer, gold):
    assert score(answer, gold) == 1.0
