"""The record of a tool, and its execution in a process of the pool."""

import json
import math
import re
import time
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from rlvr_jax import named
from rlvr_jax.errors import error_text
from rlvr_jax.text.prompts import LONGEST
from rlvr_jax.verifiers.jobs import ToolCall

RUN = "rlvr_jax.tools.tool:run"
TOKENS = 512  # of an output that are shown, by default
_BINARY_SHARE = 0.1  # of control and replacement characters, above which an output is no text


@dataclass(frozen=True)
class Tool:
    """A function that the policy can call.

    Attributes:
      name: by which the policy calls it: letters, digits, _ and -.
      description: for the prompt, in a sentence or two.
      parameters: JSON schema of the arguments, an object; see `rlvr_jax.tools.schema`.
      function: `module:function` or `file.py:function`, run in the pool with the arguments by name. It returns text, or
        JSON data that is shown as such, and raises `CallError` or any other exception.
      options: further keyword arguments of the function, which the policy neither sees nor sets.
      timeout: seconds of a call; None for the pool's limit.
      tokens: of the policy's tokenizer for the output, see `shown`; what is more is cut.
      lines: each line of the output has an equal share of these.
      state: the function also gets `earlier`: the arguments of the episode's earlier calls of the tool, without those
        that were ended by a limit or a crash.
      sandbox: engine and packages of the sandbox that it needs; None for none.
      ends: a call ends the episode, and no function is run: its only argument is the answer that is judged, in the form
        of `answer`.
      answer: text with the place {}, for the answer as the verifier expects it.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    function: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    timeout: float | None = None
    tokens: int = TOKENS
    lines: bool = False
    state: bool = False
    sandbox: tuple[str, tuple[str, ...]] | None = None
    ends: bool = False
    answer: str = "{}"

    def __post_init__(self) -> None:
        texts = ("name", "description", "function", "answer")
        if other := [field for field in texts if not isinstance(getattr(self, field), str)]:
            raise ValueError(f"{other[0]} must be text, not {getattr(self, other[0])!r:.100}")
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_-]*", self.name):
            raise ValueError(f"the name {self.name!r} is not made of letters, digits, _ and -")
        if not isinstance(self.parameters, Mapping):
            raise ValueError(f"parameters must be a JSON schema, not {self.parameters!r:.100}")
        numbers = not isinstance(self.timeout, bool) and isinstance(self.timeout, int | float)
        if self.timeout is not None and not (numbers and 0 < self.timeout < math.inf):
            raise ValueError(f"timeout must be a number of seconds above 0, or None, not {self.timeout!r:.100}")
        if type(self.tokens) is not int or self.tokens < 1:
            raise ValueError(f"tokens must be a whole number from 1 on, not {self.tokens!r:.100}")

    @property
    def schema(self) -> dict[str, Any]:
        """Its description for chat templates, in the form of OpenAI's API."""
        function = {"name": self.name, "description": self.description, "parameters": dict(self.parameters)}
        return {"type": "function", "function": function}

    @property
    def only(self) -> str | None:
        """The name of its only argument, or its only required one; None if there are more."""
        names = list(self.parameters.get("properties", ()))
        required = list(self.parameters.get("required", ()))
        return names[0] if len(names) == 1 else required[0] if len(required) == 1 else None


class CallError(Exception):
    """A call without a result, raised by a tool's function.

    The first argument is what the policy is told; `outcome` is the name under which failures of its kind are counted.
    """

    def __init__(self, text: str, outcome: str = "raised"):
        super().__init__(text)
        self.outcome = outcome


@dataclass(frozen=True)
class Result:
    """The outcome of a call.

    Attributes:
      outcome: "ok"; "cut" if the output was longer than is shown; otherwise the name of a failure: "raised",
        "timed_out", "out_of_memory", "died", "binary", or that of a `CallError`.
      text: the output, or the reason of the failure.
      seconds: that the function took, as measured where it ran; 0 if unknown.
      place: file and line where the function raised, which the policy does not read; empty if it did not.
    """

    outcome: str
    text: str
    seconds: float = 0.0
    place: str = ""

    @property
    def succeeded(self) -> bool:
        """True if there is an output."""
        return self.outcome in ("ok", "cut")


