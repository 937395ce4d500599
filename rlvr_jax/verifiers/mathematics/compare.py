r"""Whether an answer says the same as the reference, form by form.

What the leaves are and when they are equal: see `leaf`. A name (`x =`, `x \in`) may be added or left out.
"""

import re
from collections.abc import Sequence

from rlvr_jax.verifiers.mathematics import expression, numeric
from rlvr_jax.verifiers.mathematics.forms import (
    Answer,
    Formula,
    Group,
    Interval,
    Matrix,
    Named,
    Relation,
    Union,
    Words,
)
from rlvr_jax.verifiers.mathematics.latex import compact
from rlvr_jax.verifiers.mathematics.leaf import (
    OPERATORS,
    Rules,
    latex,
    same_formula,
    same_value,
    same_words,
    written,
)
from rlvr_jax.verifiers.mathematics.structure import read

_FLIPPED = {"<": ">", ">": "<", r"\le": r"\ge", r"\ge": r"\le", "=": "=", r"\ne": r"\ne"}
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_OPTION = re.compile(r"\(?([A-J])\)?[.)]?")
_OPTION_AND_VALUE = re.compile(  # (C) 12, \text{(C)} 12, C. 12; not if another option is named
    r"(?:\\text\s*\{\s*(?:\((?P<a>[A-J])\)|(?P<b>[A-J])[.:)])\s*\}|\((?P<c>[A-J])\)\s|(?P<d>[A-J])[.:)]\s)\s*[.:]?\s*"
    r"(?!.*(?<![A-Za-z\\])[A-J](?![A-Za-z]))(?P<value>[^\s*/^=].*)",
    re.DOTALL,
)


def same(reference: Answer, answer: Answer, rules: Rules) -> bool:
    """Whether the two are equal. Raises `TooLargeError` if a value is beyond the bounds of `expression`."""
    if reference == answer:
        return True
    if isinstance(reference, Words) or isinstance(answer, Words):
        return _same_words(reference, answer, rules)
    if isinstance(reference, Named) or isinstance(answer, Named):
        return _same_named(reference, answer, rules)
    if isinstance(reference, Relation) or isinstance(answer, Relation):
        return _same_relation(reference, answer, rules)
    if isinstance(reference, Formula) and isinstance(answer, Formula):
        return same_formula(reference, answer, rules)
    return _same_collection(reference, answer, rules)


def same_text(reference: str, answer: str, rules: Rules) -> bool:
    """`same` for cleaned texts; where a comma may be of thousands or between numbers, they are read in both ways."""
    if compact(reference) == compact(answer):
        return True
    if _is_prose(reference) and _is_prose(answer):
        return same_words(reference, answer)
    (right, right_value), (said, said_value) = _option(reference), _option(answer)
    if said_value or right_value:
        if right and said:
            return right == said
        return same_text(right_value or reference, said_value or answer, rules)
    readings = [True] if "," not in reference + answer else [True, False]
    return any(same(read(reference, way), read(answer, way), rules) for way in readings)


def _option(text: str) -> tuple[str, str]:
    """The letter of an option of a multiple choice, and the value that follows it; `""` for what is not there."""
    if found := _OPTION_AND_VALUE.fullmatch(text):
        return found["a"] or found["b"] or found["c"] or found["d"], found["value"]
    alone = _OPTION.fullmatch(_TEXT.sub(r"\1", text).strip(" ."))
    return (alone[1], "") if alone else ("", "")


def _is_prose(text: str) -> bool:
    """Whether a text is words with nothing to calculate, however they are punctuated."""
    return re.fullmatch(r"[^\d\\={}<>^_]+", text) is not None and isinstance(read(re.sub(r"[,;:]", " ", text)), Words)


def _same_words(reference: Answer, answer: Answer, rules: Rules) -> bool:
    if isinstance(reference, Named) or isinstance(answer, Named):
        names = isinstance(reference, Named), isinstance(answer, Named)
        return names != (True, True) and same(
            reference.value if names[0] else reference, answer.value if names[1] else answer, rules
        )
    right, said = written(reference), written(answer)
    return right is not None and said is not None and same_words(right, said)


# --- names and relations


def _same_named(reference: Answer, answer: Answer, rules: Rules) -> bool:
    if isinstance(reference, Named) and isinstance(answer, Named):
        if reference.name == answer.name or reference.name.startswith(r"\text") or answer.name.startswith(r"\text"):
            return same(reference.value, answer.value, rules)
        reordered = _reordered(answer, reference.name)
        if reordered is not None:
            return same(reference.value, reordered, rules)
        if reference.relation and answer.relation:
            return _same_relation(reference.relation, answer.relation, rules)
        return False
    if isinstance(reference, Relation) or isinstance(answer, Relation):
        named, other = (reference, answer) if isinstance(reference, Named) else (answer, reference)
        assert isinstance(named, Named)
        if named.relation:
            sides = (reference, named.relation) if named is answer else (named.relation, answer)
            if _same_relation(*sides, rules):
                return True
        solution = _as_set(other)
        if named.relation is None and solution is not None:
            return same(*((solution, named.value) if named is answer else (named.value, solution)), rules)
        if isinstance(other, Relation):  # x = 1/2 + 1/6 = 2/3
            result = _result(other)
            if result is not None:
                return same(*((result, named.value) if named is answer else (named.value, result)), rules)
        return False
    left = reference.value if isinstance(reference, Named) else reference
    right = answer.value if isinstance(answer, Named) else answer
    return same(left, right, rules)


