"""Environments: the other side of an episode. Pure functions of the example and the policy's turns."""

from collections.abc import Callable, Mapping
from typing import Any

from rlvr_jax import named
from rlvr_jax.envs.env import Action, Call, Done, Env, FinishReason, Say, ToolResult, single_turn
from rlvr_jax.verifiers.jobs import ToolCall

ENVS: Mapping[str, Callable[..., Env]] = {"single_turn": single_turn}


def make_env(name: str, options: Mapping[str, Any] | None = None) -> Env:
    """The environment of a config.

    Args:
      name: a key of `ENVS`, or the `module:function` or `file.py:function` that returns an `Env`.
      options: keyword arguments of the function.

    Raises:
      ValueError: there is no such function, it can't be called with these options, or it returns something else.
    """
    if name in ENVS:
        make, where = ENVS[name], f"the environment {name!r}"
    elif named.is_name(name):
        make, where = named.load(name), f"{named.where(name)}: {name!r}"
    else:
        raise ValueError(f"there is no environment {name!r}; there are {', '.join(ENVS)}, and 'module:function'")
    try:
        env = make(**(options or {}))
    except Exception as error:
        raise ValueError(f"{where}: {type(error).__name__}: {error}") from error
    if not isinstance(env, Env):
        raise ValueError(f"{where} returned {type(env).__name__}, not an rlvr_jax.envs.Env")
    return env


__all__ = [
    "ENVS",
    "Action",
    "Call",
    "Done",
    "Env",
    "FinishReason",
    "Say",
    "ToolCall",
    "ToolResult",
    "make_env",
    "single_turn",
]
