"""Cryptarithms: give each letter a digit of its own, so that a sum of words such as `SEND + MORE = MONEY` holds.

The answer is an assignment of all letters, `S=9, E=5, …` or a JSON object, in `<answer>` tags after the thinking, or
the whole completion without such tags. Any assignment that satisfies the equation is correct, not only the data set's
solution.
"""

import re
from collections.abc import Mapping
from typing import Any

from rlvr_jax.text.tags import answer_in_tags
from rlvr_jax.verifiers.verdict import Verdict

MAX_LENGTH = 400  # characters of an answer

_EQUATION = re.compile(r"\s*[A-Z]+(?:\s*\+\s*[A-Z]+)*\s*=\s*[A-Z]+\s*")
_ITEM = re.compile(r"[\s,;]*(?:and\s)?\s*[\"']?([A-Z])[\"']?\s*(?:=|:|->|→)\s*[\"']?([0-9])(?![0-9])[\"']?")


def assignment(text: str) -> dict[str, int]:
    """The digits of the letters in a text that is exactly an assignment.

    Raises:
      ValueError: it is too long, contains anything else, or repeats a letter.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f"the answer has {len(text)} characters, more than {MAX_LENGTH}")
    text = text.strip()
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1]
    text = text.rstrip(" \t\n,;.")
    digits: dict[str, int] = {}
    position = 0
    while position < len(text):
        match = _ITEM.match(text, position)
        if match is None:
            raise ValueError(f"not an assignment such as 'A=1, B=2' at {text[position : position + 20]!r}")
        if match[1] in digits:
            raise ValueError(f"{match[1]} is assigned twice")
        digits[match[1]] = int(match[2])
        position = match.end()
    if not digits:
        raise ValueError("the answer is empty")
    return digits


def _holds(equation: str, digits: Mapping[str, int]) -> bool:
    left, right = ("".join(str(digits.get(x, x)) for x in side) for side in equation.split("="))
    return sum(map(int, left.split("+"))) == int(right)


def verify(completion: str, reference: Mapping[str, Any], *, leading_zeros: bool = False) -> Verdict:
    """Scores 1 if the assignment gives different digits to exactly the letters of the equation, and satisfies it.

    Args:
      completion: the policy's text.
      reference: `{"equation": "SEND + MORE = MONEY"}`; other keys are ignored.
      leading_zeros: whether a word may start with 0. By the puzzle's usual rule it may not, but some of TinyZero's
        equations have no other solutions.

    Parts: `format` (the answer is an assignment), `letters` (of exactly the equation's letters, to different digits,
    no leading zeros unless they are allowed).

    Raises:
      ValueError: the reference has no such equation.
    """
    equation = reference.get("equation") if isinstance(reference, Mapping) else None
    if not isinstance(equation, str) or len(equation) > MAX_LENGTH or not _EQUATION.fullmatch(equation):
        raise ValueError(
            f'the reference of a cryptarithm is {{"equation": "A + B = C"}} in capital letters, not {reference!r}'
        )
    answer = answer_in_tags(completion)
    try:
        digits = assignment(completion if answer is None else answer)
    except ValueError as error:
        return Verdict(0.0, {"format": 0.0, "letters": 0.0}, reason=str(error))
    words = re.findall("[A-Z]+", equation)
    text = ", ".join(f"{letter}={digit}" for letter, digit in sorted(digits.items()))
    wrong = ""
    if digits.keys() != set("".join(words)):
        wrong = f"not an assignment of exactly the letters {', '.join(sorted(set(''.join(words))))}"
    elif len(set(digits.values())) != len(digits):
        wrong = "two letters have the same digit"
    elif not leading_zeros and any(digits[word[0]] == 0 for word in words):
        wrong = "a word starts with 0"
    parts = {"format": 1.0, "letters": float(not wrong)}
    if not wrong and not _holds(equation, digits):
        wrong = f"{equation} does not hold"
    return Verdict(float(not wrong), parts, text, wrong or "right")
