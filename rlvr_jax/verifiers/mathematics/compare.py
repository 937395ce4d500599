r"""Comparison of an answer with the gold answer, form by form.

`leaf` defines the leaves and their equality. A name (`x =`, `x \in`) may be added or left out.
"""

import re
from collections.abc import Sequence

from rlvr_jax.verifiers.mathematics import expression, numeric
from rlvr_jax.verifiers.mathematics.clock import dial, same_time
from rlvr_jax.verifiers.mathematics.forms import (
    Answer,
    Formula,
    Group,
    Intersection,
    Interval,
    Matrix,
    Named,
    Relation,
    Time,
    Union,
    Without,
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
from rlvr_jax.verifiers.mathematics.regions import FLIPPED, as_interval, as_region, same_region
from rlvr_jax.verifiers.mathematics.structure import read

_COMBINED = (Union, Intersection, Without)
_MAX_PAIRS = 1600  # of items of two collections that are compared
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_BRACKETED_NUMBER = re.compile(r"\(\s*([-+]?[1-9]\d{0,2}(?:,\d{3})+)\s*\)")
_DECIMAL_COMMA = re.compile(r"([-+]?(?:0|\d+(?!,\d{3}(?!\d)))),(\d+[^\d,;]*)")  # not 1,234
_OPTION = re.compile(r"\(?([A-J])\)?[.)]?")
_OPTION_AND_VALUE = re.compile(  # (C) 12, \text{(C)} 12, C. 12; not if another option is named
    r"(?:\\text\s*\{\s*(?:\((?P<a>[A-J])\)|(?P<b>[A-J])[.:)])\s*\}|\((?P<c>[A-J])\)\s|(?P<d>[A-J])[.:)]\s)\s*[.:]?\s*"
    r"(?!.*(?<![A-Za-z\\])[A-J](?![A-Za-z]))(?P<value>[^\s*/^=].*)",
    re.DOTALL,
)


def same(reference: Answer, answer: Answer, rules: Rules) -> bool:
    """True if the two are equal. Raises `TooLargeError` if a value is beyond the bounds of `expression`."""
    if reference == answer:
        return True
    if isinstance(reference, Words) or isinstance(answer, Words):
        return _same_words(reference, answer, rules)
    if isinstance(reference, Time) and isinstance(answer, Time):
        return same_time(reference, answer)
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
    if "," in answer and "," not in reference and (number := _one_number(answer)) is not None:
        right = read(reference)
        if isinstance(right.value if isinstance(right, Named) else right, Formula):
            answer = number
    readings = [True] if "," not in reference + answer else [True, False]
    return any(same(read(reference, way), read(answer, way), rules) for way in readings)


def _one_number(text: str) -> str | None:
    """A number with one comma or more, `(1,000)` or `2,74`, without the comma, for a reference that has none."""
    if found := _BRACKETED_NUMBER.fullmatch(text):
        return found[1].replace(",", "")
    found = _DECIMAL_COMMA.fullmatch(text)
    return f"{found[1]}.{found[2]}" if found else None


def _option(text: str) -> tuple[str, str]:
    """The letter of an option of a multiple choice, and the value that follows it; `""` for what is not there."""
    if found := _OPTION_AND_VALUE.fullmatch(text):
        return found["a"] or found["b"] or found["c"] or found["d"], found["value"]
    alone = _OPTION.fullmatch(_TEXT.sub(r"\1", text).strip(" ."))
    return (alone[1], "") if alone else ("", "")


def _is_prose(text: str) -> bool:
    """True if a text is words with nothing to calculate, however they are punctuated."""
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
        solution = as_region(other)
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
        found = as_region(relation) or _result(relation)
        if found is None:
            return False
        return same(*((found, other) if relation is reference else (other, found)), rules)
    if len(reference.operators) != len(answer.operators):
        return False
    flipped = Relation(tuple(FLIPPED[o] for o in reversed(answer.operators)), tuple(reversed(answer.sides)))
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
    return sign != 0 and operator == (other_operator if sign > 0 else FLIPPED[other_operator])


# --- collections


def _kind(answer: Answer) -> str:
    return answer.kind if isinstance(answer, Group) else ""


def _items(answer: Answer) -> tuple[Answer, ...]:
    return answer.items if isinstance(answer, Group) else (answer,)


def _operands(answer: Answer) -> tuple[Answer, ...]:
    return (answer.whole, answer.removed) if isinstance(answer, Without) else answer.parts


def _in_order(reference: Sequence[Answer], answer: Sequence[Answer], rules: Rules) -> bool:
    return len(reference) == len(answer) and all(same(a, b, rules) for a, b in zip(reference, answer, strict=True))


def _partners(reference: Sequence[Answer], answer: Sequence[Answer], rules: Rules) -> list[list[bool]]:
    return [[same(a, b, rules) for b in answer] for a in reference]


def _as_sets(reference: Sequence[Answer], answer: Sequence[Answer], rules: Rules) -> bool:
    """True if each has a partner on the other side. Bounded: sets with more than 40 items are compared in order."""
    if len(reference) * len(answer) > _MAX_PAIRS:
        return _in_order(reference, answer, rules)
    table = _partners(reference, answer, rules)
    return all(map(any, table)) and all(any(row[column] for row in table) for column in range(len(answer)))


def _one_to_one(reference: Sequence[Answer], answer: Sequence[Answer], rules: Rules) -> bool:
    """True if each has a partner of its own on the other side, in any order. Bounded like `_as_sets`."""
    if len(reference) != len(answer) or len(reference) * len(answer) > _MAX_PAIRS:
        return _in_order(reference, answer, rules)
    table, taken = _partners(reference, answer, rules), dict[int, int]()

    def place(row: int, tried: set[int]) -> bool:
        for column, fits in enumerate(table[row]):
            if fits and column not in tried:
                tried.add(column)
                if column not in taken or place(taken[column], tried):
                    taken[column] = row
                    return True
        return False

    return all(place(row, set()) for row in range(len(table)))


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
    reference, answer = (as_region(side) or _vector(side) for side in (reference, answer))
    if isinstance(reference, _COMBINED) or isinstance(answer, _COMBINED):
        verdict = same_region(reference, answer)
        if verdict is None and type(reference) is type(answer):
            left, right = (tuple(map(as_interval, _operands(side))) for side in (reference, answer))
            return (_in_order if isinstance(reference, Without) else _one_to_one)(left, right, rules)
        return bool(verdict)
    if isinstance(reference, Interval) or isinstance(answer, Interval):
        reference, answer = as_interval(reference), as_interval(answer)
        return (
            isinstance(reference, Interval)
            and isinstance(answer, Interval)
            and reference.brackets == answer.brackets
            and _in_order((reference.lower, reference.upper), (answer.lower, answer.upper), rules)
        )
    if _kind(reference) == "ratio" and isinstance(answer, Time) and not answer.half:
        answer = Group("ratio", tuple(Formula(str(part)) for part in dial(answer)))  # 6:10 for 3:5
    kinds = {_kind(reference), _kind(answer)}
    if "ratio" in kinds:
        return _same_ratio(reference, answer)
    if isinstance(reference, Matrix) or isinstance(answer, Matrix):
        return False
    if kinds == {"tuple"} or kinds == {"tuple", "list"}:
        return _in_order(_items(reference), _items(answer), rules)
    if "tuple" in kinds:  # only {(1, 2)} may be (1, 2)
        left, right = (_items(side) if _kind(side) == "set" else (side,) for side in (reference, answer))
        return kinds == {"tuple", "set"} and len(left) == len(right) == 1 and same(left[0], right[0], rules)
    if kinds == {""}:
        return False
    left, right = _items(reference), _items(answer)
    # A list may say a number twice on purpose, as of a double root. Points are solutions, which are a set.
    as_sets = kinds == {"set"} or "" in kinds or all(_kind(item) == "tuple" for item in (*left, *right))
    return bool(left) == bool(right) and (_as_sets if as_sets else _one_to_one)(left, right, rules)


def _same_ratio(reference: Answer, answer: Answer) -> bool:
    """True if two ratios, or a ratio of two numbers and a quotient, are equal. With a zero in it, none is."""
    sides = []
    for side in (reference, answer):
        items = _items(side)
        if _kind(side) not in ("ratio", "") or not all(
            isinstance(item, Formula) and not item.base and not item.percent for item in items
        ):
            return False
        sides.append([item.text for item in items if isinstance(item, Formula)])
    left, right = (side if len(side) > 1 else [side[0], "1"] for side in sides)
    if len(left) != len(right) or any(same_value("0", part, _WITHOUT_SYMBOLIC) for part in (*left, *right)):
        return False
    return all(
        same_value(f"({left[0]})*({b})", f"({right[0]})*({a})", _WITHOUT_SYMBOLIC)
        for a, b in zip(left[1:], right[1:], strict=True)
    )
