"""Function calls against allowed ones, by the rules of the Berkeley Function Calling Leaderboard (Patil et al. 2025).

A problem allows one call, with a list of allowed values for each parameter; the value `""` in that list says that the
parameter may be left out. Or it allows none ("irrelevance"). The rules, of BFCL's abstract-syntax checker for Python:

- There is exactly one call, of the function by its name, with names for all arguments: all required ones, no unknown
  ones, and none left out that may not be.
- A value has the type of the schema: `string`, `integer`, `float` (which takes integers), `boolean`, `array` and
  `tuple` (lists, whose items have the type of `items`), `dict`, and `any`, which is text. A value of another type
  passes if the allowed values are of this type, too, and then must be equal to one.
- Texts are equal if they are so in lower case, without spaces and `,./-_*^`, and with all quotes alike. So are the
  texts in lists and in dictionaries.
- Dictionaries have a list of allowed values for each key, like the arguments. Lists of them are compared in order.

Calls are written as Python, `[f(a=1, b="x")]`, with or without the brackets; or as JSON, {"name", "arguments"}, between
`<tool_call>` tags. A call that can't be parsed is none, as for BFCL. No completion makes the verifier raise.
"""

import ast
import json
import math
import re
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

from rlvr_jax.text.keys import no_key_twice
from rlvr_jax.text.tags import END_TOOL_CALL, TOOL_CALL
from rlvr_jax.verifiers.verdict import Verdict

Format = Literal["python", "json"]
Calls = list[tuple[str, dict[str, Any]]]  # name and arguments

_MAX_LENGTH = 20_000  # characters of a completion that are parsed
_TYPES = {
    "string": str, "integer": int, "float": float, "boolean": bool, "array": list, "tuple": list, "dict": dict,
    "any": str, "number": float, "object": dict,
}  # fmt: skip
_IGNORED = re.compile(r"[ ,./\-_*^]")
_TOOL_CALL = re.compile(f"{TOOL_CALL}(.*?){END_TOOL_CALL}", re.DOTALL)


def verify(completion: str, reference: Mapping[str, Any], format: Format = "python") -> Verdict:
    """Scores 1 if the calls of the completion are those that the reference allows.

    Parts: `called`, whether there is a call; `right_function`, whether there is one call, of the function asked for, or
    rightly none.

    Args:
      completion: Python or JSON, see the module.
      reference: `{"function": name, "parameters": JSON schema, "allowed": {parameter: [value, …]}}`; None if no call is
        right.
      format: of the calls.

    Raises:
      ValueError: there is no such format, or the reference has another form.
    """
    if format not in get_args(Format):
        raise ValueError(f"bfcl: format must be one of {', '.join(get_args(Format))}, not {format!r}")
    _check(reference)
    calls = (_of_python if format == "python" else _of_json)(completion[:_MAX_LENGTH])
    shown = ", ".join(name for name, _ in calls) or None
    if reference is None:
        right = not calls
        parts = {"called": float(not right), "right_function": float(right)}
        return Verdict(
            float(right), parts, shown, "rightly no call" if right else "no function fits, and one was called"
        )
    wrong = "there is no call" if not calls else f"{len(calls)} calls instead of one" if len(calls) > 1 else ""
    if not wrong and calls[0][0] != reference["function"]:
        wrong = f"{calls[0][0]:.100} is not {reference['function']}"
    parts = {"called": float(bool(calls)), "right_function": float(not wrong)}
    wrong = wrong or wrong_arguments(calls[0][1], reference["parameters"], reference["allowed"])
    return Verdict(float(not wrong), parts, shown, wrong or "right")


def wrong_arguments(
    arguments: Mapping[str, Any], parameters: Mapping[str, Any], allowed: Mapping[str, Sequence[Any]]
) -> str:
    """Why the arguments of a call are not among the allowed ones; empty if they are.

    Args:
      arguments: by name.
      parameters: JSON schema of all, with `properties` and `required`.
      allowed: the allowed values of each.
    """
    properties = parameters["properties"]
    for name in parameters.get("required", ()):
        if name not in arguments:
            return f"the argument {name} is missing"
    for name, value in arguments.items():
        if name not in properties or name not in allowed:
            return f"the argument {name:.100} is not allowed"
        if wrong := _wrong_value(value, properties[name], allowed[name]):
            return f"{name}: {wrong}"
    for name, values in allowed.items():
        if name not in arguments and "" not in values:
            return f"the argument {name} may not be left out"
    return ""


def _wrong_value(value: Any, schema: Mapping[str, Any], allowed: Sequence[Any]) -> str:
    kind = _TYPES[schema["type"]]
    item = _TYPES[schema["items"]["type"]] if kind is list and "items" in schema else None
    if schema["type"] == "tuple" and type(value) is tuple:
        value = list(value)
    if kind is float and type(value) is int:
        value = float(value) if abs(value) <= sys.float_info.max else math.inf
    other = _type_of(allowed)
    if not _items_fit(value, item, allowed) if type(value) is kind else type(value) is not other:
        return f"{_shown(value)} is not of the type {schema['type']}"
    exact = type(value) is not kind or other not in (kind, None)  # such as the name of a variable
    if exact:
        right = value in allowed
    elif kind is dict:
        right = any(_dict_fits(value, one) for one in allowed if one != "")
    elif kind is list and item is dict:
        right = any(_dicts_fit(value, one) for one in allowed if isinstance(one, list | str))
    elif kind is list:
        right = _alike(value) in [_alike(list(one)) for one in allowed if isinstance(one, list | str)]
    else:
        right = _alike(value) in [_alike(one) for one in allowed]
    return "" if right else f"{_shown(value)} is not an allowed value"


