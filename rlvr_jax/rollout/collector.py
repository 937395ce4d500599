"""From examples to groups: plays episodes against their environments and judges finished ones while others continue.

The sampler decodes, the pool judges and runs tools, and environments are pure functions in between. Waiting is decided
by count: tools run until the sampler's next turns have finished, then their results are awaited. Tokens therefore never
depend on the clock.
"""

import concurrent.futures
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Array, Int32, Key, UInt32

from rlvr_jax.envs import Call, Done, Env, FinishReason, Say, ToolResult, begin_group, checked
from rlvr_jax.errors import ConfigError
from rlvr_jax.rollout.episode import Episode, Group, Span
from rlvr_jax.rollout.episode import Sequence as Window
from rlvr_jax.rollout.requests import Request, Turn, episode_keys
from rlvr_jax.tasks.task import Example, Task
from rlvr_jax.text.messages import Messages
from rlvr_jax.text.tokenizers import decode, encode_batch
from rlvr_jax.time_limit import time_limit
from rlvr_jax.verifiers import error_text, failure
from rlvr_jax.verifiers.jobs import Job, ToolCall, ToolError
from rlvr_jax.verifiers.pool import PoolError
from rlvr_jax.verifiers.verdict import Verdict

_LOOK_SECONDS = 0.002  # between looks at a device that decodes while verdicts are missing
_MOST_CALLS = 100  # of tools, one after the other without a turn of the policy: an environment may not call for ever


@runtime_checkable
class Turns(Protocol):
    """The interface of a sampler that a collector uses, see `rlvr_jax.rollout.requests`."""

    def submit(self, requests: Sequence[Request]) -> None: ...
    def ready(self) -> bool | None: ...
    def poll(self) -> list[Turn]: ...
    def release(self, ids: Sequence[int]) -> None: ...


@runtime_checkable
class Jobs(Protocol):
    """The interface of a pool that a collector uses, see `rlvr_jax.verifiers.pool`."""

    def submit(self, jobs: Sequence[Job | ToolCall]) -> list[Future]: ...


@dataclass(frozen=True)
class Source:
    """A task with its environment.

    Attributes:
      task: for its verifier.
      env: the environment of its episodes.
      observe: (observation, last token of the turn) -> tokens of the observation.
    """

    task: Task
    env: Env
    observe: Callable[[str | Messages, int], list[int]]


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
class _Playing:
    """An unfinished episode, or a finished one with the future of its verdict."""

    id: int
    sample: int
    example: Example
    key: UInt32[np.ndarray, "words"]
    temperature: float
    env: Env
    spans: list[Span]
    state: Any = None
    turns: list[str] = field(default_factory=list)
    tools: Sequence[Future] = ()
    calls: int = 0  # since the last turn
    episode: Episode | None = None
    verdict: Future | None = None

    @property
    def response_length(self) -> int:
        return sum(len(span.tokens) for span in self.spans[1:])


