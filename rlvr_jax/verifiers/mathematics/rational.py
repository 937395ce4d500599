"""The exact value of a formula that is rational, by arithmetic alone. Every intermediate value is bounded in size."""

import functools
import math
from collections.abc import Callable, Mapping
from fractions import Fraction

from rlvr_jax.verifiers.mathematics.expression import TooLargeError, Tree, UndefinedError, UnsupportedError

_MAX_BITS = 60_000  # of a value's numerator and denominator


def _checked(value: Fraction) -> Fraction:
    if value.numerator.bit_length() + value.denominator.bit_length() > _MAX_BITS:
        raise TooLargeError("a number in it is too large")
    return value


def _integer(value: Fraction) -> int:
    if value.denominator != 1:
        raise UnsupportedError("not an integer")
    return value.numerator


def _binomial(top: Fraction, bottom: Fraction) -> Fraction:
    n, k = _integer(top), _integer(bottom)
    if n < 0 or k < 0:
        raise UnsupportedError("a binomial coefficient of negative numbers")
    if n > 4000 and min(k, n - k) > 500:
        raise TooLargeError("a binomial coefficient in it is too large")
    return _checked(Fraction(math.comb(n, min(k, abs(n - k)) if k <= n else k)))


def _factorial(value: Fraction) -> Fraction:
    n = _integer(value)
    if n < 0:
        raise UndefinedError("the factorial of a negative number")
    if n > 4000:
        raise TooLargeError("a factorial in it is too large")
    return _checked(Fraction(math.factorial(n)))


def _exact_power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if base == 0:
        if exponent <= 0:
            raise UndefinedError("0 to a power that is not positive")
        return base
    if exponent.denominator != 1:
        root = _exact_root(Fraction(exponent.denominator), base)
        return None if root is None else _exact_power(root, Fraction(exponent.numerator))
    if abs(base) == 1:
        return base if exponent.numerator % 2 else Fraction(1)
    bits = max(base.numerator.bit_length(), base.denominator.bit_length()) - 1
    if max(bits, 1) * abs(exponent.numerator) > _MAX_BITS:
        raise TooLargeError("a power in it is too large")
    return _checked(base**exponent.numerator)


def _exact_root(degree: Fraction, value: Fraction) -> Fraction | None:
    n = _integer(degree)
    if not 1 <= n <= 64:
        raise UnsupportedError("a root of that degree")
    if value < 0:
        if n % 2 == 0:
            return None
        root = _exact_root(degree, -value)
        return None if root is None else -root
    found = []
    for part in (value.numerator, value.denominator):
        root = math.isqrt(part) if n == 2 else round(part ** (1 / n)) if part.bit_length() < 500 else -1
        if root**n != part:
            return None
        found.append(root)
    return Fraction(*found)


def _divide(left: Fraction, right: Fraction) -> Fraction:
    if right == 0:
        raise UndefinedError("division by zero")
    return left / right


_EXACT: Mapping[str, Callable[..., Fraction | None]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _divide,
    "negate": lambda a: -a,
    "abs": abs,
    "floor": lambda a: Fraction(math.floor(a)),
    "ceil": lambda a: Fraction(math.ceil(a)),
    "^": _exact_power,
    "root": _exact_root,
    "factorial": _factorial,
    "binomial": _binomial,
}


@functools.lru_cache(4096)
def exact(tree: Tree) -> Fraction | None:
    """The value of a formula if it is rational and found by arithmetic alone, else None.

    Raises:
      TooLargeError, UndefinedError, UnsupportedError: see there.
    """
    if tree[0] == "number":
        return tree[1]
    values = [exact(part) for part in tree[1:]] if tree[0] in _EXACT else [None]
    if None in values:
        return None
    value = _EXACT[tree[0]](*values)
    return None if value is None else _checked(value)
