"""The key-value world of `rlvr_jax.tasks.key_value`: answers searches until the policy answers the question."""

import re
from collections.abc import Mapping

from rlvr_jax.envs.env import Action, CallRecord, Done, Env, Say
from rlvr_jax.tasks.key_value import LETTERS, value
from rlvr_jax.tasks.task import Example
from rlvr_jax.text.prompts import Tools

_CALL = re.compile(f"<([{LETTERS}]{{2}})>")
MALFORMED = "!!|"  # the observation after a turn that is neither a search nor an answer

_State = tuple[str, tuple[CallRecord, ...]]  # world, searches


def key_value() -> Env:
    """Searches `<cg>` are answered by the value of the key and `|`, other turns by `!!|`; `#` begins the answer.

    Parts: `calls`, the number of turns before the answer, and `malformed`, those of them that are no search.
    """

    def start(example: Example) -> tuple[_State, str]:
        if not (isinstance(example.reference, Mapping) and isinstance(example.reference.get("world"), str)):
            raise ValueError(f"it is for problems of the task key_value, and {example.id} has no world")
        return (example.reference["world"], ()), example.prompt

    def step(state: _State, text: str) -> tuple[_State, Action]:
        if text.startswith("#"):
            return state, Done()
        (world, calls), asked = state, _CALL.fullmatch(text)
        said = f"{value(world, asked[1])}|" if asked else MALFORMED
        outcome = "ok" if asked else "malformed"
        call = CallRecord(len(calls), "search", outcome, characters=len(said), executed=asked is not None)
        return (world, (*calls, call)), Say(said)

    def parts_of(state: _State) -> dict[str, float]:
        _, calls = state
        return {"calls": len(calls), "malformed": sum(not call.executed for call in calls)}

    return Env(
        start,
        step,
        parts=("calls", "malformed"),
        parts_of=parts_of,
        calls_of=lambda state: state[1],
        tools=Tools(({"type": "function", "function": {"name": "search"}},), ""),  # for metrics
        ends=(">",),
    )
