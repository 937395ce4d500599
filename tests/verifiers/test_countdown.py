import operator
import re
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_jax.verifiers.countdown import MAX_DEPTH, MAX_DIGITS, MAX_LENGTH, evaluate, verify
from tests.data.read import rows

REFERENCE = {"numbers": [44, 19, 35], "target": 98}
OPERATORS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}


@pytest.mark.parametrize(
    "completion",
    [
        "44+19+35",
        " 44 + (19 + 35)\n",
        "((44))+19+35",
        "35--44+19",
        "44+19+35=98",
        "44+19+35 = 98 ",
        "44+19 = 63 <answer>35 + 44 + 19</answer>",
        "<answer>1+1</answer> no: <answer>44+19+35 = 98</answer> there",
        "<answer><answer>44+19+35</answer>",
    ],
)
def test_an_expression_that_reaches_the_target_with_the_numbers_scores_one(completion):
    verdict = verify(completion, REFERENCE)
    assert verdict.score == 1.0
    assert verdict.parts == {"format": 1.0, "uses_numbers": 1.0}


@pytest.mark.parametrize(
    ("completion", "parts", "reason"),
    [
        ("44+19-35", (1.0, 1.0), "28 is not 98"),
        ("98", (1.0, 0.0), "exactly once each"),
        ("44+19+35+44-44", (1.0, 0.0), "exactly once each"),
        ("4419+35", (1.0, 0.0), "exactly once each"),
        ("44/(19-19)+35", (1.0, 0.0), "division by zero"),
        ("44+19+35=99", (0.0, 0.0), "expected an operator|unexpected '='"),
        ("44+19+35=98=98", (0.0, 0.0), "unexpected '='"),
        ("44+19+35=", (0.0, 0.0), "unexpected '='"),
        ("98=44+19+35", (0.0, 0.0), "unexpected '='"),
        ("44+19+35.0", (0.0, 0.0), "unexpected '.'"),
        ("44+19+35 is it", (0.0, 0.0), "unexpected 'i'"),
        ("44 19 35", (0.0, 0.0), "expected an operator, found 19"),
        ("44(19+35)", (0.0, 0.0), r"expected an operator, found \("),
        ("44**19", (0.0, 0.0), r"expected a number, found \*"),
        ("44//19", (0.0, 0.0), "expected a number, found /"),
        ("+44+19+35", (0.0, 0.0), r"expected a number, found \+"),
        ("(44+19+35", (0.0, 0.0), r"expected '\)', found the end"),
        ("44+19+35)", (0.0, 0.0), r"expected an operator, found \)"),
        ("44+19+", (0.0, 0.0), "expected a number, found the end"),
        ("", (0.0, 0.0), "empty"),
        ("<answer></answer>", (0.0, 0.0), "empty"),
        ("44+19+35 <answer>44</answer>", (1.0, 0.0), "exactly once each"),
        ("<answer>44+19+35", (0.0, 0.0), "unexpected '<'"),
        ("44+19+35</answer>", (0.0, 0.0), "unexpected '<'"),
        ("\uff14\uff14+19+35", (0.0, 0.0), "unexpected"),
    ],
)
def test_anything_else_scores_zero_with_the_reason(completion, parts, reason):
    verdict = verify(completion, REFERENCE)
    assert verdict.score == 0.0
    assert (verdict.parts["format"], verdict.parts["uses_numbers"]) == parts
    assert re.search(reason, verdict.reason)


def test_the_same_number_given_twice_must_be_used_twice():
    reference = {"numbers": [3, 3, 2], "target": 8}
    assert verify("3+3+2", reference).score == 1.0
    assert verify("3*2+2", reference).score == 0.0


def test_division_is_exact():
    assert verify("8/(3-8/3)", {"numbers": [8, 3, 8, 3], "target": 24}).score == 1.0
    assert verify("1/3*3", {"numbers": [1, 3, 3], "target": 1}).score == 1.0
    assert verify("10/3", {"numbers": [10, 3], "target": 3}).score == 0.0


