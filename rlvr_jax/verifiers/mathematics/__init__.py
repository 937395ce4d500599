r"""Mathematical answers: the final answer of a completion against a gold answer, by value and form.

    completion -- extract, sentences --> final statement -- latex, structure --> its form (forms)
        -- compare, regions, leaf, numeric --> equal or not; the rare rest -- symbolic --> `math-verify`

Nearly every answer is decided by exact arithmetic or by values at a few points (`numeric`), in well under a
millisecond and with bounded numbers. Other expressions (sums, integrals, products of matrices) are compared by
`math-verify`, in a child process with its own limits. An answer that is too long, too deep or too large, or has
deceptive characters, scores 0 with the reason in `reason`.
"""

import re
from collections.abc import Sequence

from rlvr_jax.verifiers import percent as percent_signs
from rlvr_jax.verifiers.mathematics.compare import same_text
from rlvr_jax.verifiers.mathematics.expression import TooLargeError
from rlvr_jax.verifiers.mathematics.extract import FORMATS, extract
from rlvr_jax.verifiers.mathematics.forms import Answer, Group, Named
from rlvr_jax.verifiers.mathematics.latex import MAX_LENGTH, clean, compact, refusal
from rlvr_jax.verifiers.mathematics.leaf import Rules
from rlvr_jax.verifiers.mathematics.quantity import quantity
from rlvr_jax.verifiers.mathematics.structure import read
from rlvr_jax.verifiers.mathematics.symbolic import (
    SymbolicLimitError,
    graded_by_math_verify,
    prepare,
    symbolically_equal,
)
from rlvr_jax.verifiers.verdict import Verdict

__all__ = ["FORMATS", "GRADERS", "extract", "prepare", "verify"]

GRADERS = ("rlvr_jax", "math_verify")
_MAX_SHOWN = 200  # characters of an answer in the verdict
_PREFIX = re.compile(
    r"\s*(?:the\s+)?(?:(?:final|correct)\s+)?answer\s*(?:is\b|[:=])\s*:?(?=.*[^\s.])", re.IGNORECASE | re.DOTALL
)


def _gold(reference: str) -> str:
    """The gold answer in a reference, which may be a whole solution."""
    if not isinstance(reference, str) or not reference.strip():
        raise ValueError(f"the reference of a math example is the gold answer as text, not {reference!r}")
    if any(mark in reference for mark in (r"\boxed", "\x08oxed", "<answer>", "####")) or len(reference) > MAX_LENGTH:
        if r"\\boxed" in reference:
            reference = reference.replace("\\\\", "\\")
        found = extract(reference, last_number=True)
        if found is None or not found.answer.strip():
            raise ValueError(f"there is no answer in the reference {reference[:_MAX_SHOWN]!r}")
        reference = found.answer
    reference = _PREFIX.sub("", reference)
    if why := refusal(reference):
        raise ValueError(f"the reference of a math example cannot be used: {why}")
    return reference


def _values(answer: Answer) -> int:
    """The number of values that an answer has."""
    if isinstance(answer, Named):
        return _values(answer.value)
    return len(answer.items) if isinstance(answer, Group) and answer.kind in ("list", "set", "tuple") else 1


def _readings(answer: str) -> list[str]:
    """Cleaned readings of an answer: all of it, and the number with its unit if words follow."""
    found = quantity(answer)
    return [clean(answer), *([clean(found.latex())] if found else [])]


def by_math_verify(completion: str, reference: str) -> Verdict:
    """The verdict of math-verify, which extracts and compares the answer by its own rules, within a time limit.

    It has no parts, since math-verify returns only correct or not.
    """
    try:
        equal = graded_by_math_verify(reference, completion)
    except SymbolicLimitError as error:
        return Verdict(0.0, reason=f"refused: {error}")
    return Verdict(float(equal), reason=f"{'right' if equal else 'wrong'}, says math-verify")


def check_grader(grader: str, **options: bool) -> None:
    """Raises ValueError if there is no such grader, or if it ignores one of the options that are set."""
    if grader not in GRADERS:
        raise ValueError(f"grader is {' or '.join(map(repr, GRADERS))}, not {grader!r}")
    ignored = [name for name, is_set in options.items() if is_set and grader == "math_verify"]
    if ignored:
        raise ValueError(f"grader='math_verify' goes by its own rules; leave out {', '.join(ignored)}")


def verify(
    completion: str,
    reference: str,
    formats: Sequence[str] = FORMATS,
    last_number: bool = False,
    percent: str = percent_signs.DEFAULT,
    grader: str = GRADERS[0],
) -> Verdict:
    """Scores 1 if the final answer of the completion equals the reference.

    `extract` finds the final answer, `compare` defines equality.

    Args:
      completion: the policy's text.
      reference: the gold answer, such as `\\frac{1}{2}`, or a solution with the gold answer in a box.
      formats: in which formats an answer counts, of `boxed`, `answer` (`<answer>` tags), `hash` (`####` line), `phrase`
        ("the answer is") and `bare` (nothing but the answer, or a last sentence that ends with it).
      last_number: fall back to the last formula or number of the text if no format is found.
      percent: `unit` if `30%` is correct for a gold answer of 30, `value` if only for 0.3; see `verifiers.percent`.
      grader: `rlvr_jax`, or `math_verify` for results comparable with published ones: math-verify 0.9 extracts and
        compares the answer by its own rules, and the other options don't apply.

    Parts: `format` (1 if an answer was found in one of the formats).

    Raises:
      ValueError: the reference is not text, or there is no answer in it; there is no such format, convention or grader.
    """
    percent_signs.check(percent)
    check_grader(
        grader,
        formats=tuple(formats) != FORMATS,
        last_number=last_number,
        percent=percent != percent_signs.DEFAULT,
    )
    gold = _gold(reference)
    if grader == "math_verify":
        return by_math_verify(completion, gold)
    right = clean(gold)
    found = extract(completion.replace("\\\\boxed", "\\boxed"), formats, last_number, _values(read(right)))
    if found is None:
        return Verdict(0.0, {"format": 0.0}, reason="no final answer in the completion")
    parts = {"format": float(found.format in FORMATS)}
    if not found.answer.strip():
        return Verdict(0.0, parts, "", "the answer is empty")
    shown = found.answer.strip()[:_MAX_SHOWN]
    if why := refusal(found.answer):
        return Verdict(0.0, parts, shown, f"refused: {why}")
    if not compact(clean(found.answer)):
        return Verdict(0.0, parts, shown, "the answer is empty")
    try:
        rules = Rules(symbolically_equal, percent)
        equal = any(same_text(right, said, rules) for said in _readings(found.answer))
    except (TooLargeError, SymbolicLimitError) as error:
        return Verdict(0.0, parts, shown, f"refused: {error}")
    return Verdict(float(equal), parts, shown, "right" if equal else f"{shown} is not {gold[:_MAX_SHOWN]}")
