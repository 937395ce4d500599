"""Countdown: problems, splits and demonstrations. Expressions are evaluated here by Python's own grammar."""

import ast
import re
from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlvr_jax.tasks import Example, countdown

OPERATORS = {
    ast.Add: lambda a, b: a + b,
    ast.Sub: lambda a, b: a - b,
    ast.Mult: lambda a, b: a * b,
    ast.Div: lambda a, b: a / b,
}


def value_of(expression: str) -> Fraction:
    def value(node: ast.expr) -> Fraction:
        if isinstance(node, ast.BinOp):
            return OPERATORS[type(node.op)](value(node.left), value(node.right))
        assert isinstance(node, ast.Constant), expression
        return Fraction(node.value)

    return value(ast.parse(expression, mode="eval").body)


def numbers_in(text: str) -> Counter:
    return Counter(map(int, re.findall(r"\d+", text)))


def test_examples_are_the_same_in_every_process_and_version():
    task = countdown()
    assert task.example("train", 0) == Example(
        "countdown/train/0", "6,2,3>11:", {"numbers": [6, 2, 3], "target": 11}, "countdown"
    )
    assert task.example("heldout", 0).prompt == "8,3,5>16:"
    assert task.example("train", 2**63 - 1).prompt == "3,4,5>12:"
    assert [task.demonstration(task.example("train", index), index) for index in range(4)] == [
        "2-3-6",
        "5-9+4",
        "9+3+8",
        "2-6+8",
    ]
    task = countdown(numbers=4, largest=20, operators="+-*/", right_share=1.0)
    assert task.demonstration(task.example("train", 2), 0) == "(17+3*14)*13"


def test_the_orders_of_one_problem_never_straddle_the_splits():
    task = countdown()

    def problems(split: str, count: int) -> set:
        references = [task.example(split, index).reference for index in range(count)]
        return {(tuple(sorted(reference["numbers"])), reference["target"]) for reference in references}

    train, heldout = problems("train", 6_000), problems("heldout", 1_500)
    assert not train & heldout
    assert len(heldout) > 30


@given(
    numbers=st.integers(2, 8),
    largest=st.sampled_from([9, 20, 1000]),
    operators=st.sampled_from(["+-", "-+", "+-*/", "*/+", "+*", "-/", "-*/"]),
    index=st.integers(0, 2**63 - 1),
    right=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_demonstrations_use_each_number_once_and_are_right_when_they_should_be(
    numbers, largest, operators, index, right
):
    task = countdown(numbers, largest, operators, right_share=float(right))
    example = task.example("train", index)
    expression = task.demonstration(example, 0)
    target = example.reference["target"]
    assert example.prompt == f"{','.join(map(str, example.reference['numbers']))}>{target}:"
    assert target >= 0
    assert len(example.reference["numbers"]) == numbers
    assert all(1 <= number <= largest for number in example.reference["numbers"])
    assert numbers_in(expression) == Counter(example.reference["numbers"])
    assert (value_of(expression) == target) == right or set(operators) == {"+", "*"}  # 2+2 = 2*2
    assert value_of(expression).denominator == 1
    assert set(expression) & set("+-*/") <= set(operators)
    assert set(example.prompt + expression) <= set(task.alphabet)


def test_the_wanted_share_of_demonstrations_reaches_the_target():
    task = countdown(right_share=0.3)
    examples = [task.example("train", index) for index in range(3_000)]
    right = [value_of(task.demonstration(example, 7)) == example.reference["target"] for example in examples]
    assert sum(right) / len(right) == pytest.approx(0.3, abs=0.034)  # 4 standard deviations


def test_plus_and_minus_need_no_parentheses_and_the_alphabet_has_none():
    task = countdown(numbers=5)
    assert task.alphabet == "0123456789,>:+-"
    assert not any("(" in task.demonstration(task.example("train", index), 0) for index in range(300))
    assert countdown(operators="+*").alphabet == "0123456789,>:+*()"


def test_a_problem_that_cannot_be_missed_is_demonstrated_right():
    task = countdown(numbers=2, largest=30, operators="*", right_share=0.0)
    example = task.example("train", 0)
    assert value_of(task.demonstration(example, 0)) == example.reference["target"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"numbers": 1}, "numbers must be from 2 to 8, not 1"),
        ({"numbers": 9}, "numbers must be from 2 to 8, not 9"),
        ({"largest": 0}, "largest must be from 1 to 1000000, not 0"),
        ({"operators": "+^"}, "operators must be different ones"),
        ({"operators": "++"}, "operators must be different ones"),
        ({"operators": ""}, "operators must hold one of"),
        ({"operators": "/"}, "operators must hold one of"),
        ({"right_share": 1.1}, "right_share must be from 0 to 1, not 1.1"),
        ({"numbers": 3, "largest": 1, "operators": "-"}, "found no problem of split 'train'"),
        ({"numbers": 2, "largest": 1, "operators": "+"}, "found no problem of split"),
    ],
)
def test_arguments_out_of_range_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        countdown(**options)


def test_a_negative_index_is_refused():
    with pytest.raises(IndexError, match="at least 0, not -1"):
        countdown().example("train", -1)
