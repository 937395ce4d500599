"""The kwargs of an instruction, validated against the annotations of its check.

In the files of IFEval and of data sets made after it, an instruction's kwargs may hold the keys of all other
instructions too, as null, and numbers may have become floats.
"""

import functools
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal


@functools.cache
def _annotations(check: Callable[..., bool]) -> dict[str, Any]:
    """The kwargs of a check with their types; all of them are required."""
    _, *names = inspect.signature(check).parameters
    hints = typing.get_type_hints(check)
    return {name: hints[name] for name in names}


def _value(hint: Any, value: Any, name: str) -> Any:
    if hint is int:
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if type(value) is int and value >= 0:
            return value
        wanted = "a whole number, 0 or more"
    elif hint is float:
        if type(value) in (int, float) and value >= 0:
            return float(value)
        wanted = "a number, 0 or more"
    elif hint is str:
        if isinstance(value, str) and value.strip():
            return value
        wanted = "text"
    elif typing.get_origin(hint) is Literal:
        if value in typing.get_args(hint):
            return value
        wanted = f"one of {', '.join(map(repr, typing.get_args(hint)))}"
    else:  # list[str]
        if isinstance(value, list | tuple) and value and all(isinstance(item, str) and item.strip() for item in value):
            return list(value)
        wanted = "a list of texts"
    raise ValueError(f"{name} must be {wanted}, not {value!r}")


def bind(check: Callable[..., bool], kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """The kwargs of an instruction for its check, without those that are null; None stands for none.

    Raises:
      ValueError: one is missing, unknown, or of another type than the check's annotation says.
    """
    if not isinstance(kwargs, Mapping | None):
        raise ValueError(f"kwargs must be a mapping, not {kwargs!r}")
    given = {name: value for name, value in (kwargs or {}).items() if value is not None}
    hints = _annotations(check)
    if missing := hints.keys() - given.keys():
        raise ValueError(f"it needs {', '.join(sorted(missing))}")
    if unknown := given.keys() - hints.keys():
        raise ValueError(f"it takes no {', '.join(sorted(map(str, unknown)))}")
    return {name: _value(hint, given[name], name) for name, hint in hints.items()}
