"""The records of a format of calls, and what all formats share: strict JSON, and observations without marks."""

import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlvr_jax.text.keys import RepeatedKeyError, no_key_twice
from rlvr_jax.text.messages import Messages
from rlvr_jax.text.tags import END_THINK, THINK


@dataclass(frozen=True)
class ParsedCall:
    """A call as the policy wrote it.

    Attributes:
      tool: its name; empty if it could not be read.
      arguments: by name.
      wrong: the name of the mistake, under which it is counted; empty if there is none: "unclosed", "unopened",
        "not_json", "syntax", "duplicate_key", "wrong_fields".
      why: the mistake in words, for the policy.
    """

    tool: str
    arguments: Mapping[str, Any]
    wrong: str = ""
    why: str = ""


@dataclass(frozen=True)
class Format:
    """A format for certain tools.

    Attributes:
      parse: the text of a turn -> its calls, in order.
      write: (tool's name, arguments) -> a call; raises ValueError if the format has none that is read as the same.
      observe: (tool's name, what it said) of each call -> the observation.
      instructions: of the calls, for a prompt.
      ends: the texts that end a turn where they are single tokens.
      native: a text that a chat template contains if it describes tools in this format; empty if none does.
      variable: of the chat template that has the tools, if it is another than that of most.
    """

    parse: Callable[[str], tuple[ParsedCall, ...]]
    write: Callable[[str, Mapping[str, Any]], str]
    observe: Callable[[Sequence[tuple[str, str]]], str | Messages]
    instructions: str
    ends: tuple[str, ...] = ()
    native: str = ""
    variable: str = ""


def plain(text: str, marks: Sequence[str]) -> str:
    """The text without any of these marks: a space after the first character breaks each; a space replaces one of a
    single character. Upper and lower case are not told apart."""
    marks = sorted({THINK, END_THINK, *filter(None, map(str.strip, marks))}, key=len, reverse=True)
    found = re.compile("|".join(map(re.escape, marks)), re.IGNORECASE)
    while found.search(text):  # again, since "````" still holds "```" after the first break
        text = found.sub(lambda match: f"{match[0][0]} {match[0][1:]}" if len(match[0]) > 1 else " ", text)
    return text


class BadCallError(Exception):
    """(name of the mistake, the mistake in words)."""


def strict_json(text: str) -> Any:
    """Strict JSON. Raises BadCallError."""

    def finite(number: str) -> float:
        if not math.isfinite(value := float(number)):
            raise BadCallError("not_json", f"{number} is no finite number")
        return value

    try:
        return json.loads(text, object_pairs_hook=no_key_twice, parse_constant=finite, parse_float=finite)
    except RepeatedKeyError as error:
        raise BadCallError("duplicate_key", str(error)) from None
    except (ValueError, RecursionError) as error:
        raise BadCallError("not_json", f"no valid JSON: {error}") from None