def job_of(tool: Tool, arguments: Mapping[str, Any], earlier: tuple[Mapping[str, Any], ...] = ()) -> ToolCall:
    """The pool's job for a call; `result_of` reads what comes of it."""
    own = {"earlier": list(map(dict, earlier))} if tool.state else {}
    kwargs = {
        "function": tool.function,
        "arguments": {**arguments, **tool.options, **own},
        "tokens": tool.tokens,
        "lines": tool.lines,
    }
    return ToolCall(RUN, kwargs=kwargs, timeout=tool.timeout, imports=tool.function)


def run(function: str, arguments: Mapping[str, Any], tokens: int, lines: bool) -> dict[str, Any]:
    """Runs a tool's function, in a process of the pool: the fields of its `Result`."""
    began, place = time.perf_counter(), ""
    try:
        outcome, text = "ok", _text(named.load(function)(**arguments))
    except MemoryError:  # the process is to be replaced
        raise
    except CallError as failure:
        outcome, text = failure.outcome, str(failure)
    except (Exception, SystemExit) as error:
        outcome, text, place = "raised", _without_paths(error_text(error)), named.raised_at(error, function)
    seconds = time.perf_counter() - began
    if _is_binary(text):
        outcome, text = "binary", f"the output is no text ({len(text)} characters)"
    whole, text = text, _within(text, tokens, lines, lambda part, most: part[: most * LONGEST + 1])
    outcome = "cut" if outcome == "ok" and text != whole else outcome
    return {"outcome": outcome, "text": text, "seconds": seconds, "place": place}


def result_of(value: Any, error: str | None) -> Result:
    """The result of a job of `job_of`: the value that came back, or the error of the pool."""
    if error is None:
        return Result(**value)
    if late := re.match(r"timed out after ([0-9.e+-]+) s", error):
        return Result("timed_out", error, float(late[1]))
    error = _without_paths(error)
    for outcome, begins in (("out_of_memory", "MemoryError"), ("died", "worker process")):
        if error.startswith(begins):
            return Result(outcome, error)
    return Result("raised", error)


def shown(tool: Tool, result: Result, shorten: Callable[[str, int], str]) -> Result:
    """The result within the tokens of its tool; `shorten` cuts a text to a number of tokens."""
    text = _within(result.text, tool.tokens, tool.lines, shorten)
    cut = result.outcome == "ok" and text != result.text
    return replace(result, outcome="cut" if cut else result.outcome, text=text)


def _within(text: str, tokens: int, lines: bool, shorten: Callable[[str, int], str]) -> str:
    """The text cut to so many tokens, of which each of its `lines` may have an equal share."""
    parts = text.split("\n") if lines else [text]
    share = tokens // len(parts) - (len(parts) > 1)  # a token for the line break
    return shorten("\n".join(shorten(part, max(1, share)) for part in parts), tokens)


def _without_paths(text: str) -> str:
    """The reason of a failure without the folders of this machine: file names alone."""
    return re.sub(r"(?<![\w/:~])~?/(?:[\w.+@~-]+/)+(?=[\w.+@~-])", "", text)


def _text(value: Any) -> str:
    """The output as text. Raises CallError if it is neither text nor JSON data."""
    if isinstance(value, bytes):
        raise CallError(f"the output is no text ({len(value)} bytes)", "binary")
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise CallError(f"the output, of type {type(value).__name__}, is neither text nor JSON data: {error}") from None


def _is_binary(text: str) -> bool:
    """True for text with NUL or half surrogates, or of many control and replacement characters."""
    if "\0" in text or any("\ud800" <= c <= "\udfff" for c in text):
        return True
    odd = sum(c == "\ufffd" or (unicodedata.category(c) == "Cc" and c not in "\n\r\t\x1b") for c in text)
    return odd > _BINARY_SHARE * max(len(text), 1)
