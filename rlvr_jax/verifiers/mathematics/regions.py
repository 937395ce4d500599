r"""Sets of real numbers: intervals, inequalities, unions, intersections and differences, compared by their elements."""

import functools
import operator
import re
from collections.abc import Iterator

from rlvr_jax.verifiers.mathematics import expression, numeric
from rlvr_jax.verifiers.mathematics.forms import (
    Answer,
    Formula,
    Group,
    Intersection,
    Interval,
    Relation,
    Union,
    Without,
)
from rlvr_jax.verifiers.mathematics.structure import read

FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", "=": "=", r"\ne": r"\ne"}
LOWEST, HIGHEST = Formula(r"-\infty"), Formula(r"\infty")
_VARIABLE = re.compile(r"[a-zA-Z]|\\[a-z]+")

Region = Interval | Union | Intersection | Without


def as_region(answer: Answer) -> Region | None:
    r"""The region of an inequality for one variable, or of a list of them: `1 < x \le 2` is `(1, 2]`. None if nothing.

    Two inequalities that leave an interval between them hold both, and so do all where one is `\ne`; others are
    alternatives.
    """
    if isinstance(answer, Interval | Union | Intersection | Without):
        return answer
    if isinstance(answer, Group) and answer.kind == "list":
        inequalities = [item for item in answer.items if isinstance(item, Relation)]
        parts = tuple(part for item in inequalities if (part := _inequality(item)) is not None)
        if len(parts) < max(len(answer.items), 1):
            return None
        if len(parts) == 2 and (between := _between(*parts) or _between(*reversed(parts))):
            return between
        excluded = any(r"\ne" in item.operators for item in inequalities)
        return Intersection(parts) if excluded else Union(parts)
    return _inequality(answer) if isinstance(answer, Relation) else None


def _inequality(relation: Relation) -> Region | None:
    operators, sides = list(relation.operators), list(relation.sides)
    if "=" in operators:
        return None
    if all(sign in (">", r"\ge") for sign in operators):
        operators, sides = [FLIPPED[sign] for sign in reversed(operators)], sides[::-1]
    places = [index for index, side in enumerate(sides) if _VARIABLE.fullmatch(side) and side != r"\infty"]
    if len(places) != 1 or len(sides) > 3:
        return None
    (place,) = places
    if operators == [r"\ne"]:
        point = read(sides[1 - place])
        return Union((Interval("()", LOWEST, point), Interval("()", point, HIGHEST)))
    if not all(sign in ("<", r"\le") for sign in operators) or (len(sides) == 3 and place != 1):
        return None
    left = "[" if place > 0 and operators[place - 1] == r"\le" else "("
    right = "]" if place < len(operators) and operators[place] == r"\le" else ")"
    high = read(sides[-1]) if place == 0 or len(sides) == 3 else HIGHEST
    return Interval(left + right, read(sides[0]) if place > 0 else LOWEST, high)


def _between(left: Region, right: Region) -> Interval | None:
    """The interval from `x > 1` and `x < 3`, or None if the two do not overlap: then they are alternatives."""
    if not (isinstance(left, Interval) and isinstance(right, Interval)):
        return None
    low, high = left.lower, right.upper
    if (left.upper, right.lower) != (HIGHEST, LOWEST) or not (isinstance(low, Formula) and isinstance(high, Formula)):
        return None
    try:
        overlap = numeric.value(expression.parse(low.text)) < numeric.value(expression.parse(high.text))
    except ValueError:
        return None
    return Interval(left.brackets[0] + right.brackets[1], low, high) if overlap else None


def as_interval(answer: Answer) -> Answer:
    """A pair in round brackets as the open interval that it also is; an inequality as its region."""
    if isinstance(answer, Group) and answer.kind == "tuple" and len(answer.items) == 2:
        return Interval("()", *answer.items)
    return as_region(answer) or answer


# --- by elements: the ends cut the line into points and gaps, and a region is a set of those, here as bits


def _ends(answer: Answer) -> Iterator[Answer]:
    answer = as_interval(answer)
    if isinstance(answer, Interval):
        yield from (end for end in (answer.lower, answer.upper) if end not in (LOWEST, HIGHEST))
    elif isinstance(answer, Group):
        yield from answer.items
    elif isinstance(answer, Union | Intersection):
        for part in answer.parts:
            yield from _ends(part)
    elif isinstance(answer, Without):
        yield from _ends(answer.whole)
        yield from _ends(answer.removed)
    else:
        raise expression.UnsupportedError("not a set of numbers")


def _tree(end: Answer) -> expression.Tree:
    if not isinstance(end, Formula) or end.percent or end.base:
        raise expression.UnsupportedError("an end that is not a number")
    return expression.parse(end.text)


def _bits(answer: Answer, places: dict[Answer, int], count: int) -> int:
    """Bit 2k stands for the gap before point k, bit 2k + 1 for point k, of `count` points."""
    answer = as_interval(answer)
    if isinstance(answer, Interval):
        low = 0 if answer.lower == LOWEST else 2 * places[answer.lower] + 1 + (answer.brackets[0] == "(")
        high = 2 * count if answer.upper == HIGHEST else 2 * places[answer.upper] + (answer.brackets[1] == "]")
        if low > high + 1 or (low == high + 1 and answer.brackets != "()"):
            raise expression.UnsupportedError("an interval from a number to a smaller one")
        return (1 << (high + 1)) - (1 << low)
    if isinstance(answer, Group):
        if answer.kind != "set":
            raise expression.UnsupportedError("not a set")
        return functools.reduce(operator.or_, (1 << 2 * places[item] + 1 for item in answer.items), 0)
    if isinstance(answer, Without):
        return _bits(answer.whole, places, count) & ~_bits(answer.removed, places, count)
    assert isinstance(answer, Union | Intersection)
    combine = operator.or_ if isinstance(answer, Union) else operator.and_
    return functools.reduce(combine, (_bits(part, places, count) for part in answer.parts))


def same_region(left: Answer, right: Answer) -> bool | None:
    """True if two regions have the same elements; None if their ends are not all real numbers."""
    try:
        ends = {end: _tree(end) for side in (left, right) for end in _ends(side)}
        ordered = sorted(ends, key=lambda end: numeric.value(ends[end]))
        places: dict[Answer, int] = {}
        for index, end in enumerate(ordered):
            same_as_before = index > 0 and numeric.equal(ends[ordered[index - 1]], ends[end])
            places[end] = len(set(places.values())) - same_as_before
        count = len(set(places.values()))
        return _bits(left, places, count) == _bits(right, places, count)
    except expression.TooLargeError:
        raise
    except ValueError:
        return None
