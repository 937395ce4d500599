"""Whether two formulas are equal, by their values.

Two formulas without variables are equal if their values are: exactly where they are rational, else to 30 digits.
Formulas with variables are equal if their values are at several points, which are the same in every run. For
polynomials that is the identity test of Schwartz (J. ACM 27, 1980) and Zippel (EUROSAM 1979); for the elementary
functions it decides as well in practice. It needs no simplifier, and every intermediate value is bounded in size.
"""

import functools
import hashlib
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from rlvr_jax.verifiers.mathematics.expression import (
    TooLargeError,
    Tree,
    UndefinedError,
    UnsupportedError,
    exact,
    names,
)

_DIGITS = 50  # of a value; a third of them may be lost to cancellation
_TOLERANCE = Fraction(1, 10**30)  # relative
_MAX_EXPONENT = 20_000  # of 2, in a value
_MAX_ARGUMENT = 2_000  # of factorials and binomial coefficients
_POINTS = 6  # the first half with positive values only


@functools.cache
def _context() -> Any:
    import mpmath  # here, since it is needed for few answers

    context = mpmath.mp.clone()  # precision is a setting of the context: not of the one that others use
    context.dps = _DIGITS
    return context


@functools.lru_cache(4096)
def _coordinate(name: str, point: int) -> Any:
    """The value of a variable at a point: between 0.25 and 2.25 in size."""
    digest = hashlib.sha256(f"{point} {name}".encode()).digest()
    size = _context().mpf(int.from_bytes(digest[:6], "big")) / 2**47 + 0.25
    return -size if point >= _POINTS // 2 and digest[6] % 2 else size


def _log2(value: Any) -> float:
    """A bound of |log2| of the size of a value; 0 for 0."""
    return abs(float(_context().mag(value))) if value else 0.0


def _power(base: Any, exponent: Any, real: bool) -> Any:
    mp = _context()
    if not base:
        if mp.re(exponent) <= 0:
            raise UndefinedError("0 to a power that is not positive")
        return base
    if _log2(exponent) > 40 or (_log2(base) + 1) * abs(exponent) > _MAX_EXPONENT:
        raise TooLargeError("a power in it is too large")
    if real and base < 0 and not mp.isint(exponent):
        raise UndefinedError("not a real number")
    return mp.power(base, exponent)


def _root(degree: Any, value: Any, real: bool) -> Any:
    mp = _context()
    if not degree:
        raise UndefinedError("a root of degree 0")
    if real and value < 0 and mp.isint(degree) and int(degree) % 2:
        return -_power(-value, 1 / degree, real)
    return _power(value, 1 / degree, real)


def _elementary(name: str, value: Any, real: bool) -> Any:
    mp = _context()
    if name in ("log", "log10"):
        if not value or (real and value < 0):
            raise UndefinedError("the logarithm of a number that is not positive")
        return mp.log(value) / (mp.log(10) if name == "log10" else 1)
    if name in ("exp", "sinh", "cosh") and abs(value) > _MAX_EXPONENT / 2:
        raise TooLargeError("a power in it is too large")
    if _log2(value) > 2000:
        raise TooLargeError("an argument in it is too large")
    result = getattr(mp, name)(value)
    if real and mp.im(result):
        raise UndefinedError("not a real number")
    return mp.re(result) if real else result


def _gamma(name: str, *values: Any) -> Any:
    if any(abs(value) > _MAX_ARGUMENT for value in values):
        raise TooLargeError(f"a {name} in it is too large")
    try:
        return getattr(_context(), name)(*values)
    except ValueError:
        raise UndefinedError(f"a {name} in it has no value") from None


def _round(name: str, value: Any) -> Any:
    return getattr(_context(), name)(value)


def _divide(left: Any, right: Any) -> Any:
    if not right:
        raise UndefinedError("division by zero")
    return left / right


