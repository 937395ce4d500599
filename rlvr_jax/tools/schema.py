"""Arguments of a tool: their JSON schema from a function's signature and docstring, and checks against a schema.

The keywords of JSON Schema (draft 2020-12) that are checked: type, enum, const, anyOf, properties, required,
additionalProperties (false or not), items, minimum, maximum, minLength, maxLength, minItems, maxItems. Others, such as
`pattern`, are for the tool's own function; references are put in before, by `resolved`. An object takes no properties
but those named, unless additionalProperties says so: a misspelled argument is a mistake to be told.
"""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

from rlvr_jax.quiet import transformers

_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "string": lambda x: isinstance(x, str),
    "integer": lambda x: (isinstance(x, int) and not isinstance(x, bool)) or (isinstance(x, float) and x.is_integer()),
    "number": lambda x: isinstance(x, int | float) and not isinstance(x, bool),
    "boolean": lambda x: isinstance(x, bool),
    "array": lambda x: isinstance(x, list | tuple),
    "object": lambda x: isinstance(x, Mapping),
    "null": lambda x: x is None,
}
_BOUNDS: Mapping[str, tuple[type, Callable[[Any, Any], bool], str]] = {
    "minimum": (float, lambda x, bound: x >= bound, "must be at least {}"),
    "maximum": (float, lambda x, bound: x <= bound, "must be at most {}"),
    "minLength": (str, lambda x, bound: len(x) >= bound, "must have at least {} characters"),
    "maxLength": (str, lambda x, bound: len(x) <= bound, "must have at most {} characters"),
    "minItems": (list, lambda x, bound: len(x) >= bound, "must have at least {} items"),
    "maxItems": (list, lambda x, bound: len(x) <= bound, "must have at most {} items"),
}
_MOST_REFERENCES = 1000
# Keywords whose values are schemas, schemas by name, and lists of schemas.
_SCHEMAS = frozenset({"items", "contains", "not", "if", "then", "else", "propertyNames"})
_MAPS_OF_SCHEMAS = frozenset({"properties", "patternProperties", "dependentSchemas"})
_LISTS_OF_SCHEMAS = frozenset({"anyOf", "allOf", "oneOf", "prefixItems"})


def of_function(function: Callable[..., Any]) -> tuple[str, dict[str, Any]]:
    """The description and the schema of a function's arguments, from its type hints and its docstring (Google's style).

    Args:
      function: every argument has a type hint and a line in the docstring.

    Raises:
      ValueError: a hint or a description is missing.
    """
    utils = transformers().utils
    try:
        found = utils.get_json_schema(function)["function"]
    except Exception as error:  # transformers raises several types
        raise ValueError(f"its arguments have no schema: {error}") from error
    parameters = dict(found["parameters"])
    properties, required = dict(parameters.get("properties", {})), list(parameters.get("required", ()))
    return found["description"], {"type": "object", "properties": properties, "required": required}


def resolved(schema: Mapping[str, Any]) -> dict[str, Any]:
    """A valid schema with the definitions that it refers to (`"$ref": "#/$defs/NAME"`) in the places of the references.

    A schema within it that is `true` or `false` becomes one that takes anything or nothing.

    Raises:
      ValueError: a reference leads nowhere, out of the schema or into itself, or there are more than 1000 in all.
    """
    left = itertools.repeat(None, _MOST_REFERENCES)

    def inner(part: Any, within: tuple[str, ...]) -> Any:
        if isinstance(part, bool):
            return {} if part else {"enum": []}
        if "$ref" in part:
            name = part["$ref"]
            if name in within:
                raise ValueError(f"the reference {name!r} leads into itself, which is not supported")
            if next(left, name) is not None:
                raise ValueError(f"more than {_MOST_REFERENCES} references")
            rest = {key: x for key, x in part.items() if key != "$ref"}
            return {**inner(_target(schema, name), (*within, name)), **inner(rest, within)}
        found = dict(part)
        for key in _SCHEMAS & part.keys():
            found[key] = inner(part[key], within)
        if isinstance(part.get("additionalProperties"), Mapping):
            found["additionalProperties"] = inner(part["additionalProperties"], within)
        for key in _MAPS_OF_SCHEMAS & part.keys():
            found[key] = {name: inner(x, within) for name, x in part[key].items()}
        for key in _LISTS_OF_SCHEMAS & part.keys():
            found[key] = [inner(x, within) for x in part[key]]
        return found

    return inner({key: x for key, x in schema.items() if key not in ("$defs", "definitions")}, ())