def test_bounds_are_named_when_they_are_passed():
    nest = "(" * MAX_DEPTH + "7" + ")" * MAX_DEPTH
    assert evaluate(nest) == (7, [7])
    assert evaluate("1" * MAX_DIGITS)[0] == int("1" * MAX_DIGITS)
    assert evaluate("1" + "+1" * ((MAX_LENGTH - 1) // 2))[0] == 1 + (MAX_LENGTH - 1) // 2
    for expression, message in [
        (f"({nest})", "nested deeper"),
        ("-" * (MAX_DEPTH + 1) + "7", "nested deeper"),
        ("1" * (MAX_DIGITS + 1), "digits"),
        (" " * (MAX_LENGTH + 1), "characters"),
    ]:
        with pytest.raises(ValueError, match=message):
            evaluate(expression)


def _combine(children):
    """A sum, difference, product, quotient or negative of smaller trees, in or without superfluous parentheses."""
    binary = st.tuples(st.sampled_from("+-*/"), children, children)
    return st.one_of(binary, st.tuples(st.just("negate"), children), st.tuples(st.just("()"), children))


def _text(tree):
    """The expression with only the parentheses that the tree needs: so precedence and associativity are put to test."""
    if isinstance(tree, int):
        return str(tree), 3
    if tree[0] == "negate":
        text, level = _text(tree[1])
        return f"-{text}" if level >= 3 else f"-({text})", 3
    if tree[0] == "()":
        return f"( {_text(tree[1])[0]} )", 3
    symbol, (left, left_level), (right, right_level) = tree[0], _text(tree[1]), _text(tree[2])
    level = 1 if symbol in "+-" else 2
    left = left if left_level >= level else f"({left})"
    right = right if right_level > level else f"({right})"
    return f"{left} {symbol}{right}", level


def _compute(tree):
    if isinstance(tree, int):
        return Fraction(tree), [tree]
    if tree[0] in ("negate", "()"):
        value, numbers = _compute(tree[1])
        return (-value if tree[0] == "negate" else value), numbers
    (left, left_numbers), (right, right_numbers) = _compute(tree[1]), _compute(tree[2])
    return OPERATORS[tree[0]](left, right), left_numbers + right_numbers


@given(st.recursive(st.integers(0, 99), _combine, max_leaves=12))
def test_evaluate_agrees_with_the_tree_that_the_expression_was_written_from(tree):
    expression = _text(tree)[0]
    try:
        expected = _compute(tree)
    except ZeroDivisionError:
        with pytest.raises(ValueError, match="division by zero"):
            evaluate(expression)
        return
    value, numbers = evaluate(expression)
    assert (value, numbers) == expected
    if value.denominator == 1:
        reference = {"numbers": sorted(numbers), "target": int(value)}
        assert verify(expression, reference).score == 1.0
        assert verify(f"{expression} = {value}", reference).score == 1.0
        assert verify(expression, reference | {"target": int(value) + 1}).score == 0.0
        assert verify(expression, reference | {"numbers": [*numbers, 1]}).score == 0.0


@given(st.text(st.sampled_from("0123+-*/()= <>answer.\n")))
def test_evaluate_agrees_with_python_or_refuses(expression):
    try:
        value, _ = evaluate(expression)
    except ValueError:
        return
    # Whatever is accepted is Python too, but for leading zeros and lines, and may be given to its parser.
    assert set(expression) <= set("0123+-*/() \n")
    words = expression.replace("\n", " ")
    for symbol in "+-*/()":
        words = words.replace(symbol, f" {symbol} ")
    exact = " ".join(f"Fraction({int(word)})" if word.isdigit() else word for word in words.split())
    assert value == eval(exact, {"Fraction": Fraction})


@pytest.mark.parametrize(
    ("completion", "score", "reason"),
    [
        ("44 and 19 ... \n<answer>44+19+35 = 98</answer>", 1.0, "right"),
        ("<answer>44+19+35</answer>", 1.0, "right"),
        ("44+19+35", 0.0, "no <answer>…</answer>"),
        ("<answer>44+19</answer>", 0.0, "exactly once each"),
        ("<answer></answer>", 0.0, "empty"),
    ],
)
def test_in_the_form_of_tinyzero_the_answer_stands_in_tags(completion, score, reason):
    verdict = verify(completion, REFERENCE, tags=True)
    assert verdict.score == score
    assert verdict.parts.keys() == {"format", "uses_numbers"}
    assert reason in verdict.reason


@pytest.mark.parametrize(
    "reference", [None, "98", {}, {"numbers": [1]}, {"numbers": 1, "target": 1}, {"numbers": ["1"], "target": 1}]
)
def test_a_reference_of_another_shape_is_refused(reference):
    with pytest.raises(ValueError, match="the reference of a countdown example is"):
        verify("1", reference)


def test_every_tinyzero_solution_scores_one_and_no_other_target_does(data_sets):
    for problem in rows(data_sets / "countdown" / "train.jsonl"):
        reference = {"numbers": problem["nums"], "target": problem["target"]}
        completion = f"<answer>{problem['solution']}</answer>"
        assert verify(problem["solution"], reference).score == 1.0, problem
        assert verify(completion, reference, tags=True).score == 1.0, problem
        assert verify(problem["solution"], reference | {"target": problem["target"] + 1}).score == 0.0, problem


@pytest.mark.parametrize(
    "expression",
    [
        "6 \u00d7 7 \u2212 10 \u00f7 5",
        "6\u00d77\u221210\u00f75",
        r"6 \times 7 - 10 \div 5",
        r"$6 \cdot 7 - \frac{10}{5}$",
        r"\(6\cdot7-10/5\)",
        r"$$6 \times 7 - \dfrac{10}{5} = 40$$",
        r"\[ \left(6 \ast 7\right) \, - \, \left(10 \div 5\right) = 40. \]",
        r"\boxed{6 \times 7 - 10 \div 5}",
        "6 x 7 - 10/5 = 40",
        "[6 * 7] - [10 / 5]",
    ],
)
def test_operators_may_be_those_of_print_and_of_latex(expression):
    for completion in (expression, f"<answer>{expression}</answer>"):
        verdict = verify(completion, {"numbers": [5, 6, 7, 10], "target": 40})
        assert (verdict.score, verdict.reason) == (1.0, "right")


@pytest.mark.parametrize(
    "expression",
    [
        "6 \u00d7 7 \u00f7 10 - 5",
        r"6\left 7",
        r"6\,7",
        "6$ $7",
        r"\frac{6}{0}",
        r"\frac{67}",
        r"6\timesx7",
        "6 x",
        "67x",
        r"\frac{" * 60 + "6" + "}{7}" * 60,
        r"\sqrt{67}",
        "6 \u00d7 \u0667",
    ],
)
def test_other_signs_are_neither_arithmetic_nor_join_digits(expression):
    for numbers in ([6, 7], [67], [5, 6, 7, 10], [6, 0]):
        verdict = verify(expression, {"numbers": numbers, "target": 67})
        assert (verdict.score, verdict.error) == (0.0, None)


def test_a_fraction_of_fractions_is_evaluated():
    completion = r"$\frac{\frac{12}{3} + 8}{2}$"
    assert verify(completion, {"numbers": [2, 3, 8, 12], "target": 6}).score == 1.0
