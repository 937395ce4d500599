"""Countdown: reach the target with + - * / and parentheses, using each of the given numbers exactly once.

The task and the `<answer>` tags are those of TinyZero (https://github.com/Jiayi-Pan/TinyZero). The parser is exact
and bounded in length, depth and digits: a completion is never passed to `eval` or `ast`.

    sum     := product (("+" | "-") product)*
    product := factor (("*" | "/") factor)*
    factor  := number | "-" factor | "(" sum ")"

Operators may be written as in print and in LaTeX: `3 × 4`, `$24 \\div 4$`, `\\frac{24}{4}`.
"""

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from rlvr_jax.text.tags import answer_in_tags
from rlvr_jax.verifiers.verdict import Verdict

MAX_LENGTH = 400  # characters of an expression
MAX_DEPTH = 50  # parentheses and minus signs around a number
MAX_DIGITS = 12  # of one number

_TOKEN = re.compile(r"[0-9]+|[-+*/()]")
_SIGNS = str.maketrans("\u00d7\u22c5\u00b7\u2217\u00f7\u2215\u2212{}[]", "****//-()()")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}\\]*)\}\s*\{([^{}\\]*)\}")
_COMMANDS = {"times": "*", "cdot": "*", "ast": "*", "div": "/"}
_COMMAND = re.compile(r"\\(?:(?P<name>times|cdot|ast|div|left|right|quad|boxed)(?![a-zA-Z])|[,;:! ()\[\]])|\$")
_LEVELS = ("+-", "*/")  # operators, loosest first
_NEGATE = "negate"


def _tokens(expression: str) -> list[str]:
    if len(expression) > MAX_LENGTH:
        raise ValueError(f"the expression has {len(expression)} characters, more than {MAX_LENGTH}")
    tokens, position = [], 0
    while position < len(expression):
        if expression[position].isspace():
            position += 1
            continue
        match = _TOKEN.match(expression, position)
        if match is None:
            raise ValueError(f"unexpected {expression[position]!r}")
        if len(match[0]) > MAX_DIGITS:
            raise ValueError(f"a number of {len(match[0])} digits, more than {MAX_DIGITS}")
        tokens.append(match[0])
        position = match.end()
    if not tokens:
        raise ValueError("the expression is empty")
    return tokens


def _postfix(expression: str) -> list[int | str]:
    """The expression in postfix order: numbers as int, operators as text. Raises ValueError where it does not parse."""
    tokens = [*_tokens(expression), "the end"]
    output: list[int | str] = []

    # Each function parses from token `position` on, appends to `output` and returns the next position.
    def binary(level: int, position: int, depth: int) -> int:
        if level == len(_LEVELS):
            return factor(position, depth)
        position = binary(level + 1, position, depth)
        while tokens[position] in _LEVELS[level]:
            operator = tokens[position]
            position = binary(level + 1, position + 1, depth)
            output.append(operator)
        return position

    def factor(position: int, depth: int) -> int:
        if depth > MAX_DEPTH:
            raise ValueError(f"nested deeper than {MAX_DEPTH}")
        token = tokens[position]
        if token == "-":
            position = factor(position + 1, depth + 1)
            output.append(_NEGATE)
            return position
        if token == "(":
            position = binary(0, position + 1, depth + 1)
            if tokens[position] != ")":
                raise ValueError(f"expected ')', found {tokens[position]}")
            return position + 1
        if token[0] not in "0123456789":
            raise ValueError(f"expected a number, found {token}")
        output.append(int(token))
        return position + 1

    end = binary(0, 0, 0)
    if end != len(tokens) - 1:
        raise ValueError(f"expected an operator, found {tokens[end]}")
    return output


def _value(postfix: Sequence[int | str]) -> Fraction:
    stack: list[Fraction] = []
    for item in postfix:
        if isinstance(item, int):
            stack.append(Fraction(item))
            continue
        right = stack.pop()
        if item == _NEGATE:
            stack.append(-right)
            continue
        left = stack.pop()
        if item == "+":
            stack.append(left + right)
        elif item == "-":
            stack.append(left - right)
        elif item == "*":
            stack.append(left * right)
        elif right == 0:
            raise ValueError("division by zero")
        else:
            stack.append(left / right)
    (result,) = stack
    return result


def _numbers(postfix: Sequence[int | str]) -> list[int]:
    return [item for item in postfix if isinstance(item, int)]


def evaluate(expression: str) -> tuple[Fraction, list[int]]:
    """The exact value of an expression and its numbers, in order.

    Raises:
      ValueError: it does not parse, is longer or deeper than the bounds of this module, or divides by zero.
    """
    postfix = _postfix(expression)
    return _value(postfix), _numbers(postfix)


def _plain(text: str) -> str:
    """The expression without LaTeX: delimiters and spacing as spaces, operators and fractions as `*` and `/`."""
    if len(text) > 2 * MAX_LENGTH:
        return text
    text = _COMMAND.sub(lambda found: _COMMANDS.get(found["name"], " "), text)
    for _ in range(MAX_DEPTH):  # the innermost fractions first
        text, count = _FRACTION.subn(r"((\1)/(\2))", text)
        if not count:
            break
    return re.sub(r"(?<=[\d)])\s*[xX]\s*(?=[\d(])", " * ", text.translate(_SIGNS))


def _expression(completion: str, target: int, tags: bool) -> str:
    """The expression of the completion, without a trailing `= target`."""
    answer = answer_in_tags(completion)
    if answer is None:
        if tags:
            raise ValueError("no <answer>…</answer> in the answer")
        answer = completion
    answer = _plain(answer).strip()
    left, equals, right = answer.rpartition("=")
    return (left if equals and right.strip(" .") == str(target) else answer).strip()


def verify(completion: str, reference: Mapping[str, Any], *, tags: bool = False) -> Verdict:
    """Scores 1 if the expression uses exactly `reference["numbers"]` and its value is `reference["target"]`.

    The expression is in the last `<answer>…</answer>`, or the whole completion without such tags. `= 12` may follow it
    if 12 is the target.

    Args:
      completion: the policy's text.
      reference: `{"numbers": [int, …], "target": int}`.
      tags: require the tags, as in TinyZero.

    Parts: `format` (the expression parses), `uses_numbers` (each number exactly once, no other).

    Raises:
      ValueError: the reference is not `{"numbers": [int, …], "target": int}`.
    """
    if not (
        isinstance(reference, Mapping)
        and isinstance(reference.get("target"), int)
        and isinstance(reference.get("numbers"), list | tuple)
        and all(isinstance(number, int) for number in reference["numbers"])
    ):
        raise ValueError(
            f'the reference of a countdown example is {{"numbers": [int], "target": int}}, not {reference!r}'
        )
    numbers, target = sorted(reference["numbers"]), reference["target"]
    try:
        expression = _expression(completion, target, tags)
        postfix = _postfix(expression)
    except ValueError as error:
        return Verdict(0.0, {"format": 0.0, "uses_numbers": 0.0}, reason=str(error))
    uses_numbers = sorted(_numbers(postfix)) == numbers
    parts = {"format": 1.0, "uses_numbers": float(uses_numbers)}
    try:
        value = _value(postfix)
    except ValueError as error:
        return Verdict(0.0, parts, expression, str(error))
    if not uses_numbers:
        return Verdict(0.0, parts, expression, f"does not use {numbers} exactly once each")
    if value != target:
        return Verdict(0.0, parts, expression, f"{value} is not {target}")
    return Verdict(1.0, parts, expression, "right")
