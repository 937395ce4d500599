"""Comparison of a program's results and output with the expected ones."""

import math
import re
from typing import Any

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def matches(result: Any, expected: Any, tolerance: float = 0.0) -> bool:
    """True if a function's result is what a JSON reference expects.

    As `==`, except for the limits of JSON: a list may stand for a tuple, and text keys for other keys; NaN equals NaN;
    and numbers, if at least one is a float, may differ by `tolerance` · max(1, |expected|).
    """
    if isinstance(expected, list):
        return (
            type(result) in (list, tuple)
            and len(result) == len(expected)
            and all(matches(*pair, tolerance) for pair in zip(result, expected, strict=True))
        )
    if isinstance(expected, dict):
        if type(result) is not dict or len(result) != len(expected):
            return False
        if not any(isinstance(key, str) for key in result):
            result = {_json_key(key): value for key, value in result.items()}
        return result.keys() == expected.keys() and all(matches(result[k], v, tolerance) for k, v in expected.items())
    if type(expected) not in (int, float) or type(result) not in (int, float) or result == expected:
        return bool(result == expected)
    if type(expected) is type(result) is int:
        return False
    try:
        if math.isnan(expected) or math.isinf(expected) or math.isinf(result):
            return math.isnan(expected) and math.isnan(result)
        return abs(result - expected) <= tolerance * max(1.0, abs(expected))
    except OverflowError:  # an integer beyond all floats
        return False


def _json_key(key: Any) -> Any:
    if key is None or isinstance(key, bool):
        return {None: "null", True: "true", False: "false"}[key]
    return str(key) if type(key) in (int, float) and key == key and abs(key) < 1 << 53 else key


def _lines(text: str) -> list[list[str]]:
    """The words of each line; empty lines at the beginning and the end do not count."""
    return [line.split() for line in text.strip().splitlines()]


def _number(word: str) -> float | int | str:
    """The number that the word is; the word itself if it is none."""
    if not _NUMBER.fullmatch(word):
        return word
    try:
        return int(word) if word.lstrip("+-").isdigit() else float(word)
    except ValueError:  # an integer of thousands of digits
        return word


def same_output(printed: str, expected: str, tolerance: float = 0.0) -> bool:
    """True if a program has printed what it should: line by line and word by word, as text.

    With a tolerance, numbers of which at least one has a point or an exponent are compared as `matches` does.
    """

    def same(word: str, wanted: str) -> bool:
        if word == wanted or not tolerance:
            return word == wanted
        pair = _number(word), _number(wanted)
        return any(isinstance(number, float) for number in pair) and matches(*pair, tolerance)

    lines, wanted = _lines(printed), _lines(expected)
    return [*map(len, lines)] == [*map(len, wanted)] and all(
        same(*words) for pair in zip(lines, wanted, strict=True) for words in zip(*pair, strict=True)
    )
