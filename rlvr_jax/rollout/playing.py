"""An episode while it is played: its records, limits and requests."""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt32

from rlvr_jax import named
from rlvr_jax.envs import CallRecord, Env, FinishReason, begin_group, is_single_turn
from rlvr_jax.parallel import Processes
from rlvr_jax.rollout.episode import Episode, Span
from rlvr_jax.rollout.episode import Sequence as Window
from rlvr_jax.rollout.requests import NO_TOKENS, Request, Turn
from rlvr_jax.tasks.task import Example, Task
from rlvr_jax.text.messages import Messages
from rlvr_jax.text.tags import THINK, opens_thinking
from rlvr_jax.text.tokenizers import decode
from rlvr_jax.verifiers import failure
from rlvr_jax.verifiers.verdict import Verdict

_TAG_TOKENS = 16  # that hold `<think>` and the white space behind it
Limited = Callable[..., Any]  # calls a function for a limited time, see `rlvr_jax.time_limit`


@dataclass(frozen=True)
class Source:
    """A task with its environment.

    Attributes:
      task: for its verifier.
      env: the environment of its episodes.
      observe: (observation, last token of the turn) -> tokens of the observation.
      ends: tokens that end a turn, besides `Limits.stop_tokens`, and belong to its text.
      prompt: problem, text or messages -> tokens of a prompt; None for environments of one sequence.
      inner: the same with the environment of `Ask`.
      policy: that plays its episodes, see `Request.policy`.
    """

    task: Task
    env: Env
    observe: Callable[[str | Messages, int], list[int]]
    ends: tuple[int, ...] = ()
    prompt: Callable[[str | Messages], list[int]] | None = None
    inner: "Source | None" = None
    policy: str = ""


@dataclass(frozen=True)
class Limits:
    """The limits of an episode.

    Attributes:
      prompt: maximum tokens of the prompt.
      response: maximum tokens of a context window after its prompt, observations included.
      turn: maximum tokens of one turn; 0 for no limit but `response`.
      turns: maximum number of the policy's turns.
      sequences: maximum number of context windows, those of episodes within the episode included.
      stop_tokens: the ids that end a turn.
      seconds: maximum time of one call of an environment's function; None for no limit.
    """

    prompt: int
    response: int
    turn: int = 0
    turns: int = 16
    sequences: int = 1
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
    spans: list[Span]  # of the current window
    own: bool  # its group belongs to this process
    state: Any = None
    turns: list[str] = field(default_factory=list)
    begun: Int32[np.ndarray, "_"] = field(default_factory=lambda: NO_TOKENS)  # of the turn that is not finished
    opened: dict[int, str] = field(default_factory=dict)  # by number of a turn the tag that opens a thought before it
    goes_on: bool = False  # the last of `turns` is not finished
    budget: int = 0  # that the environment gives the tokens that are sampled next
    filled: bool = False  # `Env.full` was called in this window, whose reserve is no longer kept
    drawn: int = 0  # tokens sampled so far
    windows: list[Window] = field(default_factory=list)  # before the current one, and those of `Ask`
    sequences: int = 1  # windows so far, those of `Ask` included
    parent: "Playing | None" = None  # the episode that has asked for this one
    role: str = ""  # in a game
    seats: list["Playing"] = field(default_factory=list)  # the episodes of its game, by role, itself among them
    asked: list["Playing"] = field(default_factory=list)  # the episodes of its last `Ask`
    number_asked: int = 0  # in all
    credits: list[float] = field(default_factory=list)  # their rewards, if they have their own
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
    def first(self) -> "Playing":
        """The episode that has not been asked for by another."""
        return self if self.parent is None else self.parent.first

    @property
    def together(self) -> Sequence["Playing"]:
        """The episodes that have one state and end together: those of its game, or itself alone."""
        return self.seats or [self]

    @property
    def depth(self) -> int:
        """The number of episodes that it is within."""
        return 0 if self.parent is None else self.parent.depth + 1

    @property
    def response_length(self) -> int:
        """Tokens after the prompt of the current window."""
        return sum(len(span.tokens) for span in self.spans[1:])


def seat(group: Sequence[Playing], roles: Sequence[str]) -> None:
    """Makes games of the episodes of a group: as many consecutive ones as there are roles play one, in their order.

    Raises:
      ValueError: the last game would lack players.
    """
    if len(group) % len(roles):
        raise ValueError(f"{len(group)} samples of a problem can't play games of {len(roles)} roles")
    for number, playing in enumerate(group):
        first = number - number % len(roles)
        playing.role, playing.seats = roles[number - first], list(group[first : first + len(roles)])


