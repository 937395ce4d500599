"""An episode while it is played: its records, limits and requests."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt32

from rlvr_jax.envs import CallRecord, Env, Say, ToolResult, begin_group
from rlvr_jax.rollout.episode import Episode, Span
from rlvr_jax.rollout.requests import Request, Turn
from rlvr_jax.tasks.task import Example, Task
from rlvr_jax.text.messages import Messages
from rlvr_jax.verifiers import error_text, failure
from rlvr_jax.verifiers.jobs import ToolError
from rlvr_jax.verifiers.verdict import Verdict

Limited = Callable[[Callable[[], Any]], Any]  # calls a function for a limited time, see `rlvr_jax.time_limit`


@dataclass(frozen=True)
class Source:
    """A task with its environment.

    Attributes:
      task: for its verifier.
      env: the environment of its episodes.
      observe: (observation, last token of the turn) -> tokens of the observation.
      ends: tokens that end a turn, besides `Limits.stop_tokens`, and belong to its text.
    """

    task: Task
    env: Env
    observe: Callable[[str | Messages, int], list[int]]
    ends: tuple[int, ...] = ()


@dataclass(frozen=True)
class Limits:
    """The limits of an episode.

    Attributes:
      prompt: maximum tokens of the prompt.
      response: maximum tokens after the prompt, observations included.
      turn: maximum tokens of one turn; 0 for no limit but `response`.
      turns: maximum number of the policy's turns.
      stop_tokens: the ids that end a turn.
      seconds: maximum time of one call of an environment's function; None for no limit.
    """

    prompt: int
    response: int
    turn: int = 0
    turns: int = 16
    stop_tokens: tuple[int, ...] = ()
    seconds: float | None = None


@dataclass
class Playing:
    """An unfinished episode, or a finished one with the future of its verdict."""

    id: int
    sample: int
    example: Example
    key: UInt32[np.ndarray, "words"]
    temperature: float
    source: Source
    spans: list[Span]
    own: bool  # its group belongs to this process
    state: Any = None
    turns: list[str] = field(default_factory=list)
    tools: Sequence[Future] = ()
    calls: int = 0  # since the last turn
    so_far: Mapping[str, Any] = field(default_factory=dict)  # `account` after the last action
    episode: Episode | None = None
    verdict: Future | None = None

    @property
    def env(self) -> Env:
        """Its environment."""
        return self.source.env

    @property
    def response_length(self) -> int:
        """Tokens after the prompt."""
        return sum(len(span.tokens) for span in self.spans[1:])


def request_of(playing: Playing, limits: Limits, **tokens: Int32[np.ndarray, "_"]) -> Request:
    """The request for an episode's next turn, after its context as `prompt` or after `new` tokens."""
    sampled = [len(span.tokens) for span in playing.spans if span.author == "policy"]
    begun = sampled[-1] if playing.spans[-1].author == "policy" else 0
    room = limits.response - playing.response_length
    return Request(
        id=playing.id,
        key=playing.key,
        **tokens,
        budget=min(room, limits.turn - begun if limits.turn else room),
        temperature=playing.temperature,
        stop_tokens=(*limits.stop_tokens, *playing.source.ends),
        drawn=sum(sampled),
        keep=not playing.env.one_turn,
    )


def begin(group: Sequence[Playing], limited: Limited) -> str:
    """Sets the initial states of a group; returns what the environment raised, if anything."""
    example = group[0].example
    original = replace(example, prompt=example.problem or example.prompt)
    try:
        states = limited(lambda: begin_group(group[0].env, original, [x.sample for x in group]))
    except (Exception, SystemExit) as error:
        return f"the environment's start raised {error_text(error)}"
    for playing, state in zip(group, states, strict=True):
        playing.state = state
    return ""


def spoken(turn: Turn, playing: Playing) -> Int32[np.ndarray, "_"]:
    """The tokens of a turn, which may have begun in the span before it, without a stop token that is no part of it."""
    silent, before = turn.finish == "stop" and turn.tokens[-1] not in playing.source.ends, playing.spans[-1]
    spoken = turn.tokens[: len(turn.tokens) - silent]
    return np.concatenate([before.tokens, spoken]) if before.author == "policy" else spoken


def account(playing: Playing) -> dict[str, Any]:
    """The environment's account of the episode so far, as JSON data: its parts, and the calls of tools."""
    env, state = playing.env, playing.state
    parts = {} if env.parts_of is None else {name: float(value) for name, value in env.parts_of(state).items()}
    calls = () if env.calls_of is None else env.calls_of(state)
    return {"parts": dict.fromkeys(env.parts, 0.0) | parts, "calls": list(map(asdict, calls))}


def calls_of(so_far: Mapping[str, Any]) -> tuple[CallRecord, ...]:
    """The calls of `account`."""
    return tuple(CallRecord(**call) for call in so_far.get("calls", ()))


def receive(playing: Playing) -> tuple[Any, Any]:
    """The action of an environment after the results of its tools."""
    return playing.env.receive(playing.state, tuple(map(_result, playing.tools)))


def observed(playing: Playing, action: Say) -> list[int]:
    """The tokens of an observation, reworded if it has none.

    Raises:
      ValueError: it has none, or can't be encoded, and the environment has no other words.
    """
    last, reworded = int(playing.spans[-1].tokens[-1]), playing.env.reworded
    try:
        tokens = playing.source.observe(action.observation, last)
    except ValueError:
        if reworded is None:
            raise
        tokens = []
    if not tokens and reworded is not None:
        playing.state, action = reworded(playing.state)
        tokens = playing.source.observe(action.observation, last)
    if not tokens:
        raise ValueError(f"{action!r:.100} has no tokens, so there is nothing to answer")
    return tokens


def _result(future: Future) -> ToolResult:
    try:
        return ToolResult(future.result())
    except ToolError as error:
        return ToolResult(error=str(error))


def verdict_of(playing: Playing) -> Verdict:
    """Waits for the verdict on an episode, and adds the parts of its environment."""
    episode = playing.episode
    if episode.error is not None:
        return failure(episode.error)
    verdict = playing.verdict.result()
    return replace(verdict, parts={**verdict.parts, **episode.parts}) if episode.parts else verdict
