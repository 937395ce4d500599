"""Environments: pure functions of the example and the policy's turns."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from rlvr_jax import named
from rlvr_jax.envs.compaction import compaction
from rlvr_jax.envs.env import (
    Action,
    Ask,
    Call,
    CallRecord,
    Done,
    Env,
    FinishReason,
    Force,
    NewWindow,
    Say,
    ToolResult,
    begin,
    begin_group,
    checked,
    is_single_turn,
    single_turn,
)
from rlvr_jax.envs.games import nim, tic_tac_toe
from rlvr_jax.envs.grid_world import grid_world
from rlvr_jax.envs.key_value import key_value
from rlvr_jax.envs.plans import plans
from rlvr_jax.envs.propose import propose
from rlvr_jax.envs.reasoning_gym import reasoning_gym_game
from rlvr_jax.envs.stream import stream
from rlvr_jax.envs.subcalls import subcalls
from rlvr_jax.envs.tool_use import tool_use
from rlvr_jax.envs.verifiers_env import verifiers_env
from rlvr_jax.errors import error_text
from rlvr_jax.verifiers.jobs import ToolCall
from rlvr_jax.verifiers.verdict import names_a_part

ENVS: Mapping[str, Callable[..., Env]] = {
    "single_turn": single_turn,
    "tools": tool_use,
    "key_value": key_value,
    "grid_world": grid_world,
    "tic_tac_toe": tic_tac_toe,
    "nim": nim,
    "stream": stream,
    "propose": propose,
    "reasoning_gym_game": reasoning_gym_game,
    "verifiers": verifiers_env,
}

# Around another environment, which the options `environment` and `environment_options` name, by default `single_turn`.
WRAPPERS: Mapping[str, Callable[..., Env]] = {"compaction": compaction, "plans": plans, "subcalls": subcalls}

_WITHIN: Mapping[str, Any] = {"environment": "single_turn", "environment_options": None}


def make_env(name: str, options: Mapping[str, Any] | None = None) -> Env:
    """The environment of a config.

    Args:
      name: a key of `ENVS` or `WRAPPERS`, or the `module:function` or `file.py:function` that returns an `Env`.
      options: keyword arguments of the function, for `WRAPPERS` with `environment` and `environment_options`.

    Raises:
      ValueError: there is no such function, it can't be called with these options, or it does not return an `Env` of
        functions and names.
    """
    options = {} if options is None else options
    if name in WRAPPERS:
        make, where = WRAPPERS[name], f"the environment {name!r}"
    elif name in ENVS:
        make, where = ENVS[name], f"the environment {name!r}"
    elif named.is_name(name):
        make, where = named.load(name), f"{named.where(name)}: {name!r}"
    else:
        known = ", ".join([*ENVS, *WRAPPERS])
        raise ValueError(f"there is no environment {name!r}; there are {known}, and 'module:function'")
    try:
        inner = ()
        if name in WRAPPERS and isinstance(options, Mapping):
            options = dict(options)
            inner = (make_env(*(options.pop(key, other) for key, other in _WITHIN.items())),)
        named.check_options(make, options, not named.is_name(name), _WITHIN if inner else (), len(inner))
        env = make(*inner, **options)
        if inner and inner[0].fitted is not None:
            env = replace(env, fitted=lambda shorten: make(inner[0].fitted(shorten), **options))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    except (Exception, SystemExit) as error:
        raise ValueError(f"{where}: {error_text(error)}") from error
    if not isinstance(env, Env):
        raise ValueError(f"{where} returned {type(env).__name__}, not an rlvr_jax.envs.Env")
    if wrong := _wrong(env):
        raise ValueError(f"{where}: {wrong}")
    return env


def _wrong(env: Env) -> str | None:
    """Why an environment can't be used, or None."""
    if not isinstance(env.parts, tuple | list) or not all(map(names_a_part, env.parts)):
        return f"Env.parts is {env.parts!r}, not a tuple of names"
    for name, count in (("start", 1), ("step", 2), ("receive", 2)):
        function = getattr(env, name)
        if name == "receive" and function is None:
            continue
        if not callable(function):
            return f"Env.{name} is {function!r:.100}, not a function"
        try:
            inspect.signature(function).bind(*[None] * count)
        except TypeError as error:
            return f"Env.{name} takes {inspect.signature(function)}, and gets {count} arguments: {error}"
        except ValueError:  # some built-in functions have no signature
            continue
    return None


__all__ = [
    "ENVS",
    "WRAPPERS",
    "Action",
    "Ask",
    "Call",
    "CallRecord",
    "Done",
    "Env",
    "FinishReason",
    "Force",
    "NewWindow",
    "Say",
    "ToolCall",
    "ToolResult",
    "begin",
    "begin_group",
    "checked",
    "is_single_turn",
    "make_env",
    "single_turn",
]
