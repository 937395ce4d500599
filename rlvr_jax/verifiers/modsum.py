"""The digit-sum task: the prompt `680845=` asks for `#d`, d being the sum of the digits modulo 10.

A completion may write a scratchpad first: any digits, such as the running sums `44261`, then `#1`.
"""

import re

from rlvr_jax.verifiers.verdict import Verdict

_DIGIT = re.compile("[0-9]")
_FORM = re.compile(r"([0-9]*)#([0-9])")


def verify(completion: str, reference: str) -> Verdict:
    """Scores 1 if the whole completion is optional digits and then `#` with the digit `reference`.

    Parts: `format` (the completion has that form), `scratchpad` (it has, with digits before the `#`).

    Raises:
      ValueError: `reference` is not one digit.
    """
    if not (isinstance(reference, str) and _DIGIT.fullmatch(reference)):
        raise ValueError(f"the reference of a modsum example is one digit as text, not {reference!r}")
    match = _FORM.fullmatch(completion)
    if match is None:
        return Verdict(0.0, {"format": 0.0, "scratchpad": 0.0}, reason="not of the form: optional digits, #, one digit")
    scratchpad, answer = match.groups()
    parts = {"format": 1.0, "scratchpad": float(scratchpad != "")}
    if answer == reference:
        return Verdict(1.0, parts, answer, "right")
    return Verdict(0.0, parts, answer, f"{answer} is not {reference}")


def verify_chain(completion: str, reference: str) -> Verdict:
    """Scores 1 if the completion is the reference, running sums and answer: answers of one digit can be guessed."""
    return Verdict(float(completion == reference), answer=completion, reason="" if completion == reference else "wrong")


def verify_sums(completion: str, reference: str) -> Verdict:
    """Scores 1 if the last turn is optional digits and then `#` with the digits of the reference."""
    match = re.fullmatch(r"[0-9]*#([0-9]+)", completion.split("\n")[-1])
    if match is None:
        return Verdict(0.0, reason="the last turn is not of the form: optional digits, #, the sums")
    right = match[1] == reference
    return Verdict(float(right), answer=match[1], reason="right" if right else f"{match[1]:.20} is not {reference}")
