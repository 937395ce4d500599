"""The forms that an answer can have."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Formula:
    """A formula, and what was written around it.

    Attributes:
      text: cleaned LaTeX.
      unit: what follows it, e.g. `cm^2`, `°` or `""`.
      percent: whether `%` follows it.
      base: of the digits that `text` then is, or None.
    """

    text: str
    unit: str = ""
    percent: bool = False
    base: str | None = None


@dataclass(frozen=True)
class Words:
    text: str


@dataclass(frozen=True)
class Group:
    """Several values. `kind`: `tuple` (in order), `set` (in braces), `list` (side by side, in no order) or `ratio`."""

    kind: str
    items: tuple["Answer", ...]


@dataclass(frozen=True)
class Interval:
    """From `lower` to `upper`; `brackets` says of each end whether it belongs to it, as `[]`, `[)`, `(]` or `()`."""

    brackets: str
    lower: "Answer"
    upper: "Answer"


@dataclass(frozen=True)
class Union:
    parts: tuple["Answer", ...]


@dataclass(frozen=True)
class Intersection:
    parts: tuple["Answer", ...]


@dataclass(frozen=True)
class Without:
    """The elements of `whole` that are not in `removed`."""

    whole: "Answer"
    removed: "Answer"


@dataclass(frozen=True)
class Time:
    """A time of day. `half`: `am`, `pm`, or `""` if it is not said or the hours are counted to 24."""

    hour: int
    minute: int
    second: int | None
    half: str


@dataclass(frozen=True)
class Matrix:
    rows: tuple[tuple["Answer", ...], ...]
    text: str  # as it was written


@dataclass(frozen=True)
class Named:
    """`name = value` or `name in value`, where the left side is a name, as `x`, `f(x)`, `(p, q)`, and no condition."""

    name: str
    value: "Answer"
    relation: "Relation | None" = None  # the same as an equation


@dataclass(frozen=True)
class Relation:
    """A chain `sides[0] operators[0] sides[1] …` with `=`, `<`, `>`, `\\le`, `\\ge`, `\\ne`."""

    operators: tuple[str, ...]
    sides: tuple[str, ...]


Answer = Formula | Words | Group | Interval | Union | Intersection | Without | Time | Matrix | Named | Relation
