import ast
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlvr_jax.tools import CallError
from rlvr_jax.tools.calculator import calculate, evaluate

NUMBERS = st.integers(0, 99).map(str) | st.decimals(0, 9, places=2, allow_nan=False).map(str)
EXPRESSIONS = st.recursive(
    NUMBERS,
    lambda inner: (
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%"]), inner).map(" ".join)
        | inner.map("({})".format)
        | inner.map("-{}".format)
        | st.tuples(inner.map("({})".format), st.sampled_from(["**2", "^3", "**-1", "**0"])).map("".join)
    ),
    max_leaves=6,
)


def by_python(node):
    """The value of a parsed expression in rational numbers, with Python's grammar."""
    match node:
        case ast.Expression(body):
            return by_python(body)
        case ast.Constant(value):
            return Fraction(str(value))
        case ast.UnaryOp(ast.USub(), operand):
            return -by_python(operand)
        case ast.BinOp(left, operator, right):
            a, b = by_python(left), by_python(right)
            return {
                ast.Add: lambda: a + b, ast.Sub: lambda: a - b, ast.Mult: lambda: a * b, ast.Div: lambda: a / b,
                ast.FloorDiv: lambda: Fraction(a // b), ast.Mod: lambda: a % b, ast.Pow: lambda: a ** int(b),
            }[type(operator)]()  # fmt: skip


@given(EXPRESSIONS)
def test_expressions_have_the_value_and_precedence_of_python(expression):
    try:
        expected = by_python(ast.parse(expression.replace("^", "**"), mode="eval"))
    except ZeroDivisionError:
        with pytest.raises(CallError, match="division by zero"):
            evaluate(expression)
        return
    assert evaluate(expression) == expected


@pytest.mark.parametrize(
    ("expression", "shown"),
    [
        ("12*7", "84"), ("0.1 + 0.2", "0.3"), ("1/8", "0.125"), ("1/3", "1/3 (0.333333333333)"), ("-2**2", "-4"),
        ("-7 // 2", "-4"), ("2^10", "1024"), ("1_000 \u00d7 3 \u00f7 4", "750"), ("-1/6", "-1/6 (-0.166666666666)"),
        ("3.0", "3"), ("(-1)**" + "9" * 99, "-1"), ("2**-2", "0.25"),
    ],
)  # fmt: skip
def test_results_are_exact(expression, shown):
    assert calculate(expression) == shown


@pytest.mark.parametrize(
    ("expression", "why"),
    [
        ("", "the end"), ("1__0", "'_'"), ("1_", "'_'"), ("\u0663", "\u0663"),
        ("12 13", "'13'"), ("(1", r"'\)'"), ("1+", "the end"), ("2**2**99", "too large"),
        ("9" * 990 + "**99", "too large"), ("2**0.5", "whole"), ("0**-1", "division"), ("(" * 400 + "1", "deeper"),
        ("__import__('os')", "'_'"), ("1" * 1001, "1001"), ("1e9", "'e'"), ("-" * 900 + "1", "deeper"),
    ],
)  # fmt: skip
def test_what_is_no_arithmetic_or_too_large_is_an_error_that_says_so(expression, why):
    with pytest.raises(CallError, match=why):
        calculate(expression)
