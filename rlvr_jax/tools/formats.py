r"""Formats of calls: their grammar in a turn of the policy, and the text of observations.

| format    | a call                                                           | for                                |
|-----------|------------------------------------------------------------------|------------------------------------|
| `tags`    | `<python>print(1)</python>`, or with other marks `<12*7>`        | base models, policies from scratch |
| `fence`   | ` ```python `, lines of code, ` ``` ` (ReTool, arXiv:2504.11536) | reasoning models that write code   |
| `hermes`  | `<tool_call>{"name": …, "arguments": {…}}</tool_call>`           | Hermes, Qwen 2.5 and 3, SmolLM 3   |
| `llama3`  | `{"name": …, "parameters": {…}}`, which is the whole turn        | Llama 3.1 and later                |
| `olmo3`   | `<function_calls>search(query="cats")</function_calls>`          | OLMo 3                             |
| `smollm3` | `<code>search(query="cats")</code>`, or code for `python`        | SmolLM 3 with `python_tools`       |

In `tags` and `fence` the text between the marks is the tool's only argument, if that is a string; otherwise JSON: the
value of the only argument, or an object of all. JSON is strict: no key occurs twice, and there is no NaN.

What the tools say can't pass for more than that: `plain` breaks up every mark of the format and every thinking tag in
it, so that an observation neither ends early nor holds a call or a thought.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlvr_jax import named
from rlvr_jax.tools.call import BadCallError, Format, ParsedCall, plain, strict_json
from rlvr_jax.tools.chat_formats import hermes, llama3, olmo3, smollm3
from rlvr_jax.tools.tool import Tool


def _inner(tool: Tool, text: str) -> ParsedCall:
    """A call whose arguments are the text between two marks."""
    only = tool.only
    properties = tool.parameters.get("properties", {})
    if only and properties[only].get("type") == "string":
        return ParsedCall(tool.name, {only: text})
    try:
        value = strict_json(text)
        if only and not (isinstance(value, dict) and only in value):
            value = {only: value}
        if not isinstance(value, dict):
            raise BadCallError(
                "wrong_fields", f"the arguments of {tool.name} are a JSON object: {', '.join(properties)}"
            )
    except BadCallError as bad:
        return ParsedCall(tool.name, {}, *bad.args)
    return ParsedCall(tool.name, value)


def _outer(tool: Tool, arguments: Mapping[str, Any]) -> str:
    """The inverse of `_inner`."""
    only = tool.only
    if only and list(arguments) == [only]:
        value = arguments[only]
        is_text = isinstance(value, str) and tool.parameters["properties"][only].get("type") == "string"
        return value if is_text else json.dumps(value if not isinstance(value, dict) else {only: value})
    return json.dumps(dict(arguments), ensure_ascii=False)


def _listed(tools: Sequence[Tool], form: Callable[[Tool], str]) -> str:
    lines = []
    for tool in tools:
        lines.append(f"- {tool.name}: {tool.description}\n  {form(tool)}")
        for name, schema in tool.parameters.get("properties", {}).items():
            if note := schema.get("description"):
                lines.append(f"  {name} ({schema.get('type', 'any')}): {note}")
    return "\n".join(lines)


def _slot(tool: Tool) -> str:
    """A place holder for the arguments."""
    only = tool.only
    names = tool.parameters.get("properties", {})
    return only if only else "{" + ", ".join(f'"{name}": …' for name in names) + "}"


def tags(
    tools: Sequence[Tool],
    marks: Mapping[str, Sequence[str]] | None = None,
    observation: str = "\n<output>{}</output>\n",
) -> Format:
    """Calls between two marks, by default `<name>` and `</name>`.

    Args:
      tools: that can be called.
      marks: (opening, closing) of a tool, by its name; a single character each is learned the fastest.
      observation: text with the place {} for what a tool says.

    Raises:
      ValueError: marks of a tool that there is not, that are empty or equal, or of two tools that open alike; or there
        is no place in `observation`.
    """
    marks = {name: tuple(pair) for name, pair in (marks or {}).items()}
    if unknown := sorted(marks.keys() - {tool.name for tool in tools}):
        raise ValueError(f"marks: there is no tool {unknown[0]!r}; there are {', '.join(tool.name for tool in tools)}")
    of_tool = {tool.name: marks.get(tool.name, (f"<{tool.name}>", f"</{tool.name}>")) for tool in tools}
    for name, pair in of_tool.items():
        if len(pair) != 2 or not all(isinstance(mark, str) and mark.strip() for mark in pair) or pair[0] == pair[1]:
            raise ValueError(f"marks of {name!r} must be two different texts, not {pair}")
    opening = {pair[0]: tool for tool, pair in zip(tools, of_tool.values(), strict=True)}
    if len(opening) < len(tools):
        raise ValueError(f"marks: two tools open alike: {', '.join(pair[0] for pair in of_tool.values())}")
    if "{}" not in observation:
        raise ValueError(f"observation needs the place {{}}, and is {observation!r}")
    if both := opening.keys() & {pair[1] for pair in of_tool.values()}:
        raise ValueError(f"marks: {both.pop()!r} opens a call of one tool and closes that of another")
    every = [mark for pair in of_tool.values() for mark in pair]
    # The longest first, where one mark begins another.
    next_mark = re.compile("|".join(map(re.escape, sorted(set(every), key=len, reverse=True))))
    before, _, after = observation.partition("{}")

    def parse(text: str) -> tuple[ParsedCall, ...]:
        calls, place = [], 0
        while match := next_mark.search(text, place):
            if match[0] not in opening:
                calls.append(ParsedCall("", {}, "unopened", "a closing mark without an opening mark before it"))
                place = match.end()
                continue
            tool = opening[match[0]]
            close = of_tool[tool.name][1]
            end = text.find(close, match.end())
            if end < 0:
                why = f"the call of {tool.name} has no closing mark"
                return (*calls, ParsedCall(tool.name, {}, "unclosed", why))
            calls.append(_inner(tool, text[match.end() : end]))
            place = end + len(close)
        return tuple(calls)

    def write(name: str, arguments: Mapping[str, Any]) -> str:
        (tool,) = [tool for tool in tools if tool.name == name]
        return _outer(tool, arguments).join(of_tool[name])

    def observe(said: Sequence[tuple[str, str]]) -> str:
        return "".join(observation.replace("{}", plain(text, [*every, before, after])) for _, text in said)

    listed = _listed(tools, lambda tool: f"{_slot(tool)}".join(of_tool[tool.name]))
    shown = observation.strip().replace("{}", "…")
    instructions = f"You can call tools, one at a time, as follows. The output then follows as {shown}.\n{listed}"
    return Format(parse, write, observe, instructions, tuple(dict.fromkeys(pair[1] for pair in of_tool.values())))


# As in CommonMark: indented by at most three spaces, closed by at least as many backticks.
_FENCE = re.compile(r"^( {0,3})(`{3,})([^\n`]*)\n(.*?)(^ {0,3}\2`*[ \t]*$|\Z)", re.MULTILINE | re.DOTALL)
_LANGUAGES: Mapping[str, str] = {"py": "python", "python3": "python"}  # other names of a tool


def fence(tools: Sequence[Tool], observation: str = "\n```output\n{}\n```\n") -> Format:
    """Calls as fenced blocks whose language is a tool's name; blocks of other languages are no calls.

    Upper and lower case are not told apart, and `py` and `python3` are `python`.

    Args:
      tools: that can be called.
      observation: text with the place {} for what a tool says.

    Raises:
      ValueError: there is no place in `observation`.
    """
    if "{}" not in observation:
        raise ValueError(f"observation needs the place {{}}, and is {observation!r}")
    by_name = {tool.name: tool for tool in tools}
    by_language = {tool.name.lower(): tool for tool in tools}
    if len(by_language) < len(tools):
        raise ValueError(f"two tools have the same language: {', '.join(by_name)}")
    by_language |= {x: by_language[y] for x, y in _LANGUAGES.items() if y in by_language and x not in by_language}

    def parse(text: str) -> tuple[ParsedCall, ...]:
        calls = []
        for indent, _, language, inner, end in _FENCE.findall(text):
            tool = by_language.get(language.strip().lower().partition(" ")[0])
            if tool is None:
                continue
            if not end:
                calls.append(ParsedCall(tool.name, {}, "unclosed", f"the block of {tool.name} is not closed"))
            else:
                inner = re.sub(rf"^ {{0,{len(indent)}}}", "", inner, flags=re.MULTILINE)
                calls.append(_inner(tool, inner.removesuffix("\n")))
        return tuple(calls)

    def write(name: str, arguments: Mapping[str, Any]) -> str:
        inner = _outer(by_name[name], arguments)
        marks = "`" * max(3, 1 + max(map(len, re.findall("`+", inner)), default=0))
        return f"{marks}{name}\n{inner}\n{marks}"

    def observe(said: Sequence[tuple[str, str]]) -> str:
        return "".join(observation.replace("{}", plain(text, ["```"])) for _, text in said)

    listed = _listed(tools, lambda tool: f"```{tool.name}\n  {_slot(tool)}\n  ```")
    instructions = (
        "You can call tools by a block of code and end your turn there. The output then follows in a block "
        f"```output.\n{listed}"
    )
    return Format(parse, write, observe, instructions)


FORMATS: Mapping[str, Callable[..., Format]] = {
    "tags": tags,
    "fence": fence,
    "hermes": hermes,
    "llama3": llama3,
    "olmo3": olmo3,
    "smollm3": smollm3,
}


def make_format(name: str, tools: Sequence[Tool], options: Mapping[str, Any] | None = None) -> Format:
    """The format of a config.

    Args:
      name: a key of `FORMATS`.
      tools: that can be called.
      options: of its function.

    Raises:
      ValueError: there is no such format, or it can't be made with these options.
    """
    if name not in FORMATS:
        raise ValueError(f"there is no format {name!r} of calls; there are {', '.join(FORMATS)}")
    try:
        named.check_options(FORMATS[name], {} if options is None else options, typed=True, skip=1)
    except ValueError as error:
        raise ValueError(f"the format {name!r}: {error}") from None
    made = FORMATS[name](tools, **(options or {}))

    def write(tool: str, arguments: Mapping[str, Any]) -> str:
        same = json.loads(json.dumps(dict(arguments), allow_nan=False))
        text = made.write(tool, arguments)
        if made.parse(text) != (ParsedCall(tool, same),):
            raise ValueError(f"the format {name!r} can't write this call of {tool!r}: {text!r:.200}")
        return text

    return replace(made, write=write)
