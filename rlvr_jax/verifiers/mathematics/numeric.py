"""Equality of two formulas by their values.

Formulas are equal if their values are: exactly where those are rational, else to as many digits as may be needed to
tell them apart. With variables, values are compared at several points, which are the same in every run. For
polynomials that is the identity test of Schwartz (J. ACM 27, 1980) and Zippel (EUROSAM 1979); for the elementary
functions it decides as well in practice. Formulas that tell signs apart (`|x|`, roots, powers) are compared at points
with all combinations of signs, and farther out than their largest number. No simplifier is needed.

Values are computed to 60 digits. If they agree, and numbers in the formulas are so long or values so far apart in size
that 60 digits may not tell, they are computed again. How many digits are enough is an estimate in the manner of root
separation bounds (Burnikel et al., Algorithmica 55, 2009): twice the digits of all numbers, and the range of sizes.
"""

import functools
import hashlib
from collections.abc import Iterator
from fractions import Fraction

from rlvr_jax.verifiers.mathematics.evaluate import Real, context, evaluate
from rlvr_jax.verifiers.mathematics.expression import (
    TooLargeError,
    Tree,
    UndefinedError,
    UnsupportedError,
    names,
)
from rlvr_jax.verifiers.mathematics.rational import exact

_DIGITS = 60  # of a value at first; two fifths of them may be lost to cancellation
_MAX_DIGITS, _MAX_ELEMENTARY_DIGITS = 7680, 1920  # of a value, without and with elementary functions
_POSITIVE = 3  # points with positive values only
_PLAIN = 6  # points for formulas that do not tell signs apart
_MAX_SIGNS = 4  # variables of which all combinations of signs are tried
_CONSTANTS = frozenset(["e", "i"])
_SIGNED = frozenset(["abs", "root", "^", "floor", "ceil", "log", "log10"])
_ALGEBRAIC = frozenset(["+", "-", "*", "/", "negate", "abs", "root", "floor", "ceil"])


@functools.lru_cache(4096)
def _largest(tree: Tree) -> Fraction:
    """The largest number in a formula, at least 1."""
    if tree[0] in ("number", "name"):
        return max(tree[1], Fraction(1)) if tree[0] == "number" else Fraction(1)
    return max(map(_largest, tree[1:]), default=Fraction(1))


@functools.lru_cache(4096)
def _tells_signs(tree: Tree) -> bool:
    """True if a formula with variables may be another one where a variable is negative or large."""
    if tree[0] in ("number", "name") or not names(tree) - _CONSTANTS:
        return False
    if tree[0] == "^" and (exponent := exact(tree[2])) is not None and exponent.denominator == 1:
        return _tells_signs(tree[1])
    return tree[0] in _SIGNED or any(map(_tells_signs, tree[1:]))


@functools.lru_cache(4096)
def _digits(tree: Tree) -> int:
    """The digits of all numbers in a formula, of a rational part those of its value."""
    value = exact(tree)
    if value is not None:
        return (value.numerator.bit_length() + value.denominator.bit_length()) * 3 // 10
    return 0 if tree[0] == "name" else sum(map(_digits, tree[1:]))


def _negative(variables: tuple[str, ...], point: int) -> int:
    """A bit for each variable that is negative at a point: of few variables, every combination in turn."""
    if point < _POSITIVE:
        return 0
    turn, every = point - _POSITIVE, 2 ** len(variables) - 1
    if len(variables) <= _MAX_SIGNS:
        return every - turn % (every + 1)
    some = int.from_bytes(hashlib.sha256(f"signs {turn // 2}".encode()).digest()[:8], "big") if turn > 1 else 0
    return (some if turn % 2 else ~some) & every


@functools.lru_cache(8192)
def _coordinate(name: str, point: int, digits: int) -> Real:
    """The size of a variable at a point: between 0.25 and 2.25."""
    digest = hashlib.sha256(f"{point} {name}".encode()).digest()
    return context(digits).mpf(int.from_bytes(digest[:6], "big")) / 2**47 + 0.25


@functools.lru_cache(8192)
def _value(
    tree: Tree, variables: tuple[str, ...], point: int, far: int, real: bool, digits: int
) -> tuple[Real, int, int] | None:
    """The value at a point, log2 of the smallest and of the largest size on the way; None if there is no value."""
    negative = _negative(variables, point)

    def coordinate(name: str) -> Real:
        size = _coordinate(name, point, digits) * far
        return -size if negative >> variables.index(name) & 1 else size

    sizes: list[int] = []
    try:
        value = evaluate(tree, context(digits), coordinate, real, sizes)
    except UndefinedError:
        return None
    except TooLargeError:
        if far > 1:
            return None
        raise
    return value, min(sizes, default=0), max(sizes, default=0)


