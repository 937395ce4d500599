"""The calculator: exact arithmetic on rational numbers, by a grammar, never by `eval`.

    sum     := product (("+" | "-") product)*
    product := factor (("*" | "/" | "//" | "%") factor)*
    factor  := ("+" | "-") factor | power
    power   := atom (("**" | "^") factor)?
    atom    := number | "(" sum ")"

Precedence and signs are those of Python; `//` and `%` round down. Numbers are `12`, `1_000`, `0.5` or `.5`.
"""

import re
from fractions import Fraction

from rlvr_jax.tools.tool import CallError, Tool

MAX_LENGTH = 1000  # characters of an expression
MAX_DEPTH = 50
MAX_BITS = 4096  # of numerator and denominator
MAX_DECIMALS = 30  # of a result that is shown as a decimal
SHOWN = 12  # decimals of one that has no end

_TOKEN = re.compile(r"\s*([0-9]+(?:_[0-9]+)*(?:\.[0-9]*)?|\.[0-9]+|\*\*|//|[-+*/%^()])")
_SIGNS = str.maketrans("\u00d7\u00b7\u00f7\u2212", "**/-")  # as in print


def tool() -> Tool:
    """Exact arithmetic: `calculator`."""
    expression = {"type": "string", "description": "Arithmetic, such as (12 + 3) * 4 / 7 or 2**10."}
    parameters = {"type": "object", "properties": {"expression": expression}, "required": ["expression"]}
    description = "Evaluates arithmetic exactly, with + - * / // % ** and parentheses."
    return Tool("calculator", description, parameters, "rlvr_jax.tools.calculator:calculate")


def calculate(expression: str) -> str:
    """The value of an expression: an integer, a decimal, or a fraction with its first decimals: `1/3 (0.333333333333)`.

    Raises:
      CallError: it does not parse, divides by zero, or is longer, deeper or larger than the bounds of this module.
    """
    return _shown(evaluate(expression))


def evaluate(expression: str) -> Fraction:
    """The value of an expression. Raises CallError as `calculate`."""
    tokens = _tokens(expression)
    value, end = _sum(tokens, 0, 0)
    if end != len(tokens) - 1:
        raise CallError(f"expected an operator, found {tokens[end]!r}")
    return value


def _tokens(expression: str) -> list[str]:
    if len(expression) > MAX_LENGTH:
        raise CallError(f"the expression has {len(expression)} characters, more than {MAX_LENGTH}")
    text, tokens, place = expression.translate(_SIGNS).rstrip(), [], 0
    while place < len(text):
        match = _TOKEN.match(text, place)
        if match is None:
            raise CallError(f"unexpected {text[place:].lstrip()[0]!r}")
        tokens.append(match[1])
        place = match.end()
    return [*tokens, "the end"]


# Each parses from a token on, and returns the value and the next token's place.


def _sum(tokens: list[str], at: int, depth: int) -> tuple[Fraction, int]:
    value, at = _product(tokens, at, depth)
    while tokens[at] in ("+", "-"):
        sign = tokens[at]
        right, at = _product(tokens, at + 1, depth)
        value = _bounded(value + right if sign == "+" else value - right)
    return value, at


def _product(tokens: list[str], at: int, depth: int) -> tuple[Fraction, int]:
    value, at = _factor(tokens, at, depth)
    while tokens[at] in ("*", "/", "//", "%"):
        sign = tokens[at]
        right, at = _factor(tokens, at + 1, depth)
        if sign != "*" and right == 0:
            raise CallError("division by zero")
        value = _bounded({"*": _times, "/": _over, "//": _floor, "%": _rest}[sign](value, right))
    return value, at


def _factor(tokens: list[str], at: int, depth: int) -> tuple[Fraction, int]:
    if depth > MAX_DEPTH:
        raise CallError(f"nested deeper than {MAX_DEPTH}")
    if tokens[at] in ("+", "-"):
        value, end = _factor(tokens, at + 1, depth + 1)
        return (-value if tokens[at] == "-" else value), end
    value, at = _atom(tokens, at, depth)
    if tokens[at] in ("**", "^"):
        exponent, at = _factor(tokens, at + 1, depth + 1)
        value = _power(value, exponent)
    return value, at


def _atom(tokens: list[str], at: int, depth: int) -> tuple[Fraction, int]:
    token = tokens[at]
    if token == "(":
        value, at = _sum(tokens, at + 1, depth + 1)
        if tokens[at] != ")":
            raise CallError(f"expected ')', found {tokens[at]!r}")
        return value, at + 1
    if token[0] not in "0123456789.":
        raise CallError(f"expected a number, found {token!r}")
    return Fraction(token.replace("_", "").rstrip(".")), at + 1


def _times(left: Fraction, right: Fraction) -> Fraction:
    return left * right


def _over(left: Fraction, right: Fraction) -> Fraction:
    return left / right


def _floor(left: Fraction, right: Fraction) -> Fraction:
    return Fraction(left // right)


def _rest(left: Fraction, right: Fraction) -> Fraction:
    return left % right


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise CallError("an exponent must be a whole number")
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if base in (0, 1, -1):
        if base == 0 and exponent < 0:
            raise CallError("division by zero")
        return base ** (int(exponent) % 2 + 2) if exponent else Fraction(1)
    if size * abs(exponent) > 2 * MAX_BITS:
        raise CallError("the number is too large")
    return _bounded(base ** int(exponent))


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise CallError("the number is too large")
    return value


def _shown(value: Fraction) -> str:
    if value.denominator == 1:
        return str(value.numerator)
    rest, places = value.denominator, 0
    while rest % 10 == 0 or rest % 5 == 0 or rest % 2 == 0:
        rest //= 10 if rest % 10 == 0 else 5 if rest % 5 == 0 else 2
        places += 1
    exact = rest == 1 and places <= MAX_DECIMALS
    decimals = _decimals(value, places if exact else SHOWN)
    return decimals if exact else f"{value.numerator}/{value.denominator} ({decimals})"


def _decimals(value: Fraction, places: int) -> str:
    """The value with so many decimals, cut, not rounded."""
    digits = str(abs(value.numerator) * 10**places // value.denominator).zfill(places + 1)
    sign = "-" if value < 0 else ""
    return f"{sign}{digits[:-places]}.{digits[-places:]}"
