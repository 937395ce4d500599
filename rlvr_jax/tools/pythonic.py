"""The grammar of calls as in Python, one per line, with values of JSON or Python: `search(query="cats", k=3)`.

    calls  := call (white space call)*
    call   := name "(" [argument ("," argument)* [","]] ")"
    argument := name "=" value
    value  := string | number | word | "[" [value, …] "]" | "{" [string ":" value, …] "}"

Words are `true`, `false` and `null`, and Python's `True`, `False` and `None`. A string in double quotes is JSON if it
can be; other strings are Python's.
"""

import ast
import json
import math
import re
import warnings
from collections.abc import Mapping
from typing import Any

from rlvr_jax.tools.call import BadCallError

_WORDS: Mapping[str, Any] = {"true": True, "True": True, "false": False, "False": False, "null": None, "None": None}
_NAME = re.compile(r"\s*([A-Za-z_][\w.-]*)\s*\(")
_KEY = re.compile(r"\s*([^\s=(),\"'\[\]{}]+)\s*=")
_WORD = re.compile(r"\b(?:true|True|false|False|null|None)\b")
_NUMBER = re.compile(r"[-+]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")
_STRING = re.compile(
    r'"""(?:[^\\]|\\.)*?"""|' r"'''(?:[^\\]|\\.)*?'''|" r'"(?:[^"\\]|\\.)*"|' r"'(?:[^'\\]|\\.)*'", re.DOTALL
)
_SPACE = re.compile(r"\s*")
_SHOWN = 30  # characters that a reason quotes


def calls_of(text: str) -> list[tuple[str, dict[str, Any]]]:
    """The calls of a text: (name, arguments) of each.

    Raises:
      BadCallError: it is no list of calls ("syntax"), or an argument or key occurs twice ("duplicate_key").
    """
    calls, at = [], 0
    try:
        while (at := _skip(text, at)) < len(text):
            call, at = _call(text, at)
            calls.append(call)
    except RecursionError:
        raise BadCallError("syntax", "the arguments are nested too deeply") from None
    if not calls:
        raise BadCallError("syntax", "there is no call between the tags")
    return calls


def written(name: str, arguments: Mapping[str, Any]) -> str:
    """A call of which `calls_of` reads the same, in the form in which OLMo 3's chat template writes it."""
    values = (f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in arguments.items())
    return f"{name}({', '.join(values)})"


# Each parses from a place on, and returns what it found and the place behind it.


def _call(text: str, at: int) -> tuple[tuple[str, dict[str, Any]], int]:
    found = _NAME.match(text, at)
    if found is None:
        raise _expected("a call: name(argument=value)", text, at)
    arguments: dict[str, Any] = {}
    at = _skip(text, found.end())
    while text[at : at + 1] != ")":
        key = _KEY.match(text, at)
        if key is None:
            raise _expected("an argument: name=value", text, at)
        if key[1] in arguments:
            raise BadCallError("duplicate_key", f"the argument {key[1]!r} occurs twice")
        arguments[key[1]], at = _value(text, _skip(text, key.end()))
        at = _next(text, at, ")")
    return (found[1], arguments), at + 1


def _value(text: str, at: int) -> tuple[Any, int]:
    begin = text[at : at + 1]
    if begin == "[":
        return _list(text, at + 1)
    if begin == "{":
        return _object(text, at + 1)
    if begin and begin in "\"'":
        return _string(text, at)
    if word := _WORD.match(text, at):
        return _WORDS[word[0]], word.end()
    number = _NUMBER.match(text, at)
    if number is None:
        raise _expected("a value", text, at)
    try:
        value = int(number[0]) if re.fullmatch(r"[-+]?[0-9]+", number[0]) else float(number[0])
    except ValueError as error:  # of more digits than Python reads
        raise BadCallError("syntax", str(error)) from None
    if isinstance(value, float) and not math.isfinite(value):
        raise BadCallError("syntax", f"{number[0]} is no finite number")
    return value, number.end()


def _list(text: str, at: int) -> tuple[list[Any], int]:
    values, at = [], _skip(text, at)
    while text[at : at + 1] != "]":
        value, at = _value(text, at)
        values.append(value)
        at = _next(text, at, "]")
    return values, at + 1


def _object(text: str, at: int) -> tuple[dict[str, Any], int]:
    values: dict[str, Any] = {}
    at = _skip(text, at)
    while text[at : at + 1] != "}":
        key, at = _string(text, at)
        if key in values:
            raise BadCallError("duplicate_key", f"the key {key!r} occurs twice")
        at = _skip(text, at)
        if text[at : at + 1] != ":":
            raise _expected("':'", text, at)
        values[key], at = _value(text, _skip(text, at + 1))
        at = _next(text, at, "}")
    return values, at + 1


def _string(text: str, at: int) -> tuple[str, int]:
    found = _STRING.match(text, at)
    if found is None:
        raise _expected("a string", text, at)
    shown = found[0]
    if not shown.startswith(('"""', "'")):
        try:
            return json.loads(shown, strict=False), found.end()
        except ValueError:  # escapes of Python
            pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of escapes that Python does not know
            return ast.literal_eval(shown.replace("\n", "\\n")), found.end()
    except (ValueError, SyntaxError) as error:
        raise BadCallError("syntax", f"no string: {error}") from None


def _next(text: str, at: int, end: str) -> int:
    """The place behind a comma, or that of the end."""
    at = _skip(text, at)
    if text[at : at + 1] == ",":
        return _skip(text, at + 1)
    if text[at : at + 1] != end:
        raise _expected(f"',' or {end!r}", text, at)
    return at


def _skip(text: str, at: int) -> int:
    return _SPACE.match(text, at).end()


def _expected(what: str, text: str, at: int) -> BadCallError:
    found = repr(text[at : at + _SHOWN]) if text[at:] else "the end"
    return BadCallError("syntax", f"expected {what}, found {found}")