def _shown(value: Any) -> str:
    try:
        return f"{value!r:.100}"
    except (ValueError, RecursionError):  # more digits, or deeper lists, than Python writes
        return f"this {type(value).__name__}"


def _type_of(allowed: Sequence[Any]) -> type | None:
    """The type of the allowed values; None if there is only the empty one."""
    return next((type(one) for one in allowed if one != ""), None)


def _items_fit(value: Any, item: type | None, allowed: Sequence[Any]) -> bool:
    """True if all items of a list have the type of the schema, or that of the items of one of the allowed lists."""
    if item is None:
        return True
    return any(
        not isinstance(one, list) or all(type(x) is item or type(x) is _type_of(one) for x in value) for one in allowed
    )


def _dict_fits(value: Any, allowed: Mapping[str, Sequence[Any]]) -> bool:
    if not isinstance(value, dict) or not isinstance(allowed, Mapping):
        return False
    if any(key not in allowed or _alike(x) not in [_alike(one) for one in allowed[key]] for key, x in value.items()):
        return False
    return all(key in value or "" in values for key, values in allowed.items())


def _dicts_fit(value: Sequence[Any], allowed: Sequence[Any]) -> bool:
    return len(value) == len(allowed) and all(_dict_fits(*pair) for pair in zip(value, allowed, strict=True))


def _alike(value: Any) -> Any:
    """The value in the form in which equal ones are equal; lists only at the first level, as BFCL does."""
    if isinstance(value, str):
        return _IGNORED.sub("", value).lower().replace("'", '"')
    if isinstance(value, list):
        return [_alike(x) if isinstance(x, str) else x for x in value]
    return value


def _of_python(text: str) -> Calls:
    """The calls of Python code; none if it is anything else."""
    text = text.strip().strip("`").strip()
    text = text.removeprefix("python\n").strip()
    if not text.startswith("["):
        text = f"[{text}]"
    try:
        with warnings.catch_warnings(action="ignore"):  # of odd escapes
            body = ast.parse(text, mode="eval").body
        if not isinstance(body, ast.List):
            return []
        return [_call(node) for node in body.elts]
    except Exception:  # the compiler and the evaluation of literals raise many kinds for odd text
        return []


def _call(node: ast.expr) -> tuple[str, dict[str, Any]]:
    """A call; of arguments without a name that is theirs alone the name is empty. Raises ValueError if it is none."""
    if not isinstance(node, ast.Call):
        raise ValueError("no call")
    name = node.func
    while isinstance(name, ast.Attribute):
        name = name.value
    if not isinstance(name, ast.Name):
        raise ValueError("no function's name")
    names = [word.arg for word in node.keywords]
    unnamed = dict.fromkeys([""] if node.args or None in names or len(set(names)) < len(names) else [])
    return ast.unparse(node.func), unnamed | {word.arg: _literal(word.value) for word in node.keywords if word.arg}


def _literal(node: ast.expr) -> Any:
    """The value of a literal, or the text of any other expression."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


def _of_json(text: str) -> Calls:
    """The calls between tags; none if one of them is no call."""
    calls = []
    for inner in _TOOL_CALL.findall(text):
        try:
            call = json.loads(inner, object_pairs_hook=no_key_twice)
        except (ValueError, RecursionError):
            return []
        if not (isinstance(call, dict) and isinstance(call.get("name"), str)):
            return []
        if not isinstance(call.get("arguments", {}), dict):
            return []
        calls.append((call["name"], call.get("arguments", {})))
    return calls


def _check(reference: Any) -> None:
    """Raises ValueError for a reference that can't be judged by."""
    if reference is None:
        return
    kinds = {"function": str, "parameters": Mapping, "allowed": Mapping}
    if not (
        isinstance(reference, Mapping) and all(isinstance(reference.get(key), kind) for key, kind in kinds.items())
    ):
        raise ValueError(
            'the reference of a bfcl example is {"function", "parameters", "allowed"}, or None if no call is right, '
            f"not {reference!r:.100}"
        )
    properties, required = reference["parameters"].get("properties"), reference["parameters"].get("required", [])
    if not isinstance(properties, Mapping):
        raise ValueError(f"the parameters of {reference['function']} have no 'properties', a schema for each")
    if not isinstance(required, list | tuple) or not set(map(str, required)) <= properties.keys():
        raise ValueError(f"the parameters of {reference['function']} require {required!r:.100}, not names of theirs")
    for name, schema in properties.items():
        schemas = [schema, schema["items"]] if isinstance(schema, Mapping) and "items" in schema else [schema]
        if not all(isinstance(x, Mapping) and x.get("type") in [*_TYPES] for x in schemas):
            raise ValueError(
                f"the parameter {name} of {reference['function']} has the schema {schema!r:.100}; it and its 'items' "
                f"need one of the types {', '.join(_TYPES)}"
            )
    for name, values in reference["allowed"].items():
        if not isinstance(values, list | tuple) or not all(map(_has_lists, values)):
            raise ValueError(
                f"the allowed values of {name} must be a list, also for each key of a dictionary, not {values!r:.100}"
            )


def _has_lists(value: Any) -> bool:
    """True if a dictionary, or each of a list, has a list of allowed values for each key."""
    inner = value if isinstance(value, list) else [value]
    return all(isinstance(x, list) for one in inner if isinstance(one, Mapping) for x in one.values())
