"""Formats of calls that chat templates know: Hermes' and Llama 3's JSON, OLMo 3's and SmolLM 3's calls as in Python.

Observations are messages of the role `tool`, which the chat template renders.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from rlvr_jax.text.messages import Messages
from rlvr_jax.text.tags import END_TOOL_CALL, TOOL_CALL, after_thinking
from rlvr_jax.tools.call import BadCallError, Format, ParsedCall, plain, strict_json
from rlvr_jax.tools.pythonic import calls_of, written
from rlvr_jax.tools.tool import Tool

RESPONSE, END_RESPONSE = "<tool_response>", "</tool_response>"
FUNCTION_CALLS, END_FUNCTION_CALLS = "<function_calls>", "</function_calls>"
PYTHON = "python"  # the tool whose calls are code
CODE, END_CODE = "<code>", "</code>"


def _named(text: str, arguments: str) -> ParsedCall:
    """A call of the form {"name": …, `arguments`: {…}}."""
    try:
        call = strict_json(text)
        if isinstance(call, dict) and call.get("type") == "function":  # as in the schema that the prompt shows
            call = {key: value for key, value in call.items() if key != "type"}
        fields = {"name", arguments}
        if not (isinstance(call, dict) and call.keys() == fields and isinstance(call["name"], str)):
            raise BadCallError("wrong_fields", f'a call is {{"name": text, "{arguments}": object}}, and nothing else')
        if not isinstance(call[arguments], dict):
            raise BadCallError("wrong_fields", f"{arguments!r} must be an object, by the names of the tool's arguments")
    except BadCallError as bad:
        return ParsedCall("", {}, *bad.args)
    return ParsedCall(call["name"], call[arguments])


def _tool_messages(marks: Sequence[str]) -> Callable[[Sequence[tuple[str, str]]], Messages]:
    def observe(said: Sequence[tuple[str, str]]) -> Messages:
        return tuple({"role": "tool", "name": name, "content": plain(text, marks)} for name, text in said)

    return observe


def _schemas(tools: Sequence[Tool]) -> str:
    return "\n".join(json.dumps(tool.schema, ensure_ascii=False) for tool in tools)


def _call(name: str, field: str, arguments: Mapping[str, Any]) -> str:
    """The inverse of `_named`."""
    return _escaped(json.dumps({"name": name, field: dict(arguments)}, ensure_ascii=False))


def _escaped(call: str) -> str:
    """A call whose strings hold no tag that would end it or make it a thought."""
    tags = r"<(?=/?tool_call>|/?function_calls>|/?code>|/?think>|\|python_tag\|>)"
    return re.sub(tags, r"\\u003c", call, flags=re.IGNORECASE)


def _in_tags(
    begin: str, end: str, calls_of_block: Callable[[str], list[ParsedCall]], text: str
) -> tuple[ParsedCall, ...]:
    """The calls between two tags, outside of thoughts."""
    first, *rest = (after_thinking(text) or "").split(begin)
    name = begin.strip("<>")
    unopened = ParsedCall("", {}, "unopened", f"a closing {name} tag without an opening one before it")
    calls = [unopened] * first.count(end)
    for part in rest:
        inner, closed, behind = part.partition(end)
        if closed:
            calls += calls_of_block(inner)
        else:
            calls.append(ParsedCall("", {}, "unclosed", f"a {name} tag is not closed"))
        calls += [unopened] * behind.count(end)
    return tuple(calls)


def hermes(tools: Sequence[Tool]) -> Format:
    """JSON between `<tool_call>` tags, outside of thoughts, as chat templates of Hermes and Qwen describe it.

    Observations are messages of the role `tool`, which a chat template renders.
    """

    def write(name: str, arguments: Mapping[str, Any]) -> str:
        return f"{TOOL_CALL}\n{_call(name, 'arguments', arguments)}\n{END_TOOL_CALL}"

    instructions = (
        f"You can call tools. Their signatures:\n{_schemas(tools)}\nA call is a JSON object between {TOOL_CALL} tags; "
        f'end your turn behind it:\n{TOOL_CALL}\n{{"name": …, "arguments": {{…}}}}\n{END_TOOL_CALL}'
    )
    observe = _tool_messages([TOOL_CALL, END_TOOL_CALL, RESPONSE, END_RESPONSE])
    parse = partial(_in_tags, TOOL_CALL, END_TOOL_CALL, lambda inner: [_named(inner, "arguments")])
    return Format(parse, write, observe, instructions, native=TOOL_CALL)


def llama3(tools: Sequence[Tool]) -> Format:
    """A JSON object that is the whole turn, outside of thoughts, as chat templates of Llama 3.1 describe it.

    A turn is a call if it begins with `{"name"`, `{"parameters"`, `{"arguments"`, `{"function"` or
    `{"type": "function"`. Observations are messages of the role `tool`.
    """
    begin = r'\{\s*"(?:name"|parameters"|arguments"|function"|type"\s*:\s*"function")'

    def parse(text: str) -> tuple[ParsedCall, ...]:
        text = (after_thinking(text) or "").replace("<|python_tag|>", "")
        if not re.match(rf"\s*{begin}", text):
            return ()
        parts = re.split(rf"\}}\s*;\s*(?={begin})", text)  # several calls, which the template does not know
        return tuple(_named(part + "}" * (i < len(parts) - 1), "parameters") for i, part in enumerate(parts))

    def write(name: str, arguments: Mapping[str, Any]) -> str:
        return _call(name, "parameters", arguments)

    instructions = (
        f"You can call tools. Their signatures:\n{_schemas(tools)}\nA call is a turn of yours that is a JSON object, "
        'and nothing else: {"name": …, "parameters": {…}}'
    )
    return Format(parse, write, _tool_messages(["<|python_tag|>"]), instructions, native='"parameters"')


def olmo3(tools: Sequence[Tool]) -> Format:
    """Calls as in Python between `<function_calls>` tags, one a line, outside of thoughts, as OLMo 3's template writes.

    Source: the chat template of Olmo-3-7B-Instruct, which writes values as JSON; models also write Python's words, see
    `rlvr_jax.tools.pythonic`. Observations are messages of the role `tool`, rendered as those of its "environment".
    """

    def write(name: str, arguments: Mapping[str, Any]) -> str:
        return f"{FUNCTION_CALLS}{_escaped(written(name, arguments))}{END_FUNCTION_CALLS}"

    instructions = (
        f"You can call tools. Their signatures:\n{_schemas(tools)}\nA call is written as in Python, with values of "
        f"JSON, between {FUNCTION_CALLS} tags; end your turn behind it:\n"
        f"{FUNCTION_CALLS}name(argument=value){END_FUNCTION_CALLS}"
    )
    observe = _tool_messages([FUNCTION_CALLS, END_FUNCTION_CALLS])
    parse = partial(_in_tags, FUNCTION_CALLS, END_FUNCTION_CALLS, _as_in_python)
    return Format(parse, write, observe, instructions, native=FUNCTION_CALLS)


def smollm3(tools: Sequence[Tool]) -> Format:
    """Calls as in Python, or code, between `<code>` tags, outside of thoughts: the `python_tools` of SmolLM 3.

    A block of nothing but calls of tools, one a line, calls these, with values as in `olmo3`. With the tool `python`
    any other block is its code; other tools can't be called from within that. Source: the chat template and the model
    card of SmolLM3-3B, whose `xml_tools` are `hermes`. Observations are messages of the role `tool`, which the template
    renders as those of a user.
    """
    names = {tool.name for tool in tools}

    def block(inner: str) -> list[ParsedCall]:
        calls = _as_in_python(inner)
        if PYTHON in names and not {call.tool for call in calls} <= names:
            return [ParsedCall(PYTHON, {"code": inner.strip("\n")})]
        return calls

    parse = partial(_in_tags, CODE, END_CODE, block)

    def write(name: str, arguments: Mapping[str, Any]) -> str:
        as_code = f"{CODE}\n{arguments.get('code')}\n{END_CODE}"
        if parse(as_code) == (ParsedCall(PYTHON, dict(arguments)),) and name == PYTHON:
            return as_code
        return f"{CODE}\n{_escaped(written(name, arguments))}\n{END_CODE}"

    listed = "\n".join(json.dumps(tool.schema["function"], ensure_ascii=False) for tool in tools)
    instructions = (
        f"You can call tools. Their signatures:\n{listed}\nA call is Python code between {CODE} tags; end your turn "
        f"behind it:\n{CODE}\nname(argument=value)\n{END_CODE}"
    )
    variable = "python_tools"
    return Format(parse, write, _tool_messages([CODE, END_CODE]), instructions, native=variable, variable=variable)


def _as_in_python(block: str) -> list[ParsedCall]:
    """The calls of a block, as `rlvr_jax.tools.pythonic` reads them, or its mistake."""
    try:
        return [ParsedCall(*call) for call in calls_of(block)]
    except BadCallError as bad:
        return [ParsedCall("", {}, *bad.args)]