def request_of(playing: Playing, limits: Limits, **tokens: Int32[np.ndarray, "_"]) -> Request:
    """The request for an episode's next tokens, after its context as `prompt` or after `new` tokens.

    The reserve of its environment is left, unless it has been begun.
    """
    room, env = limits.response - playing.response_length, playing.env
    budget = room if playing.filled or room <= env.reserve else room - env.reserve
    if limits.turn:
        budget = min(budget, limits.turn - len(playing.begun))
    if playing.budget:
        budget = min(budget, playing.budget)
    return Request(
        id=playing.id,
        key=playing.key,
        **tokens,
        budget=budget,
        temperature=playing.temperature,
        stop_tokens=(*limits.stop_tokens, *playing.source.ends),
        drawn=playing.drawn,
        keep=not env.one_turn,
        policy=playing.source.policy,
    )


def begin(group: Sequence[Playing], limited: Limited) -> tuple[str, list[int]]:
    """Sets the initial states of a group; returns what the environment raised, if anything, and each one's budget."""
    env, example = group[0].env, group[0].example
    if is_single_turn(env):
        return "", [0] * len(group)
    original = replace(example, prompt=example.problem or example.prompt)
    try:
        states = limited(begin_group, env, original, [x.sample for x in group])
        for playing, state in zip(group, states, strict=True):
            playing.state = state
        for playing in group:
            playing.state = playing.together[0].state
        return "", limited(lambda: [budget(playing) for playing in group])
    except (Exception, SystemExit) as error:
        return f"the environment's start raised {named.placed(error)}", [0] * len(group)


def budget(playing: Playing) -> int:
    """The budget that the environment gives the tokens that are sampled next; 0 for none. Raises ValueError."""
    given = 0 if playing.env.budget is None else playing.env.budget(playing.state)
    if not (isinstance(given, int) and given >= 0):
        raise ValueError(f"Env.budget returned {given!r:.100}, not a number of tokens")
    return given


def spoken(turn: Turn, playing: Playing) -> Int32[np.ndarray, "_"]:
    """The tokens of a turn from its beginning on, without a stop token that is no part of it."""
    silent = turn.finish == "stop" and turn.tokens[-1] not in playing.source.ends
    tokens = turn.tokens[: len(turn.tokens) - silent]
    return np.concatenate([playing.begun, tokens]) if len(playing.begun) else tokens


def span_of(turn: Turn, playing: Playing) -> Span:
    """The tokens that a turn has sampled."""
    if playing.source.policy:
        return Span("other", turn.tokens)
    return Span("policy", turn.tokens, turn.logprobs, turn.version, turn.earlier)


def open_thought(playing: Playing, tokenizer: Any) -> str:
    """`<think>`, with the white space behind it, if a thought is open before the turn that an episode begins.

    Chat templates that open one do so before each turn.
    """
    before = playing.example.prompt
    if playing.turns and opens_thinking(before):
        before = decode(tokenizer, [playing.spans[-1].tokens[-_TAG_TOKENS:]])[0]
    return THINK + before[len(before.rstrip()) :] if opens_thinking(before) else ""


def judged(playing: Playing) -> str | None:
    """The text of the turns so far that verifiers see; None if that is `Episode.response`."""
    if playing.seats or (playing.env.judged is None and playing.opened.keys() <= {0}):
        return None
    texts = [THINK * (number in playing.opened) + text for number, text in enumerate(playing.turns)]
    seen = texts if playing.env.judged is None else playing.env.judged(playing.state, texts)
    text = "\n".join(seen)
    return None if text == THINK * (0 in playing.opened) + "\n".join(playing.turns) else text


def verdict_of(playing: Playing) -> Verdict:
    """Waits for the verdict on an episode, and adds the parts of its environment."""
    episode = playing.episode
    if episode.error is not None:
        return failure(episode.error)
    verdict = playing.verdict.result()
    return replace(verdict, parts={**verdict.parts, **episode.parts}) if episode.parts else verdict


def episode_of(
    playing: Playing,
    reason: FinishReason,
    error: str | None = None,
    answer: str | None = None,
    parts: Mapping[str, float] | None = None,
) -> Episode:
    """The record of an episode that has ended; without `parts` it has those after its last action."""
    return Episode(
        example=playing.example,
        sample=playing.sample,
        sequences=(*playing.windows, Window(tuple(playing.spans), playing.depth)),
        turns=tuple(playing.turns),
        finish_reason=reason,
        parts=parts or playing.so_far.get("parts") or dict.fromkeys(playing.env.parts, 0.0),
        error=error,
        answer=playing.so_far.get("judged") if answer is None else answer,
        calls=tuple(CallRecord(**call) for call in playing.so_far.get("calls", ())),
        role=playing.role,
    )


def of_all(processes: Processes, own: Mapping[int, Verdict]) -> Mapping[int, Verdict]:
    """The verdicts of all processes, by id of the episode."""
    if processes.count == 1:
        return own
    merged = processes.merged({i: asdict(verdict) for i, verdict in own.items()})
    return {i: Verdict(**verdict) for i, verdict in merged.items()}
