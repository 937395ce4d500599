"""Percent signs: two conventions, the same for every verifier that compares numbers (option `percent`).

| convention | gold 30, answer 30% | gold 30%, answer 30 | gold 0.3, answer 30%, and the reverse |
|------------|---------------------|---------------------|---------------------------------------|
| `unit`     | equal               | equal               | equal                                 |
| `value`    | different           | different           | equal                                 |

As a unit the sign may be left out or added, like `cm`, since the question asked "what percent": many gold answers of
MATH and GSM8K leave it out, and MATH's own checker ignores it. Added to a gold answer below 1 in size it is no unit but
a slip: `0.3%` is never right for 0.3.
"""

from fractions import Fraction

CONVENTIONS = ("unit", "value")
DEFAULT = "unit"


def check(convention: str) -> None:
    """Raises ValueError if there is no such convention."""
    if convention not in CONVENTIONS:
        raise ValueError(f"percent is {' or '.join(map(repr, CONVENTIONS))}, not {convention!r}")


def factors(gold: bool, answer: bool, convention: str, gold_below_1: bool) -> tuple[Fraction, ...]:
    """By what the number before the answer's sign may be multiplied to be equal to the number before the gold's.

    Args:
      gold: whether the gold answer has a percent sign.
      answer: whether the answer has one.
      convention: one of `CONVENTIONS`.
      gold_below_1: whether the number of the gold answer is below 1 in size.
    """
    if gold == answer:
        return (Fraction(1),)
    by_value = Fraction(1, 100) if answer else Fraction(100)
    as_unit = convention == "unit" and not (answer and gold_below_1)
    return (by_value, Fraction(1)) if as_unit else (by_value,)
