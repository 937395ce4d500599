"""Tools: functions that the policy calls in the middle of an episode, run in the processes of the pool.

| name         | what it does                                  | module       |
|--------------|-----------------------------------------------|--------------|
| `python`     | Python code in the sandbox                    | `python`     |
| `calculator` | exact arithmetic                              | `calculator` |
| `search`     | documents of a corpus for a query             | `search`     |
| `open`       | a document of the corpus by its id            | `search`     |
| `submit`     | ends the episode with an answer               | `submit`     |
| `mcp`        | the tools of a server (Model Context Protocol) | `mcp`        |

A tool may also be a function of the user's, `module:function` or `file.py:function`, with type hints and a docstring
that describes its arguments; one that is annotated to return a `Tool`, or a tuple of them, makes it, as the built-in
ones are made.

Worker processes import this package: nothing here imports JAX.
"""

import inspect
import typing
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlvr_jax import named
from rlvr_jax.tools import schema
from rlvr_jax.tools.formats import FORMATS, make_format
from rlvr_jax.tools.tool import CallError, Result, Tool, job_of, result_of, shown

TOOLS: Mapping[str, str] = {
    "python": "rlvr_jax.tools.python:tool",
    "calculator": "rlvr_jax.tools.calculator:tool",
    "search": "rlvr_jax.tools.search:tool",
    "open": "rlvr_jax.tools.search:open_tool",
    "submit": "rlvr_jax.tools.submit:tool",
    "mcp": "rlvr_jax.tools.mcp:tools",
}
_OWN = ("description", "timeout", "tokens")  # fields of any tool that options set

Named = Sequence[str] | Mapping[str, Mapping[str, Any]]  # tools of a config, with their options


def make_tools(wanted: Named) -> tuple[Tool, ...]:
    """The tools of a config, in its order.

    Args:
      wanted: keys of `TOOLS` or functions' names; or, by the name with which the policy calls it, the options of each.

    Raises:
      ValueError: one can't be made, or two have the same name.
    """
    pairs = wanted.items() if isinstance(wanted, Mapping) else [(name, {}) for name in wanted]
    if isinstance(wanted, str) or not all(isinstance(name, str) for name, _ in pairs):
        raise ValueError(f"tools are a list of names, or a dictionary from a name to its options, not {wanted!r:.100}")
    made = tuple(tool for name, options in pairs for tool in _made(name, options))
    names = [tool.name for tool in made]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"there are two tools of the name {twice[0]!r}; name one otherwise: {{'{twice[0]}2': …}}, or give "
            "those of a server a prefix"
        )
    if not made:
        raise ValueError(f"tools are empty; there are {', '.join(TOOLS)}, and 'module:function'")
    return made


def make_tool(name: str, options: Mapping[str, Any] | None = None) -> Tool:
    """One tool; raises ValueError as `make_tools`."""
    (tool,) = _made(name, options)
    return tool


def _made(name: str, options: Mapping[str, Any] | None) -> tuple[Tool, ...]:
    """The tools of an entry of a config: one, or those of a server.

    Args:
      name: a key of `TOOLS`, or a function's name; or any other name, with the option `tool` for one of these.
      options: of the function that makes the tool, or further arguments of the tool's own function, which the policy
        does not see; and description, timeout and tokens, see `Tool`.

    Raises:
      ValueError: there is no such tool, it can't be made with these options, or its arguments have no schema.
    """
    if not isinstance(options, Mapping | None):
        raise ValueError(f"the options of the tool {name!r} must be a dictionary, not {options!r:.100}")
    options = dict(options or {})
    source = options.pop("tool", name)
    if not isinstance(source, str):
        raise ValueError(f"{name!r}: tool must be a name, not {source!r:.100}")
    if source not in TOOLS and not named.is_name(source):
        raise ValueError(f"there is no tool {source!r}; there are {', '.join(TOOLS)}, and 'module:function'")
    function = named.load(TOOLS.get(source, source))
    where = f"the tool {source!r}" if source in TOOLS else f"{named.where(source)}: {source!r}"
    takes = inspect.signature(function).parameters
    own = {key: options.pop(key) for key in _OWN if key in options and key not in takes}
    try:
        if source in TOOLS or _hints(function).get("return") in (Tool, tuple[Tool, ...]):
            named.check_options(function, options, typed=source in TOOLS, also=_OWN)
            found = function(**options)
        else:
            found = _of_function(source, function, options)
        if not isinstance(found, Tool):
            return tuple(replace(tool, **own) for tool in found)  # their names are those of their maker
        return (replace(found, **own, **({} if source == name else {"name": name})),)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"{where}: {type(error).__name__}: {error}") from error


def _of_function(source: str, function: Any, options: Mapping[str, Any]) -> Tool:
    """A plain function as a tool, by its name."""
    takes = inspect.signature(function).parameters
    if unknown := [name for name in options if name not in takes]:
        raise ValueError(f"it takes no {', '.join(unknown)}, but {', '.join(takes)}")
    description, parameters = schema.of_function(function)
    properties = parameters["properties"]
    for option, value in options.items():
        if why := schema.wrong(properties[option], value, option):
            raise ValueError(why)
    parameters |= {
        "properties": {name: x for name, x in properties.items() if name not in options},
        "required": [name for name in parameters["required"] if name not in options],
    }
    return Tool(source.rpartition(":")[2].rpartition(".")[2], description, parameters, source, options)


def _hints(function: Any) -> dict[str, Any]:
    try:
        return typing.get_type_hints(function)
    except Exception:  # hints that name what is not there; the schema then says so
        return {}


__all__ = [
    "FORMATS",
    "TOOLS",
    "CallError",
    "Result",
    "Tool",
    "job_of",
    "make_format",
    "make_tool",
    "make_tools",
    "result_of",
    "shown",
]
