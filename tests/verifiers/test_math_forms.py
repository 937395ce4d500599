r"""Ratios and times of day, lists with repetitions, and sets of real numbers, however they are written."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_jax.verifiers import verify

BOUNDED = settings(derandomize=True, deadline=None, max_examples=80)


def score(answer: str, gold: str) -> float:
    verdict = verify("math", rf"So it is $\boxed{{{answer}}}$.", gold)
    assert verdict.error is None
    return verdict.score


def both_ways(left: str, right: str) -> float:
    assert score(left, right) == score(right, left)
    return score(left, right)


SAME_TIME = [
    ("7:45", "7:45"),
    ("7:45", "07:45"),
    ("7:45", "7 : 45"),
    ("7:45", r"7{:}45"),
    ("7:45", r"7\!:\!45"),
    ("7:45", r"\text{7:45}"),
    ("7:45", "7:45:00"),
    ("7:45", r"7:45 \text{ a.m.}"),
    ("7:45 p.m.", "7:45"),
    ("7:45 p.m.", r"7\colon 45 \textbf{ PM}"),
    ("7:45 p.m.", r"\text{7:45 pm}"),
    ("7:45 p.m.", "19:45"),
    (r"8\text{ p.m.}", "8:00 PM"),
    ("8 AM", r"8\!:\!00\text{ a.m.}"),
    ("12:00", r"\text{noon}"),
    ("12:15 am", "0:15"),
    ("4 o'clock", "4:00"),
    ("t = 7:45", "7:45"),
]
OTHER_TIME = [
    ("8:00", "4:00"),
    ("3:15", "6:30"),
    ("2:10", "4:20"),
    ("1:30:30", "2:60:60"),
    ("7:45 p.m.", "7:45 a.m."),
    ("7:45", "19:45"),
    ("7:45 am", "19:45"),
    ("5:20", "5/20"),
    ("5:20", "0.25"),
    ("5:20", r"\frac{1}{4}"),
    ("5:20", "1:4"),
    ("12:00", "12"),
    ("0:30", "0:45"),
    (r"\text{noon}", r"\text{midnight}"),
    ("(1:30, 2)", "(2:60, 2)"),
    ("9:30 hours", "18:60 hours"),
]


@pytest.mark.parametrize(("left", "right"), SAME_TIME)
def test_a_time_of_day_equals_itself_in_other_forms(left, right):
    assert both_ways(left, right) == 1.0


@pytest.mark.parametrize(("gold", "answer"), OTHER_TIME)
def test_a_time_of_day_is_no_ratio(gold, answer):
    assert score(answer, gold) == 0.0


@BOUNDED
@given(st.integers(0, 24), st.integers(0, 59), st.integers(0, 24), st.integers(0, 59))
def test_different_times_are_different(hour, minute, other_hour, other_minute):
    left, right = f"{hour}:{minute:02d}", f"{other_hour}:{other_minute:02d}"
    assert both_ways(left, right) == float((hour, minute) == (other_hour, other_minute))
    assert score(left, left) == 1.0


RATIOS = [
    ("3:5", "60:100"),
    ("3:5", r"\frac{3}{5}"),
    ("3:5", "0.6"),
    ("3:5", "3/5"),
    ("3 : 5", r"\text{3:5}"),
    ("30:25", "6:5"),
    ("1:2:5", "2:4:10"),
    (r"1:\sqrt{3}", r"\sqrt{3}:3"),
    ("a:b", "2a:2b"),
    (r"\frac{1}{2}:\frac{1}{3}", "3:2"),
    (r"3\text{ cm}:5\text{ cm}", "3:5"),
]
OTHER_RATIOS = [
    ("3:5", "5:3"),
    ("3:5", r"\frac{5}{3}"),
    ("3:5", "3"),
    ("3:5", "3,5"),
    ("3:5", "(3,5)"),
    ("1:2:5", "1:2:6"),
    ("1:2:5", "1:2"),
    ("0:3", "0:7"),
    ("4:0", "9:0"),
    ("0:3", "0"),
    ("1:0:2", "2:0:4"),
    (r"(1-1):3", "0:5"),
    ("0:0", "1:2"),
]


@pytest.mark.parametrize(("left", "right"), RATIOS)
def test_ratios_are_equal_by_their_quotients(left, right):
    assert both_ways(left, right) == 1.0


def test_the_gold_answer_says_whether_numbers_that_may_be_a_time_are_one():
    assert score("6:10", "3:5") == 1.0
    assert score("3:5", "6:10") == 0.0
    assert score("6:10", "3:4") == 0.0
    assert score("1:00", "1:2") == 0.0
    assert score("6:10 am", "3:5") == 0.0


@pytest.mark.parametrize(("left", "right"), OTHER_RATIOS)
def test_other_ratios_and_those_with_a_zero_are_different(left, right):
    assert both_ways(left, right) == 0.0


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        ("3,3,5", "3,5,3", 1.0),
        ("3,3,5", "3,5", 0.0),
        ("3,3,5", "3,5,5", 0.0),
        ("3,3,5", r"x = 3, x = 5", 0.0),
        (r"0.5, \frac{1}{2}, 1", r"1, \frac{2}{4}, 0.5", 1.0),
        (r"\{3,3,5\}", r"\{5,3\}", 1.0),
        ("(1,2),(1,2),(3,4)", "(3,4),(1,2)", 1.0),
        ("(1,2),(3,4)", "(1;2),(3;4)", 1.0),
        ("(1.5,2)", "(1,5;2)", 1.0),
        ("(1,5,2)", "(1,5;2)", 0.0),
        ("((1,2),(3,4))", "((1;2);(3;4))", 1.0),
        ("[1,2)", "[1;2)", 1.0),
    ],
)
def test_lists_and_their_separators(left, right, equal):
    assert both_ways(left, right) == equal


SAME_SET = [
    (r"(-3,1)\cup(1,8)", r"(-3,8)\setminus\{1\}"),
    (r"(-3,1)\cup(1,8)", r"(-3,8) \backslash \{1\}"),
    (r"(-3,1)\cup(1,8)", r"(-3,8)-\{1\}"),
    (r"(-\infty,2)\cup(2,\infty)", r"\mathbb{R}\setminus\{2\}"),
    (r"(-\infty,2)\cup(2,\infty)", r"\mathbb{R}-\{2\}"),
    (r"(-\infty,2)\cup(2,\infty)", r"x \neq 2"),
    (r"(-\infty,2)\cup(2,\infty)", r"\{x : x \neq 2\}"),
    (r"(2,\infty)", r"\{x \mid x > 2\}"),
    (r"(2,5)", r"\{t\in\mathbb{R} \mid 2<t<5\}"),
    (r"[0,4]", r"[0,1]\cup[1,4]"),
    (r"[0,4]", r"[0,4)\cup\{4\}"),
    (r"[0,4)", r"[0,9]\cap(-1,4)"),
    (r"(0,1)\cup(1,\infty)", r"x>0, x\ne 1"),
    (r"(0,\sqrt{3})\cup(\sqrt{3},2)", r"(0,2)\setminus\{3/\sqrt{3}\}"),
    (r"\{1,2\}", r"\{1\}\cup\{2\}"),
    (r"\emptyset", r"(0,1)\cap(2,3)"),
    (r"(1,4)", "]1,4["),
    (r"(1,4]", "]1;4]"),
    (r"(-\infty,1)\cup[3,\infty)", r"]-\infty;1[\cup[3;+\infty["),
    (r"(a,b)\cup(c,d)", r"(c,d)\cup(a,b)"),
    (r"A\cap B", r"B\cap A"),
]
OTHER_SET = [
    (r"(-3,1)\cup(1,8)", "(-3,8)"),
    (r"(-3,1)\cup(1,8)", r"(-3,8)\setminus\{2\}"),
    (r"(-3,1)\cup(1,8)", r"[-3,8)\setminus\{1\}"),
    (r"(0,4)", r"(0,1)\cup(1,4)"),
    (r"(5,3)", r"(5,4)\cup(4,3)"),
    (r"\mathbb{R}\setminus\{2\}", r"\mathbb{R}"),
    (r"\mathbb{R}\setminus\{2\}", r"\{2\}"),
    (r"A\setminus B", r"B\setminus A"),
    (r"(-\infty,3],[1,\infty)", "[1,3]"),
    ("]1,4[", "[1,4]"),
    (r"\{x : x > 2\}", "2"),
]


@pytest.mark.parametrize(("left", "right"), SAME_SET)
def test_sets_of_numbers_are_equal_by_their_elements(left, right):
    assert both_ways(left, right) == 1.0


@pytest.mark.parametrize(("left", "right"), OTHER_SET)
def test_other_sets_of_numbers_are_different(left, right):
    assert both_ways(left, right) == 0.0


def interval(ends: tuple[int, int, str, str]) -> str:
    low, high, left, right = ends
    return f"{left}{low},{high}{right}"


INTERVALS = st.tuples(st.integers(-4, 4), st.integers(1, 4), st.sampled_from("(["), st.sampled_from(")]")).map(
    lambda t: (t[0], t[0] + t[1], t[2], t[3])
)


def inside(ends: tuple[int, int, str, str], point: float) -> bool:
    low, high, left, right = ends
    return low < point < high or (point == low and left == "[") or (point == high and right == "]")


@BOUNDED
@given(st.lists(INTERVALS, min_size=2, max_size=4), st.lists(INTERVALS, min_size=2, max_size=4), st.integers(-4, 8))
def test_unions_are_equal_if_they_have_the_same_elements(left, right, hole):
    points = [half / 2 for half in range(-10, 20)]
    elements = [[any(inside(part, point) for part in side) for point in points] for side in (left, right)]
    texts = [r"\cup".join(map(interval, side)) for side in (left, right)]
    assert both_ways(*texts) == float(elements[0] == elements[1])
    assert both_ways(texts[0], r"\cup".join(map(interval, reversed(left)))) == 1.0
    contains = any(inside(part, hole) for part in left)
    assert both_ways(texts[0], rf"{texts[0]}\setminus\{{{hole}\}}") == float(not contains)


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        # one number with a comma, where the gold answer has none
        ("5600", "(5,600)", 1.0),
        ("5600000", "(5,600,000)", 1.0),
        ("-5600", "(-5,600)", 1.0),
        ("(5,600)", "(5,600)", 1.0),
        ("(5,600)", "5600", 0.0),
        ("5.6", "(5,600)", 0.0),
        ("3.85", "3,85", 1.0),
        ("-0.125", "-0,125", 1.0),
        (r"\frac{77}{20}", "3,85", 1.0),
        ("3.85", r"3,85\text{ cm}", 1.0),
        ("3.85", "3{,}85", 1.0),
        ("3{,}85", "3.85", 1.0),
        ("3.5, 2", "3{,}5; 2", 1.0),
        ("3,85", "3.85", 0.0),
        ("1,2", "1.2", 0.0),
        ("3.856", "3,856", 0.0),
        ("3", "3,4", 0.0),
        ("385", "3,85", 0.0),
        (r"1 \text{ and } 2", "2,1", 1.0),
        ("x=3.85", "3,85", 1.0),
        # ordinals
        ("7", r"7^{\text{th}}", 1.0),
        ("31", r"31^{st}", 1.0),
        ("22", r"22\text{nd}", 1.0),
        ("103rd", "103", 1.0),
        ("7th", r"7^\text{th}", 1.0),
        ("7", r"8^{\text{th}}", 0.0),
        ("7", r"n^{\text{th}}", 0.0),
        # bounds, alternatives, and letters side by side
        ("9", r"9 \text{ or more}", 0.0),
        ("9", r"9 \text{ or fewer}", 0.0),
        ("9", r"9\text{ and above}", 0.0),
        ("9", r"\text{at least } 9", 0.0),
        ("9", r"9 \text{ at most}", 0.0),
        ("9", r"\text{more than }9", 0.0),
        ("9", r"{}\ge 9", 0.0),
        ("C", r"\text{C} \text{D}", 0.0),
        ("C", r"\text{C}\ \text{A}", 0.0),
        ("C", r"\text{C}, \text{D}", 0.0),
        (r"\text{C}", r"\textbf{C}\,\textbf{D}", 0.0),
        ("9", r"9\text{ red } \text{pens}", 1.0),
        # a reference that says that it is one
        ("answer is 4200", "4200", 1.0),
        ("The final answer is: $4200$", "4,200", 1.0),
        ("Answer: C", "C", 1.0),
        ("answer is 4200", "42", 0.0),
    ],
)
def test_what_is_written_around_and_in_a_number(gold, answer, right):
    assert score(answer, gold) == right