class Collector:
    """Batches of groups, started and taken by name.

    Episodes are sampled with the sampler's current parameters; call `play` before these change.
    """

    def __init__(self, sampler: Turns, pool: Jobs, sources: Mapping[str, Source], tokenizer: Any, limits: Limits):
        """A collector of the sampler's episodes.

        Args:
          sampler: not used by others while episodes are in flight.
          pool: the processes for verifiers and tools.
          sources: by name of task.
          tokenizer: of the policy.
          limits: of episodes.
        """
        self._sampler, self._pool, self._sources = sampler, pool, sources
        self._tokenizer, self._limits = tokenizer, limits
        self._batches: dict[Hashable, list[list[_Playing]]] = {}  # started here
        self._kept: dict[Hashable, list[Group]] = {}  # played and judged, not taken yet
        self._playing: dict[int, _Playing] = {}  # by id
        self._waiting: list[_Playing] = []  # for tools
        self._ended: list[_Playing] = []  # to be judged
        self._last_id = 0
        self.waited = 0.0  # seconds, for verdicts and tools, while there was nothing to decode

    def start(
        self, name: Hashable, examples: Sequence[Example], group_size: int, key: Key[Array, ""], temperature: float
    ) -> None:
        """Submits `group_size` episodes of each example; episode `i` draws from the random stream `fold_in(key, i)`.

        Raises:
          ConfigError: a prompt is empty or too long; names its id.
        """
        keys = episode_keys(key, range(len(examples) * group_size))
        prompts = encode_batch(self._tokenizer, [example.prompt for example in examples])
        groups: list[list[_Playing]] = []
        for example, ids in zip(examples, prompts, strict=True):
            if not 0 < len(ids) <= self._limits.prompt:
                raise ConfigError(
                    f"the prompt of {example.id} has {len(ids)} tokens; 1 to config.rollout.max_prompt_length = "
                    f"{self._limits.prompt} fit"
                )
            prompt = np.asarray(ids, np.int32)  # one array per group: the sampler prefills it once
            groups.append([])
            for sample in range((len(groups) - 1) * group_size, len(groups) * group_size):
                self._last_id += 1
                env = self._sources[example.task].env
                spans = [Span("prompt", prompt)]
                groups[-1].append(_Playing(self._last_id, sample, example, keys[sample], temperature, env, spans))
        self._batches[name] = groups
        requests = []
        for group in groups:
            self._playing |= {playing.id: playing for playing in group}
            example = group[0].example
            original = replace(example, prompt=example.problem or example.prompt)
            try:
                with time_limit(self._limits.seconds):
                    states = begin_group(group[0].env, original, len(group))
            except (Exception, SystemExit) as error:
                for playing in group:
                    self._end(playing, "env_error", f"the environment's start raised {error_text(error)}")
                continue
            for playing, state in zip(group, states, strict=True):
                playing.state = state
                requests.append(self._request(playing, prompt=playing.spans[0].tokens))
        self._sampler.submit(requests)
        self._judge_ended()

    def play(self, name: Hashable | None = None) -> None:
        """Plays all episodes of a batch to the end, or those of all batches."""
        names = [name] if name is not None else list(self._batches)
        members = [member for x in names for group in self._batches.get(x, ()) for member in group]
        while any(member.episode is None for member in members):
            if not self._round():
                raise RuntimeError("episodes have not finished, but no turn or tool is in flight")

    def take(self, name: Hashable) -> list[Group]:
        """The groups of a batch, in the order of its examples, once all of their verdicts are there.

        While it waits for them it goes on with other batches.
        """
        if name in self._kept:
            return self._kept.pop(name)
        self.play(name)
        groups = self._batches.pop(name)
        futures = [member.verdict for members in groups for member in members if member.verdict is not None]
        while late := [future for future in futures if not future.done()]:
            # Never longer than the verdicts take: the update may run on other devices than the sampler.
            if self._sampler.ready() is False:
                concurrent.futures.wait(late, _LOOK_SECONDS)
            elif not self._round():
                break
        if late:
            began = time.perf_counter()
            concurrent.futures.wait(late)
            self.waited += time.perf_counter() - began
        found = []
        for members in groups:
            episodes = tuple(member.episode for member in members)
            found.append(Group(episodes[0].example, episodes, tuple(map(_verdict, members))))
        return found

    def started(self) -> list[Hashable]:
        """The names of started batches that have not been taken."""
        return [*self._kept, *self._batches]

    def finished(self) -> dict[Hashable, list[Group]]:
        """All started batches that have not been taken, played and judged; they can still be taken."""
        for name in list(self._batches):
            self._kept[name] = self.take(name)
        return dict(self._kept)

    def put_back(self, name: Hashable, groups: list[Group]) -> None:
        """Adds the groups of an earlier process, to be taken by this name."""
        self._kept[name] = groups

    def _request(self, playing: _Playing, **tokens: Int32[np.ndarray, "_"]) -> Request:
        """The request for an episode's next turn, after the `prompt` or after `new` tokens."""
        room = self._limits.response - playing.response_length
        return Request(
            id=playing.id,
            key=playing.key,
            **tokens,
            budget=min(room, self._limits.turn or room),
            temperature=playing.temperature,
            stop_tokens=self._limits.stop_tokens,
            keep=not playing.env.one_turn,
        )

    def _round(self) -> bool:
        """Decodes until turns have finished, and continues their episodes and those that wait for tools.

        Returns False if there were none.
        """
        turns = self._sampler.poll()
        waiting, self._waiting = self._waiting, []
        for turn, text in zip(turns, decode(self._tokenizer, [_spoken(turn) for turn in turns]), strict=True):
            self._end_turn(self._playing[turn.id], turn, text)
        if waiting:
            began = time.perf_counter()
            concurrent.futures.wait([future for playing in waiting for future in playing.tools])
            self.waited += 0.0 if turns else time.perf_counter() - began
        for playing in waiting:
            results = tuple(_result(future) for future in playing.tools)
            self._act(playing, partial(playing.env.receive, playing.state, results))
        self._judge_ended()
        return bool(turns or waiting)

    def _end_turn(self, playing: _Playing, turn: Turn, text: str) -> None:
        playing.spans.append(Span("policy", turn.tokens, turn.logprobs, turn.version))
        playing.turns.append(text)
        playing.calls = 0
        if turn.finish == "length":
            self._end(playing, "length")
        else:
            self._act(playing, partial(playing.env.step, playing.state, text))

    def _act(self, playing: _Playing, function: Callable[[], tuple[Any, Any]]) -> None:
        """Executes the environment's next action."""
        tokens = ()
        try:
            with time_limit(self._limits.seconds):
                playing.state, action = checked(playing.env, function())
            if isinstance(action, Say):
                last = int(playing.spans[-1].tokens[-1])
                tokens = self._sources[playing.example.task].observe(action.observation, last)
                if not tokens:
                    raise ValueError(f"{action!r:.100} has no tokens, so there is nothing to answer")
            elif isinstance(action, Call):
                playing.calls += 1
                if playing.calls > _MOST_CALLS:
                    raise ValueError(f"it called tools {_MOST_CALLS} times without a turn of the policy")
                playing.tools = self._pool.submit(action.calls)  # raises ValueError if there is no such tool
        except PoolError:
            raise
        except (Exception, SystemExit) as error:
            self._end(playing, "env_error", f"the environment raised {error_text(error)}")
            return
        if isinstance(action, Done):
            self._end(playing, action.reason, parts=action.parts)
        elif isinstance(action, Say):
            self._say(playing, np.asarray(tokens, np.int32))
        else:
            self._waiting.append(playing)

    def _say(self, playing: _Playing, tokens: Int32[np.ndarray, "_"]) -> None:
        if len(playing.turns) >= self._limits.turns:
            self._end(playing, "turns")
            return
        if playing.response_length + len(tokens) >= self._limits.response:
            self._end(playing, "window")
            return
        playing.spans.append(Span("env", tokens))
        self._sampler.submit([self._request(playing, new=tokens)])

    def _end(
        self,
        playing: _Playing,
        reason: FinishReason,
        error: str | None = None,
        parts: Mapping[str, float] | None = None,
    ) -> None:
        playing.episode = Episode(
            example=playing.example,
            sample=playing.sample,
            sequences=(Window(tuple(playing.spans)),),
            turns=tuple(playing.turns),
            finish_reason=reason,
            parts=parts or dict.fromkeys(playing.env.parts, 0.0),
            error=error,
        )
        del self._playing[playing.id]
        self._ended.append(playing)

    def _judge_ended(self) -> None:
        """Submits the finished episodes to the pool."""
        ended, self._ended = self._ended, []
        self._sampler.release([playing.id for playing in ended])
        judged = [playing for playing in ended if playing.episode.error is None]
        futures = self._pool.submit([self._job(playing.episode) for playing in judged])
        for playing, future in zip(judged, futures, strict=True):
            playing.verdict = future

    def _job(self, episode: Episode) -> Job:
        task = self._sources[episode.example.task].task
        return Job(task.verifier, episode.response, episode.example.reference, task.verifier_options)


def _verdict(playing: _Playing) -> Verdict:
    """Waits for the verdict on an episode, and adds the parts of its environment."""
    episode = playing.episode
    if episode.error is not None:
        return failure(episode.error)
    verdict = playing.verdict.result()
    return replace(verdict, parts={**verdict.parts, **episode.parts}) if episode.parts else verdict


def _spoken(turn: Turn) -> Int32[np.ndarray, "_"]:
    """The tokens of a turn without its stop token."""
    return turn.tokens[: len(turn.tokens) - (turn.finish == "stop")]


def _result(future: Future) -> ToolResult:
    try:
        return ToolResult(future.result())
    except ToolError as error:
        return ToolResult(error=str(error))
