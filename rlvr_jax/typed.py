"""Values of a config by the annotated types of its dataclasses: checked, and named in errors by their keys."""

import dataclasses
import difflib
import functools
import math
import typing
from collections.abc import Mapping
from typing import Any, Literal

from rlvr_jax.errors import ConfigError

_TINY, _LARGEST = 2.0**-126, (2 - 2.0**-23) * 2.0**127  # normal floating-point numbers of 32 bits
hints = functools.cache(typing.get_type_hints)  # of a dataclass, by key


def check_key(key: Any, kind: type, before: str) -> None:
    """Raises ConfigError if a dataclass has no such key; `before` is the name of its group, with a dot."""
    known = hints(kind)
    if key not in known:
        close = difflib.get_close_matches(str(key), known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(known)}"
        raise ConfigError(f"config.{before}{key}: there is no such key; {hint}")


def record(default: Any, data: Any, name: str = "") -> Any:
    """The dataclass `default` with the values of `data`, nested dictionaries.

    Args:
      default: of which absent keys take the values.
      data: by key.
      name: of the group in the config, with a dot; empty for the config itself.

    Raises:
      ConfigError: an unknown key or a wrong type, by its full name.
    """
    if not isinstance(data, Mapping):
        raise ConfigError(f"config.{name.rstrip('.')} must be a group of keys, not {data!r}")
    for key in data:
        check_key(key, type(default), name)
    kinds = hints(type(default))
    values = {key: _value(kinds[key], value, name + key, getattr(default, key)) for key, value in data.items()}
    return dataclasses.replace(default, **values)


def _beyond(hint: type, value: Any) -> str | None:
    """Why a value of the right type is none for devices and files; infinities are checked by `config_rules`."""
    if hint is str and "\0" in value:
        return "holds a NUL character"
    if hint is int and not -(2**63) <= value < 2**63:
        return "is beyond 64 bits"
    if hint is float and value and not _TINY <= abs(value) <= _LARGEST and abs(value) < math.inf:
        return "is beyond the floating-point numbers of 32 bits"
    return None


def _is_one(hint: Any, value: Any) -> bool:
    """True for a tuple or list that is itself an item: ("score", 1.0) for (("score", 1.0),)."""
    if typing.get_origin(hint) is not tuple:
        return False
    try:
        _value(hint, value, "")
    except ConfigError:
        return False
    return True


def _value(hint: Any, value: Any, name: str, default: Any = None) -> Any:
    """`value` as the annotated type `hint`; tuples may come as lists, floats as integers."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return record(default, value, name + ".")
    if origin is Literal:
        if value not in args:
            raise ConfigError(f"config.{name} must be one of {', '.join(map(repr, args))}, not {value!r}")
        return value
    if origin is tuple and isinstance(value, list | tuple):
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else args
        if len(kinds) == len(value):
            if args[-1] is Ellipsis and _is_one(args[0], value):
                right = (tuple(value),)
                raise ConfigError(f"config.{name} must be {right!r}, with a comma behind its only item, not {value!r}")
            usual = default[0] if args[-1] is Ellipsis and default else None
            return tuple(
                _value(kind, x, f"{name}[{i}]", usual) for i, (kind, x) in enumerate(zip(kinds, value, strict=True))
            )
    elif origin is Mapping and isinstance(value, Mapping):
        if wrong := [key for key in value if not isinstance(key, str)]:
            raise ConfigError(f"config.{name} has the key {wrong[0]!r:.100}, and keys are texts")
        if dataclasses.is_dataclass(args[1]):
            return {key: record(args[1](), x, f"{name}.{key}.") for key, x in value.items()}
        if args[1] is not Any:
            return {key: _value(args[1], x, f"{name}.{key}") for key, x in value.items()}
        return dict(value)  # options, checked by their function
    elif type(value) is hint or (hint is float and type(value) is int):
        if wrong := _beyond(hint, value):
            raise ConfigError(f"config.{name} {wrong}: {value!r:.100}")
        return hint(value)
    wanted = getattr(hint, "__name__", hint) if origin is None else hint
    example = f"; an example is {default!r}" if origin is tuple and default else ""
    raise ConfigError(f"config.{name} must be of type {wanted}, not {value!r}{example}")
