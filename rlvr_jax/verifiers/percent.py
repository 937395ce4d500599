"""Percent signs: two conventions, the same for every verifier that compares numbers (option `percent`).

| convention | 30% for gold 30 | 30 for gold 30% | 30% for gold 0.3 | 0.3 for gold 30% | 300% for gold 3 |
|------------|-----------------|-----------------|------------------|------------------|-----------------|
| `unit`     | right           | right           | right            | right            | wrong           |
| `value`    | wrong           | wrong           | right            | right            | right           |

As a unit the sign may be omitted or added, like `cm`, since the question asked "what percent": many gold answers of
MATH and GSM8K omit it, and MATH's own checker ignores it. But a gold answer of at most 1 in absolute value is a share:
then `30%` stands for 0.3, and `0.3%` is never correct for 0.3.
"""

from fractions import Fraction

CONVENTIONS = ("unit", "value")
DEFAULT = "unit"


def check(convention: str) -> None:
    """Raises ValueError if there is no such convention."""
    if convention not in CONVENTIONS:
        raise ValueError(f"percent is {' or '.join(map(repr, CONVENTIONS))}, not {convention!r}")


def factors(gold: bool, answer: bool, convention: str, share: bool) -> tuple[Fraction, ...]:
    """The factors by which the number of the answer may be multiplied to equal that of the gold answer.

    Args:
      gold: whether the gold answer has a percent sign.
      answer: whether the answer has one.
      convention: one of `CONVENTIONS`.
      share: whether the number of the gold answer is at most 1 in absolute value.
    """
    if gold == answer:
        return (Fraction(1),)
    by_value = Fraction(1, 100) if answer else Fraction(100)
    if convention == "value" or (answer and share):
        return (by_value,)
    return (Fraction(1),) if answer else (by_value, Fraction(1))
