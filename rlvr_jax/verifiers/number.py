"""The `####` number of GSM8K: a worked solution ends with `#### 72`, and only that number is compared.

The convention is that of the data set (https://github.com/openai/grade-school-math). Its own checker searches for the
first `#### number` and ignores the rest of the line; here the last `####` line that is no heading counts, since it is
the final answer, and a hedged line (`#### 3 or 4`) has no answer.
"""

from fractions import Fraction

from rlvr_jax.verifiers import percent as percent_signs
from rlvr_jax.verifiers.mathematics import GRADERS, by_math_verify, check_grader
from rlvr_jax.verifiers.mathematics.extract import extract
from rlvr_jax.verifiers.mathematics.quantity import MAX_QUANTITY, Quantity, quantity
from rlvr_jax.verifiers.verdict import Verdict

MAX_DIGITS = 40  # of an answer


def canonical_number(text: str) -> str:
    """The canonical form of the number in `text`: `$1,080.50` → `1080.5`, `-0` → `0`. Equal numbers, equal results.

    `quantity` lists what is accepted besides digits (currency, groups of digits, names of units). A unit and a percent
    sign are ignored.

    Raises:
      ValueError: `text` is anything else, or longer than the bounds of this module.
    """
    return _canonical(_number(text))


def _number(text: str) -> Quantity:
    text = text.strip()
    if len(text) > MAX_QUANTITY:
        raise ValueError(f"the answer line is longer than {MAX_QUANTITY} characters")
    if text.startswith("(") and text.endswith(")"):
        text = text[1:-1]
    found = quantity(text)
    if found is None:
        raise ValueError(f"{text!r} is not one number")
    if (digits := len(found.whole) + len(found.decimals)) > MAX_DIGITS:
        raise ValueError(f"a number of {digits} digits, more than {MAX_DIGITS}")
    return found


def _canonical(found: Quantity) -> str:
    whole, decimals = found.whole.lstrip("0") or "0", found.decimals.rstrip("0")
    magnitude = f"{whole}.{decimals}" if decimals else whole
    return f"-{magnitude}" if found.negative and magnitude != "0" else magnitude


def verify(completion: str, reference: str, percent: str = percent_signs.DEFAULT, grader: str = GRADERS[0]) -> Verdict:
    """Scores 1 if the number on the last `####` line of the completion that is no heading equals `reference`.

    The comparison is exact: `18.00` is `18`, `17.999` is not. `answer` is the canonical number.

    Args:
      completion: the policy's text.
      reference: the gold answer, such as `1,080`.
      percent: convention for percent signs, see `rlvr_jax.verifiers.percent`.
      grader: `rlvr_jax`, or `math_verify`, see `rlvr_jax.verifiers.mathematics.verify`.

    Parts: `format` (there is a `####` with one number after it).

    Raises:
      ValueError: `reference` is not a number; there is no such convention or grader.
    """
    percent_signs.check(percent)
    check_grader(grader, percent=percent != percent_signs.DEFAULT)
    if not isinstance(reference, str):
        raise ValueError(f"the reference of a gsm8k example is a number as text, not {reference!r}")
    try:
        right = _number(reference)
    except ValueError as error:
        raise ValueError(f"the reference of a gsm8k example is a number as text: {error}") from None
    if grader == "math_verify":
        return by_math_verify(completion, _canonical(right))
    found = extract(completion, ("hash",))
    if found is None:
        return Verdict(0.0, {"format": 0.0}, reason="no #### with an answer in the completion")
    try:
        said = _number(found.answer)
    except ValueError as error:
        return Verdict(0.0, {"format": 0.0}, reason=str(error))
    gold, answer = Fraction(_canonical(right)), Fraction(_canonical(said))
    factors = percent_signs.factors(right.percent, said.percent, percent, abs(gold) <= 1)
    equal = any(answer * factor == gold for factor in factors)
    written, wanted = (_canonical(side) + "%" * side.percent for side in (said, right))
    return Verdict(float(equal), {"format": 1.0}, _canonical(said), "right" if equal else f"{written} is not {wanted}")