def _enough(trees: tuple[Tree, Tree], low: int, high: int) -> int:
    """To how many digits the two must agree to be equal, by an estimate; log2 of all sizes is from `low` to `high`."""
    enough = 4 + (max(high, 0) - min(low, 0)) * 3 // 10 + 2 * sum(map(_digits, trees))
    return max(_DIGITS, enough * 5 // 2)


@functools.lru_cache(4096)
def _is_algebraic(tree: Tree) -> bool:
    if tree[0] in ("number", "name") or exact(tree) is not None:
        return True
    if tree[0] == "^":
        return _is_algebraic(tree[1]) and exact(tree[2]) is not None
    return tree[0] in _ALGEBRAIC and all(map(_is_algebraic, tree[1:]))


def _points(left: Tree, right: Tree, variables: tuple[str, ...]) -> list[tuple[int, int]]:
    """Pairs of a point and the factor by which it lies farther out."""
    if not variables:
        return [(0, 1)]
    if not (_tells_signs(left) or _tells_signs(right)):
        return [(point, 1) for point in range(_PLAIN)]
    count, far = _POSITIVE + 2 ** min(len(variables), _MAX_SIGNS), max(_largest(left), _largest(right))
    return [(point, 1) for point in range(count)] + [
        (point, 4 * min(int(far), 10**6)) for point in range(_POSITIVE - 1, count)
    ]


def _pairs(left: Tree, right: Tree) -> Iterator[tuple[Real, Real, Real]]:
    """Pairs of values, with the difference that counts as none, at the points where both have a value.

    Only real values, unless there is an `i`.

    Raises:
      UndefinedError: at the end, if there was no pair. TooLargeError: more digits would be needed than are computed.
    """
    found, both, none = names(left) | names(right), (left, right), True
    variables, real = tuple(sorted(found - _CONSTANTS)), "i" not in found
    for point, far in _points(left, right, variables):
        digits = _DIGITS
        while (a := _value(left, variables, point, far, real, digits)) and (
            b := _value(right, variables, point, far, real, digits)
        ):
            mp, low, high = context(digits), min(a[1], b[1]), max(a[2], b[2])
            nothing = mp.mpf(2) ** max(high, 0) * mp.mpf(10) ** -(digits * 3 // 5)
            enough = _enough(both, low, high)
            if abs(a[0] - b[0]) > nothing or digits >= enough:
                none = False
                yield a[0], b[0], nothing
                break
            while digits < enough:
                digits *= 2
            if digits > (_MAX_DIGITS if all(map(_is_algebraic, both)) else _MAX_ELEMENTARY_DIGITS):
                raise TooLargeError("more digits would be needed than are computed")
    if none:
        raise UndefinedError("there is no value to compare")


def equal(left: Tree, right: Tree) -> bool:
    """True if two formulas are equal.

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
    return all(abs(x - y) <= nothing for x, y, nothing in _pairs(left, right))


def proportional(left: Tree, right: Tree) -> int:
    """The sign of c if left = c · right with a constant c and neither is 0 everywhere, else 0. Raises like `equal`."""
    pairs = list(_pairs(left, right))
    first_left, first_right, nothing = pairs[0]
    if len(pairs) < 2 or abs(first_left) <= nothing or abs(first_right) <= nothing:
        return 0
    for x, y, nothing in pairs[1:]:
        if abs(x * first_right - y * first_left) > nothing * (abs(first_left) + abs(first_right)):
            return 0
    return 1 if context(_DIGITS).re(first_left / first_right) > 0 else -1


def value(tree: Tree) -> Real:
    """The real number that a formula without variables is. Raises like `equal`, also if it has variables."""
    if names(tree) - {"e"}:
        raise UnsupportedError("not a real number")
    found = _value(tree, (), 0, 1, True, _DIGITS)
    if found is None:
        raise UndefinedError("there is no value")
    return found[0]


def rounds_to(tree: Tree, decimal: str) -> bool:
    """True if `decimal` is the number `tree`, with more digits than it shows, rounded to them. Raises like `value`."""
    places = len(decimal.partition(".")[2])
    rational = exact(tree)
    if rational is not None and (rational * 10**places).denominator == 1:
        return False  # shows all its digits: then only the same number is equal to it
    difference = abs(value(tree) - value(("number", Fraction(decimal))))
    return bool(difference * 10**places <= 0.5)