def _reordered(answer: Named, name: str) -> Answer | None:
    """The tuple, or list of tuples, for the names `(y,x)` in the order `(x,y)`, or None if the names are others."""
    have, want = answer.name.strip("()").split(","), name.strip("()").split(",")
    if len(set(have)) < 2 or sorted(have) != sorted(want) or len(set(have)) < len(have):
        return None

    def reorder(value: Answer) -> Answer:
        if isinstance(value, Group) and value.kind == "list":
            return Group("list", tuple(map(reorder, value.items)))
        if isinstance(value, Group) and value.kind == "tuple" and len(value.items) == len(have):
            return Group("tuple", tuple(value.items[have.index(item)] for item in want))
        return value

    return reorder(answer.value)


def _result(relation: Relation) -> Answer | None:
    """The value of a computation `name = … = value` whose sides are all equal, or None."""
    if set(relation.operators) != {"="}:
        return None
    sides = list(relation.sides)
    if isinstance(read(f"{sides[0]}=0"), Named):
        sides = sides[1:]
    last = read(sides[-1])
    for side in sides[:-1]:
        if not OPERATORS.search(side) and not _matches(read(side), last):
            return None
    return last


_WITHOUT_SYMBOLIC = Rules(lambda _reference, _answer: False)


def _matches(left: Answer, right: Answer) -> bool:
    try:
        return same(left, right, _WITHOUT_SYMBOLIC)
    except ValueError:
        return False


def _difference(left: str, right: str) -> expression.Tree:
    return ("-", expression.parse(left), expression.parse(right))


def _same_relation(reference: Answer, answer: Answer, rules: Rules) -> bool:
    if not (isinstance(reference, Relation) and isinstance(answer, Relation)):
        relation, other = (reference, answer) if isinstance(reference, Relation) else (answer, reference)
        assert isinstance(relation, Relation)
        found = _as_set(relation) or _result(relation)
        if found is None:
            return False
        return same(*((found, other) if relation is reference else (other, found)), rules)
    if len(reference.operators) != len(answer.operators):
        return False
    flipped = Relation(tuple(_FLIPPED[o] for o in reversed(answer.operators)), tuple(reversed(answer.sides)))
    for other in (answer, flipped):
        if reference.operators == other.operators and all(
            same_text(a, b, rules) for a, b in zip(reference.sides, other.sides, strict=True)
        ):
            return True
    if len(reference.operators) > 1:
        return False
    (operator,), (other_operator,) = reference.operators, answer.operators
    try:
        sign = numeric.proportional(_difference(*reference.sides), _difference(*answer.sides))
    except ValueError:
        return False
    return sign != 0 and operator == (other_operator if sign > 0 else _FLIPPED[other_operator])


def _between(left: Answer | None, right: Answer | None) -> Interval | None:
    """The interval from `x > 1` and `x < 3`, or None if the two do not overlap: then they are alternatives."""
    if not (isinstance(left, Interval) and isinstance(right, Interval)):
        return None
    low, high = left.lower, right.upper
    if (left.upper, right.lower) != (Formula(r"\infty"), Formula(r"-\infty")) or Formula(r"\infty") == high:
        return None
    try:
        ends = [numeric.value(expression.parse(end.text)) for end in (low, high) if isinstance(end, Formula)]
    except ValueError:
        return None
    return Interval(left.brackets[0] + right.brackets[1], low, high) if len(ends) == 2 and ends[0] < ends[1] else None


def _as_set(answer: Answer) -> Answer | None:
    r"""The interval or union that an inequality for one variable stands for, or None: `1 < x \le 2` is `(1, 2]`."""
    if isinstance(answer, Group) and answer.kind == "list":
        parts = [_as_set(item) for item in answer.items]
        if len(parts) == 2 and (between := _between(parts[0], parts[1]) or _between(parts[1], parts[0])):
            return between
        return None if None in parts else Union(tuple(part for part in parts if part is not None))
    if not isinstance(answer, Relation) or "=" in answer.operators:
        return None
    operators, sides = list(answer.operators), list(answer.sides)
    if all(operator in (">", r"\ge") for operator in operators):
        operators, sides = [_FLIPPED[operator] for operator in reversed(operators)], sides[::-1]
    variable = re.compile(r"[a-zA-Z]|\\[a-z]+")
    places = [index for index, side in enumerate(sides) if variable.fullmatch(side) and side != r"\infty"]
    if len(places) != 1 or len(sides) > 3:
        return None
    (place,), low, high = places, Formula(r"-\infty"), Formula(r"\infty")
    if operators == [r"\ne"]:
        point = read(sides[1 - place])
        return Union((Interval("()", low, point), Interval("()", point, high)))
    if not all(operator in ("<", r"\le") for operator in operators) or (len(sides) == 3 and place != 1):
        return None
    left = "[" if place > 0 and operators[place - 1] == r"\le" else "("
    right = "]" if place < len(operators) and operators[place] == r"\le" else ")"
    return Interval(
        left + right, read(sides[0]) if place > 0 else low, read(sides[-1]) if place == 0 or len(sides) == 3 else high
    )


