"""The value of a formula at a point, to a chosen number of digits. Every intermediate value is bounded in size."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

from rlvr_jax.verifiers.mathematics.expression import TooLargeError, Tree, UndefinedError
from rlvr_jax.verifiers.mathematics.rational import exact

_MAX_EXPONENT = 20_000  # of 2, in a value
_MAX_ARGUMENT = 2_000  # of factorials and binomial coefficients

Real = Any  # a number of mpmath


@functools.cache
def context(digits: int) -> Any:
    """mpmath with that precision. One for each: precision is a setting of the context, which threads would share."""
    import mpmath  # here, since it is needed for few answers

    made = mpmath.mp.clone()
    made.dps = digits
    return made


def log2(mp: Any, value: Real) -> int:
    """A bound of log2 of the size of a value; 0 for 0."""
    return int(mp.mag(value)) if value else 0


def _power(mp: Any, real: bool, base: Real, exponent: Real) -> Real:
    if not base:
        if mp.re(exponent) <= 0:
            raise UndefinedError("0 to a power that is not positive")
        return base
    if abs(log2(mp, exponent)) > 40 or (abs(log2(mp, base)) + 1) * abs(exponent) > _MAX_EXPONENT:
        raise TooLargeError("a power in it is too large")
    if real and base < 0 and not mp.isint(exponent):
        raise UndefinedError("not a real number")
    return mp.power(base, exponent)


def _root(mp: Any, real: bool, degree: Real, value: Real) -> Real:
    if not degree:
        raise UndefinedError("a root of degree 0")
    whole = mp.isint(degree) and 0 < degree <= 64
    if real and value < 0 and mp.isint(degree) and int(degree) % 2:
        return -_root(mp, real, degree, -value)
    if whole and value and (not real or value > 0):
        return mp.root(value, int(degree))
    return _power(mp, real, value, 1 / degree)


def _elementary(name: str, mp: Any, real: bool, value: Real) -> Real:
    if name in ("log", "log10"):
        if not value or (real and value < 0):
            raise UndefinedError("the logarithm of a number that is not positive")
        return mp.log(value) / (mp.log(10) if name == "log10" else 1)
    if name in ("exp", "sinh", "cosh") and abs(value) > _MAX_EXPONENT / 2:
        raise TooLargeError("a power in it is too large")
    if abs(log2(mp, value)) > 2000:
        raise TooLargeError("an argument in it is too large")
    result = getattr(mp, name)(value)
    if real and mp.im(result):
        raise UndefinedError("not a real number")
    return mp.re(result) if real else result


def _gamma(name: str, mp: Any, _real: bool, *values: Real) -> Real:
    if any(abs(value) > _MAX_ARGUMENT for value in values):
        raise TooLargeError(f"a {name} in it is too large")
    try:
        return getattr(mp, name)(*values)
    except ValueError:
        raise UndefinedError(f"a {name} in it has no value") from None


def _divide(_mp: Any, _real: bool, left: Real, right: Real) -> Real:
    if not right:
        raise UndefinedError("division by zero")
    return left / right


_OPERATIONS: Mapping[str, Callable[..., Real]] = {
    "+": lambda _mp, _real, a, b: a + b,
    "-": lambda _mp, _real, a, b: a - b,
    "*": lambda _mp, _real, a, b: a * b,
    "/": _divide,
    "^": _power,
    "root": _root,
    "negate": lambda _mp, _real, a: -a,
    "abs": lambda _mp, _real, a: abs(a),
    "degrees": lambda mp, _real, a: a * mp.pi / 180,
    "factorial": functools.partial(_gamma, "factorial"),
    "binomial": functools.partial(_gamma, "binomial"),
    "floor": lambda mp, _real, a: mp.floor(a),
    "ceil": lambda mp, _real, a: mp.ceil(a),
}


def evaluate(tree: Tree, mp: Any, coordinate: Callable[[str], Real], real: bool, sizes: list[int]) -> Real:
    """The value of a formula.

    Args:
      tree: the formula.
      mp: a `context`.
      coordinate: the value of a variable.
      real: whether only real numbers are values.
      sizes: to which log2 of the size of every intermediate value is appended.

    Raises:
      TooLargeError: a value is beyond the bounds. UndefinedError: there is no value.
    """
    rational = exact(tree)
    if rational is not None:
        value = mp.mpf(rational.numerator) / rational.denominator
    elif tree[0] == "name":
        if tree[1] == "infty":
            raise UndefinedError("infinity")
        constant = {"pi": mp.pi, "e": mp.e, "i": mp.mpc(0, 1)}.get(tree[1])
        value = coordinate(tree[1]) if constant is None else +constant
    elif tree[0] == "^" and (exponent := exact(tree[2])) is not None and 1 < exponent.denominator <= 64:
        base = evaluate(tree[1], mp, coordinate, real, sizes)
        if real and base < 0:
            raise UndefinedError("not a real number")
        root = _root(mp, real, mp.mpf(exponent.denominator), base)  # a root takes less time than a power
        value = _power(mp, real, root, mp.mpf(exponent.numerator))
    else:
        values = [evaluate(part, mp, coordinate, real, sizes) for part in tree[1:]]
        value = _OPERATIONS.get(tree[0], functools.partial(_elementary, tree[0]))(mp, real, *values)
    if not mp.isfinite(value):
        raise UndefinedError("not a finite number")
    size = log2(mp, value)
    if abs(size) > _MAX_EXPONENT:
        raise TooLargeError("a number in it is too large")
    sizes.append(size)
    return value
