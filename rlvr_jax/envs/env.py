"""The record of an environment, and the actions that its functions return.

An environment is two pure functions. `start` gives the state of an episode and its prompt; `step` gives, for the text
of a turn, the next state and one of three actions: `Say` what the policy reads next, `Call` tools, or `Done`. After a
`Call` the function `receive` gets the results of the tools and returns the same as `step`. States are values: a
function returns a new one and changes none.

    def start(example):
        return 0, example.prompt

    def step(state, text):
        return (state, Done()) if "yes" in text or state == 2 else (state + 1, Say("Are you sure?\n"))

    doubtful = Env(start, step)

Functions run in the training process, so what may hang or crash belongs into a tool, which runs in the verifier pool
under a limit of time and memory. An environment that raises or returns something else ends its episode, which is then
left out of its group.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rlvr_jax.tasks.task import Example
from rlvr_jax.text.messages import Messages
from rlvr_jax.verifiers.jobs import ToolCall

# "stop": the environment was done; "length": a turn ran out of tokens; "window": what the environment said did not fit
# into the rest of the window; "turns": the limit of turns; "env_error": the environment failed; "tool_error": the
# environment gave up because of a tool.
FinishReason = Literal["stop", "length", "window", "turns", "env_error", "tool_error"]


@dataclass(frozen=True)
class Say:
    """What the policy reads before its next turn: text, or messages for the chat template (a text becomes a user's)."""

    observation: str | Messages


@dataclass(frozen=True)
class ToolResult:
    """What a tool returned, or why it did not."""

    value: Any = None
    error: str | None = None


@dataclass(frozen=True)
class Call:
    """Tools to run; `Env.receive` gets a `ToolResult` for each, in their order."""

    calls: tuple[ToolCall, ...]


@dataclass(frozen=True)
class Done:
    """The end of an episode.

    Attributes:
      parts: numbers that join those of the verdict, for reward design and reports; their names are in `Env.parts`.
      reason: why it ended.
    """

    parts: Mapping[str, float] = field(default_factory=dict)
    reason: FinishReason = "stop"


Action = Say | Call | Done


@dataclass(frozen=True)
class Env:
    """An environment, see the module.

    Attributes:
      start: example -> (state, prompt).
      step: (state, text of the policy's turn) -> (state, action).
      receive: (state, results of the tools) -> (state, action); None for environments that call none.
      parts: the names of the numbers that `Done.parts` may have; one that an episode does not have is 0.
      one_turn: the first turn is always the last. Its episodes may be sampled in whole batches.
    """

    start: Callable[[Example], tuple[Any, str | Messages]]
    step: Callable[[Any, str], tuple[Any, Action]]
    receive: Callable[[Any, tuple[ToolResult, ...]], tuple[Any, Action]] | None = None
    parts: tuple[str, ...] = ()
    one_turn: bool = False


def single_turn() -> Env:
    """The policy answers the problem once."""
    return Env(lambda example: (None, example.prompt), lambda state, _: (state, Done()), one_turn=True)