# --- collections


def _kind(answer: Answer) -> str:
    return answer.kind if isinstance(answer, Group) else ""


def _items(answer: Answer) -> tuple[Answer, ...]:
    return answer.items if isinstance(answer, Group) else (answer,)


def _interval(answer: Answer) -> Answer:
    """A pair in round brackets as the open interval that it also is; an inequality as its interval."""
    if isinstance(answer, Group) and answer.kind == "tuple" and len(answer.items) == 2:
        return Interval("()", *answer.items)
    return _as_set(answer) or answer


def _in_order(reference: Sequence[Answer], answer: Sequence[Answer], rules: Rules) -> bool:
    return len(reference) == len(answer) and all(same(a, b, rules) for a, b in zip(reference, answer, strict=True))


def _as_sets(reference: Sequence[Answer], answer: Sequence[Answer], rules: Rules) -> bool:
    """Whether each has a partner on the other side. Bounded: sets with more than 40 items are compared in order."""
    if len(reference) * len(answer) > 1600:
        return _in_order(reference, answer, rules)
    table = [[same(a, b, rules) for b in answer] for a in reference]
    return all(any(row) for row in table) and all(any(row[column] for row in table) for column in range(len(answer)))


def _vector(answer: Answer) -> Answer:
    if isinstance(answer, Matrix) and (len(answer.rows) == 1 or all(len(row) == 1 for row in answer.rows)):
        return Group("tuple", tuple(cell for row in answer.rows for cell in row))
    return answer


def _same_collection(reference: Answer, answer: Answer, rules: Rules) -> bool:
    if isinstance(reference, Matrix) and isinstance(answer, Matrix):
        return len(reference.rows) == len(answer.rows) and all(
            _in_order(a, b, rules) for a, b in zip(reference.rows, answer.rows, strict=True)
        )
    if isinstance(reference, Matrix) and isinstance(answer, Formula):  # a product of matrices
        return r"\begin" in answer.text and rules.symbolic(latex(reference.text), latex(answer.text))
    reference, answer = (_as_set(side) or _vector(side) for side in (reference, answer))
    if isinstance(reference, Union) or isinstance(answer, Union):
        left = reference.parts if isinstance(reference, Union) else _parts(reference)
        right = answer.parts if isinstance(answer, Union) else _parts(answer)
        return _as_sets([_interval(part) for part in left], [_interval(part) for part in right], rules)
    if isinstance(reference, Interval) or isinstance(answer, Interval):
        reference, answer = _interval(reference), _interval(answer)
        return (
            isinstance(reference, Interval)
            and isinstance(answer, Interval)
            and reference.brackets == answer.brackets
            and _in_order((reference.lower, reference.upper), (answer.lower, answer.upper), rules)
        )
    kinds = {_kind(reference), _kind(answer)}
    if kinds == {"ratio"}:
        return _same_ratio(_items(reference), _items(answer), rules)
    if "ratio" in kinds or isinstance(reference, Matrix) or isinstance(answer, Matrix):
        return False
    if kinds == {"tuple"} or kinds == {"tuple", "list"}:
        return _in_order(_items(reference), _items(answer), rules)
    if "tuple" in kinds:  # only {(1, 2)} may be (1, 2)
        left, right = (_items(side) if _kind(side) == "set" else (side,) for side in (reference, answer))
        return kinds == {"tuple", "set"} and len(left) == len(right) == 1 and same(left[0], right[0], rules)
    return bool(_items(reference)) == bool(_items(answer)) and _as_sets(_items(reference), _items(answer), rules)


def _parts(answer: Answer) -> tuple[Answer, ...]:
    """The parts of a union that was written in another way: as a list of inequalities, or as one interval."""
    found = _as_set(answer)
    return found.parts if isinstance(found, Union) else (answer,)


def _same_ratio(reference: Sequence[Answer], answer: Sequence[Answer], rules: Rules) -> bool:
    if len(reference) != len(answer) or not all(isinstance(item, Formula) for item in (*reference, *answer)):
        return False
    if _in_order(reference, answer, rules):
        return True
    left, right = ([item.text for item in side if isinstance(item, Formula)] for side in (reference, answer))
    return all(
        same_value(f"({left[0]})*({b})", f"({right[0]})*({a})", _WITHOUT_SYMBOLIC) and "0" not in (left[0], right[0])
        for a, b in zip(left[1:], right[1:], strict=True)
    )