def _target(schema: Mapping[str, Any], name: str) -> Any:
    found: Any = schema
    start, *path = name.split("/")
    for part in path:
        part = part.replace("~1", "/").replace("~0", "~")
        found = found.get(part) if isinstance(found, Mapping) else None
    if start != "#" or not isinstance(found, Mapping | bool):
        raise ValueError(f"the reference {name!r} leads to no part of the schema")
    return found


def nesting(value: Any) -> int:
    """The levels of JSON data: 1 for a number, 2 for a list of numbers."""
    level, levels = [value], 0
    while level:
        levels += 1
        parts = [x.values() if isinstance(x, Mapping) else x for x in level if isinstance(x, Mapping | list | tuple)]
        level = list(itertools.chain.from_iterable(parts))
    return levels


def wrong(schema: Mapping[str, Any], value: Any, where: str = "the arguments") -> str | None:
    """The first reason why a value does not fit a schema; None if it fits. The schema is as `resolved` returns it."""
    if "anyOf" in schema:
        reasons = [wrong(option, value, where) for option in schema["anyOf"]]
        if None not in reasons:
            return reasons[0]
    if "type" in schema:
        types = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        checks = [_TYPES[name] for name in types if name in _TYPES]
        missing = value is None and schema.get("nullable")
        if checks and not missing and not any(check(value) for check in checks):
            return f"{where} must be of type {' or '.join(types)}, not {value!r:.100}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{where} must be one of {', '.join(map(repr, schema['enum']))}, not {value!r:.100}"
    if "const" in schema and value != schema["const"]:
        return f"{where} must be {schema['const']!r}, not {value!r:.100}"
    for name, (kind, holds, text) in _BOUNDS.items():
        applies = isinstance(value, int | float if kind is float else kind) and not isinstance(value, bool)
        if name in schema and applies and not holds(value, schema[name]):
            return f"{where} {text.format(schema[name])}"
    if isinstance(value, Mapping):
        return _wrong_object(schema, value, where)
    if isinstance(value, list | tuple) and "items" in schema:
        return next((why for i, x in enumerate(value) if (why := wrong(schema["items"], x, f"{where}[{i}]"))), None)
    return None


def converted(schema: Mapping[str, Any], value: Any) -> Any:
    """A value that fits a schema, with 5 for 5.0 where it is an integer: JSON has one type for both."""
    if "anyOf" in schema:
        fitting = [option for option in schema["anyOf"] if wrong(option, value) is None]
        return converted(fitting[0], value) if fitting else value
    types = schema.get("type")
    types = [types] if isinstance(types, str) else types or ()
    if isinstance(value, float) and "integer" in types and "number" not in types:
        return int(value)
    if isinstance(value, Mapping):
        inner = schema.get("properties", {})
        return {name: converted(inner.get(name, {}), x) for name, x in value.items()}
    if isinstance(value, list | tuple):
        return [converted(schema.get("items", {}), x) for x in value]
    return value


def _wrong_object(schema: Mapping[str, Any], value: Mapping[str, Any], where: str) -> str | None:
    properties = schema.get("properties", {})
    if missing := [name for name in schema.get("required", ()) if name not in value]:
        return f"{where} lack {', '.join(missing)}"
    extra = [name for name in value if name not in properties]
    if extra and schema.get("additionalProperties", not properties) is False:
        return f"{where} have {', '.join(map(str, extra))}, and may have {', '.join(properties)}"
    for name, inner in properties.items():
        if name in value and (why := wrong(inner, value[name], name)):
            return why
    return None