_ARITHMETIC: Mapping[str, Callable[..., Any]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _divide,
    "negate": lambda a: -a,
    "abs": abs,
    "degrees": lambda a: a * _context().pi / 180,
    "factorial": functools.partial(_gamma, "factorial"),
    "binomial": functools.partial(_gamma, "binomial"),
    "floor": functools.partial(_round, "floor"),
    "ceil": functools.partial(_round, "ceil"),
}


def _value(tree: Tree, point: int, real: bool) -> Any:
    mp = _context()
    rational = exact(tree)
    if rational is not None:
        value = mp.mpf(rational.numerator) / rational.denominator
    elif tree[0] == "name":
        if tree[1] == "infty":
            raise UndefinedError("infinity")
        constant = {"pi": mp.pi, "e": mp.e, "i": mp.mpc(0, 1)}.get(tree[1])
        value = _coordinate(tree[1], point) if constant is None else +constant
    else:
        values = [_value(part, point, real) for part in tree[1:]]
        if tree[0] in _ARITHMETIC:
            value = _ARITHMETIC[tree[0]](*values)
        elif tree[0] == "^":
            value = _power(*values, real)
        elif tree[0] == "root":
            value = _root(*values, real)
        else:
            value = _elementary(tree[0], *values, real)
    if not mp.isfinite(value):
        raise UndefinedError("not a finite number")
    if _log2(value) > _MAX_EXPONENT:
        raise TooLargeError("a number in it is too large")
    return value


@functools.lru_cache(4096)
def _values(tree: Tree, real: bool, points: int) -> tuple[Any, ...]:
    """The values at the points, None where there is none."""

    def at(point: int) -> Any:
        try:
            return _value(tree, point, real)
        except UndefinedError:
            return None

    return tuple(at(point) for point in range(points))


def _close(left: Any, right: Any) -> bool:
    scale = max(abs(left), abs(right))
    return bool(scale < 1e-35 or abs(left - right) <= scale * _TOLERANCE.numerator / _TOLERANCE.denominator)


def _decided(left: Tree, right: Tree) -> list[tuple[Any, Any]]:
    """The pairs of values at the points where both have one; only real values, unless there is an `i`."""
    found = names(left) | names(right)
    points = _POINTS if found - {"e", "i"} else 1
    real = "i" not in found
    pairs = zip(_values(left, real, points), _values(right, real, points), strict=True)
    decided = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not decided:
        raise UndefinedError("there is no value to compare")
    return decided


def equal(left: Tree, right: Tree) -> bool:
    """Whether two formulas are equal.

    Raises:
      TooLargeError: a value is beyond the bounds.
      UndefinedError: there is no value.
      UnsupportedError: it cannot be computed.
    """
    if left == right:
        return True
    a, b = exact(left), exact(right)
    if a is not None and b is not None:
        return a == b
    return all(_close(x, y) for x, y in _decided(left, right))


def proportional(left: Tree, right: Tree) -> int:
    """The sign of c if left = c · right with a constant c and neither is 0 everywhere, else 0. Raises like `equal`."""
    pairs = _decided(left, right)
    base_left, base_right = pairs[0]
    if len(pairs) < 2 or not base_left or not base_right or abs(base_left) < 1e-35 or abs(base_right) < 1e-35:
        return 0
    factor = base_left / base_right
    if not all(_close(x, factor * y) for x, y in pairs):
        return 0
    return 1 if _context().re(factor) > 0 else -1


def value(tree: Tree) -> Any:
    """The real number that a formula without variables is. Raises like `equal`, also if it has variables."""
    if names(tree) - {"e"}:
        raise UnsupportedError("not a real number")
    return _value(tree, 0, True)


def rounds_to(tree: Tree, decimal: str) -> bool:
    """Whether `decimal` is the number `tree`, with more digits than it shows, rounded to them. Raises like `value`."""
    places = len(decimal.partition(".")[2])
    rational = exact(tree)
    if rational is not None and (rational * 10**places).denominator == 1:
        return False  # shows all its digits: then only the same number is equal to it
    difference = abs(value(tree) - value(("number", Fraction(decimal))))
    return bool(difference * 10**places <= 0.5)
