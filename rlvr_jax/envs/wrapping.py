"""Environments around others: what these go on to do themselves."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from rlvr_jax.envs.env import Action, Env, checked
from rlvr_jax.text.messages import Messages


def passed_on(env: Env) -> dict[str, Any]:
    """The fields of an environment around this one, whose state is the attribute `inner` of the other's."""

    def changed(function: Callable[..., Any] | None) -> Callable[..., Any] | None:
        return function and (lambda state, *given: replace(state, inner=function(state.inner, *given)))

    def read(function: Callable[..., Any] | None) -> Callable[[Any], Any] | None:
        return function and (lambda state, *given: function(state.inner, *given))

    def reworded(state: Any) -> tuple[Any, Action]:
        inner, action = env.reworded(state.inner)
        return replace(state, inner=inner), action

    changing = {name: changed(getattr(env, name)) for name in ("drawn", "at", "read")}
    reading = {name: read(getattr(env, name)) for name in ("parts_of", "calls_of", "judged", "budget")}
    plain = (
        *("parts", "check", "one_turn", "one_sequence", "sandboxes", "tools", "ends", "says"),
        *("reserve", "added", "inner", "asked"),
    )
    values = {name: getattr(env, name) for name in plain}
    return changing | reading | values | {"reworded": env.reworded and reworded}


def bound(rules: Any, functions: Mapping[str, Callable[..., Any] | None]) -> dict[str, Any]:
    """Fields of an environment: functions of its rules and what `Env` says, without the rules; None stays None."""
    return {name: function and partial(function, rules) for name, function in functions.items()}


def went_on(inner: Env, state: Any, returned: Any) -> tuple[Any, Action]:
    """The state of an environment around `inner`, and the action, after a function of `inner` has returned."""
    after, action = checked(inner, returned)
    return replace(state, inner=after), action


def with_parts(inner: Env, state: Any, own: Mapping[str, float]) -> dict[str, float]:
    """The parts of an environment around `inner`: those of `inner` and its own."""
    return {**(inner.parts_of(state.inner) if inner.parts_of else {}), **own}


def pieces(template: str, places: Collection[str]) -> list[str]:
    """The template divided at the places, which are pieces of their own."""
    return re.split(f"({'|'.join(map(re.escape, places))})", template)


def filled(template: str, texts: Mapping[str, str]) -> str:
    """The template with a text in each place, all at once: a text may hold what looks like another place."""
    return "".join(texts.get(piece, piece) for piece in pieces(template, texts))


def text_of(said: str | Messages) -> str:
    """The text of a problem or an observation, the last of its messages."""
    return said if isinstance(said, str) else said[-1]["content"]


def with_text(said: str | Messages, text: str) -> str | Messages:
    """The problem or observation with another text, that of its last message."""
    return text if isinstance(said, str) else (*said[:-1], {**said[-1], "content": text})
