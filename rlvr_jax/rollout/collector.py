"""From examples to groups: plays episodes against their environments and judges finished ones while others continue.

The sampler decodes, the pool judges and runs tools, and environments are pure functions in between. Waiting is decided
by count: tools run until the sampler's next turns have finished, then their results are awaited. Tokens therefore never
depend on the clock.

Each of several processes samples all episodes and knows their tokens; environments, tools and verifiers of a group run
in the process that it belongs to, and their actions and verdicts are exchanged.
"""

import concurrent.futures
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int32, Key

from rlvr_jax.envs import Done, FinishReason
from rlvr_jax.errors import ConfigError
from rlvr_jax.parallel import Processes
from rlvr_jax.rollout.actions import Jobs, action_of, answers, receive
from rlvr_jax.rollout.episode import Author, Episode, Group, Span
from rlvr_jax.rollout.episode import Sequence as Window
from rlvr_jax.rollout.playing import (
    Limits,
    Playing,
    Source,
    begin,
    episode_of,
    of_all,
    request_of,
    seat,
    spoken,
    verdict_of,
)
from rlvr_jax.rollout.requests import NO_TOKENS, Turn, Turns, episode_keys
from rlvr_jax.tasks.task import Example
from rlvr_jax.text.messages import Messages
from rlvr_jax.text.tokenizers import decode, encode_batch
from rlvr_jax.time_limit import time_limits
from rlvr_jax.verifiers.jobs import Job
from rlvr_jax.verifiers.verdict import Verdict

_LOOK_SECONDS = 0.002  # between looks at a device that decodes while verdicts are missing
_ASKED = 2**31  # the random streams of episodes that an episode asks for: fold_in(its key, this + their number)


class Collector:
    """Batches of groups, started and taken by name.

    Episodes are sampled with the sampler's current parameters; call `play` before these change.
    """

    def __init__(
        self,
        sampler: Turns,
        pool: Jobs,
        sources: Mapping[str, Source],
        tokenizer: Any,
        limits: Limits,
        processes: Processes | None = None,
    ):
        """A collector of the sampler's episodes.

        Args:
          sampler: not used by others while episodes are in flight.
          pool: the processes for verifiers and tools.
          sources: by name of task.
          tokenizer: of the policy.
          limits: of episodes.
          processes: of the run; by default this one alone.
        """
        self._sampler, self._pool, self._sources = sampler, pool, sources
        self._processes = processes or Processes()
        self._tokenizer, self._limits = tokenizer, limits
        self._batches: dict[Hashable, list[list[Playing]]] = {}  # started here
        self._kept: dict[Hashable, list[Group]] = {}  # played and judged, not taken yet
        self._playing: dict[int, Playing] = {}  # by id
        self._waiting: list[Playing] = []  # for tools
        self._answered: list[Playing] = []  # whose episodes have ended that they had asked for
        self._ended: list[Playing] = []  # to be judged
        self._last_id = 0
        self.waited = 0.0  # seconds, for verdicts and tools, while there was nothing to decode

    def start(
        self,
        name: Hashable,
        examples: Sequence[Example],
        group_size: int,
        key: Key[Array, ""],
        temperature: float,
        begun: Sequence[Int32[np.ndarray, "_"]] | None = None,
    ) -> None:
        """Submits `group_size` episodes of each example; episode `i` draws from the random stream `fold_in(key, i)`.

        Args:
          name: of the batch.
          examples: of its groups.
          group_size: episodes of each.
          key: of the random streams.
          temperature: of the sampling distribution; 0 is greedy.
          begun: for each example the tokens with which the policy's first turn begins; by default none.

        Raises:
          ConfigError: a prompt is empty or too long; names its id.
        """
        keys = episode_keys(key, range(len(examples) * group_size))
        prompts = encode_batch(self._tokenizer, [example.prompt for example in examples])
        groups: list[list[Playing]] = []
        contexts = []  # one array per group: the sampler prefills it once
        for number, (example, ids) in enumerate(zip(examples, prompts, strict=True)):
            if not 0 < len(ids) <= self._limits.prompt:
                raise ConfigError(
                    f"the prompt of {example.id} has {len(ids)} tokens; 1 to config.rollout.max_prompt_length = "
                    f"{self._limits.prompt} fit"
                )
            spans = [Span("prompt", np.asarray(ids, np.int32))]
            if begun is not None and len(begun[number]):
                spans.append(Span("policy", np.asarray(begun[number], np.int32)))
            contexts.append(np.concatenate([span.tokens for span in spans]))
            source, own = self._sources[example.task], number % self._processes.count == self._processes.index
            groups.append([])
            for i in range(number * group_size, (number + 1) * group_size):
                self._last_id += 1
                playing = Playing(self._last_id, i, example, keys[i], temperature, source, list(spans), own)
                if len(spans) > 1:
                    playing.begun, playing.drawn = spans[1].tokens, len(spans[1].tokens)
                groups[-1].append(playing)
            if source.env.roles:
                seat(groups[-1], source.env.roles)
        self._batches[name] = groups
        self._playing |= {playing.id: playing for group in groups for playing in group}
        with time_limits(self._limits.seconds) as limited:
            own = {group[0].id: begin(group, limited) for group in groups if group[0].own}
        begins = self._processes.merged(own)
        requests = []
        for group, context in zip(groups, contexts, strict=True):
            error, budgets = begins[group[0].id]
            for playing, playing.budget in zip(group, budgets, strict=True):
                if error:
                    self._end(playing, "env_error", error)
                elif playing is playing.together[0]:
                    requests.append(request_of(playing, self._limits, prompt=context))
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
        members = [member for group in groups for member in group]
        while self._has_time([member.verdict for member in members if member.verdict is not None]) and self._round():
            pass
        began = time.perf_counter()
        verdicts = of_all(self._processes, {member.id: verdict_of(member) for member in members if member.own})
        self.waited += time.perf_counter() - began
        found = []
        for group in groups:
            episodes = tuple(member.episode for member in group)
            found.append(Group(episodes[0].example, episodes, tuple(verdicts[member.id] for member in group)))
        return found

    def judge(self, episodes: Sequence[Episode]) -> list[Verdict]:
        """The verdicts on episodes that were not played here."""
        own = range(self._processes.index, len(episodes), self._processes.count)
        futures = self._pool.submit([self._job(episodes[i]) for i in own])
        verdicts = of_all(self._processes, {i: x.result() for i, x in zip(own, futures, strict=True)})
        return [verdicts[i] for i in range(len(episodes))]

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

    def _round(self) -> bool:
        """Decodes until turns have finished, and continues their episodes and those that wait for tools.

        Returns False if there were none.
        """
        turns = self._sampler.poll()
        waiting, self._waiting = self._waiting, []
        texts = decode(self._tokenizer, [spoken(turn, self._playing[turn.id]) for turn in turns])
        self._advance([self._end_turn(*pair) for pair in zip(turns, texts, strict=True)])
        if waiting:
            began = time.perf_counter()
            concurrent.futures.wait([future for playing in waiting for future in playing.tools])
            self.waited += 0.0 if turns else time.perf_counter() - began
        self._advance([(playing, partial(receive, playing)) for playing in waiting])
        while self._answered:
            answered, self._answered = self._answered, []
            self._advance([(playing, partial(receive, playing)) for playing in answered])
        self._judge_ended()
        return bool(turns or waiting)

    def _end_turn(self, turn: Turn, text: str) -> tuple[Playing, Callable[[], tuple[Any, Any]]]:
        """The episode of a turn, and the call of its environment."""
        playing = self._playing[turn.id]
        env, said = playing.env, spoken(turn, playing)
        pieces = said[len(playing.begun) :]
        playing.turns[len(playing.turns) - playing.goes_on :] = [text]
        playing.spans.append(Span("policy", turn.tokens, turn.logprobs, turn.version))
        playing.drawn += len(turn.tokens)
        playing.calls = 0
        cut = turn.finish == "length"
        playing.goes_on, playing.begun = cut, said if cut else NO_TOKENS
        if cut and env.cut is None:
            return playing, lambda: (playing.state, Done(reason="length"))

        def call() -> Any:
            state = playing.state if env.at is None else env.at(playing.state, turn.version)
            if env.read is not None:
                state = env.read(state, decode(self._tokenizer, [[token] for token in pieces]))
            return (env.cut if cut else env.step)(state, text)

        return playing, call

    def _advance(self, calls: Sequence[tuple[Playing, Callable[[], tuple[Any, Any]]]]) -> None:
        """Calls environments, each in the process of its group, and executes their actions, in all processes alike."""
        if not calls:
            return
        with time_limits(self._limits.seconds) as limited:
            action = partial(action_of, self._pool, self._tokenizer, self._limits, limited)
            own = {playing.id: action(playing, function) for playing, function in calls if playing.own}
        actions = self._processes.merged(own)
        execute = {"force": self._force, "window": self._new_window}
        for playing, _ in calls:
            action = actions[playing.id]
            for together in playing.together:
                together.so_far = action.get("so_far", together.so_far)
            playing.budget = action.get("budget", 0)
            playing.filled = action.get("filled", False) or playing.filled
            if playing.asked:
                self._end_asked(playing, action.get("credits") or [None] * len(playing.asked))
            if action["kind"] == "end":
                self._end_of_each(playing, action["ends"])
            elif action["kind"] == "call":
                self._waiting.append(playing)
            elif action["kind"] == "ask":
                self._ask(playing, action["prompts"], action["tokens"])
            elif action["kind"] == "say":
                self._say(playing.together[action["role"]], action["tokens"])
            else:
                execute[action["kind"]](playing, action["tokens"])

    def _say(self, playing: Playing, tokens: Sequence[int]) -> None:
        if len(playing.turns) >= self._limits.turns:
            self._end(playing, "turns")
        elif playing.response_length + len(tokens) >= self._limits.response:
            self._end(playing, "window")
        else:
            playing.goes_on, playing.begun = False, NO_TOKENS
            self._go_on(playing, "env", tokens)

    def _force(self, playing: Playing, tokens: Sequence[int]) -> None:
        """Goes on with a turn, behind the environment's tokens."""
        length, limits = len(playing.begun) + len(tokens), self._limits
        if playing.response_length + len(tokens) >= limits.response or 0 < limits.turn <= length:
            self._end(playing, "length")
            return
        playing.goes_on, playing.begun = True, np.concatenate([playing.begun, _ids(tokens)])
        self._go_on(playing, "forced", tokens)

    def _go_on(self, playing: Playing, author: Author, tokens: Sequence[int]) -> None:
        """Requests what follows the environment's tokens, or without any the rest of the turn."""
        if len(tokens):
            playing.spans.append(Span(author, _ids(tokens)))
        if len(tokens) and playing.turns:
            self._sampler.submit([request_of(playing, self._limits, new=_ids(tokens))])
        else:
            self._request(playing)

    def _request(self, playing: Playing) -> None:
        """Requests what follows the whole context of an episode."""
        context = np.concatenate([span.tokens for span in playing.spans])
        self._sampler.release([playing.id])
        self._sampler.submit([request_of(playing, self._limits, prompt=context)])

    def _new_window(self, playing: Playing, tokens: Sequence[int]) -> None:
        if len(playing.turns) >= self._limits.turns:
            self._end(playing, "turns")
        elif not 0 < len(tokens) <= self._limits.prompt:
            self._end(playing, "prompt")
        elif playing.first.sequences >= self._limits.sequences:
            self._end(playing, "sequences")
        else:
            playing.first.sequences += 1
            playing.windows.append(Window(tuple(playing.spans), playing.depth))
            playing.spans, playing.goes_on, playing.begun = [Span("prompt", _ids(tokens))], False, NO_TOKENS
            playing.filled = False
            self._request(playing)

    def _ask(self, playing: Playing, prompts: Sequence[str | Messages], contexts: Sequence[Sequence[int]]) -> None:
        """Begins the episodes that an episode asks for."""
        if any(not 0 < len(tokens) <= self._limits.prompt for tokens in contexts):
            self._end(playing, "prompt")
            return
        if playing.first.sequences + len(prompts) > self._limits.sequences:
            self._end(playing, "sequences")
            return
        playing.first.sequences += len(prompts)
        texts = decode(self._tokenizer, contexts)
        first = _ASKED + playing.number_asked
        keys = episode_keys(jax.random.wrap_key_data(playing.key), range(first, first + len(prompts)))
        playing.asked, playing.number_asked = [], playing.number_asked + len(prompts)
        for prompt, tokens, text, key in zip(prompts, contexts, texts, keys, strict=True):
            self._last_id += 1
            asked = replace(playing.example, prompt=text, problem=prompt)
            spans = [Span("prompt", _ids(tokens))]
            playing.asked.append(
                Playing(self._last_id, playing.sample, asked, key, playing.temperature, playing.source.inner, spans,
                        playing.own, parent=playing)
            )  # fmt: skip
        self._playing |= {asked.id: asked for asked in playing.asked}
        with time_limits(self._limits.seconds) as limited:
            own = {asked.id: begin([asked], limited) for asked in playing.asked if asked.own}
        begins = self._processes.merged(own)
        for asked in playing.asked:
            error, (asked.budget,) = begins[asked.id]
            if error:
                self._end(asked, "env_error", error)
            else:
                self._request(asked)

    def _end(self, playing: Playing, reason: FinishReason, error: str | None = None) -> None:
        """Ends an episode, and those that it plays a game with."""
        self._end_of_each(playing, [{"reason": reason, "error": error}])

    def _end_of_each(self, playing: Playing, ends: Sequence[Mapping[str, Any]]) -> None:
        """Ends the episodes of a game, each with the end of its role, or all with the same one."""
        for number, ended in enumerate(playing.together):
            if ended.episode is None:
                ended.episode = episode_of(ended, **ends[number if len(ends) > 1 else 0])
                del self._playing[ended.id]
                self._ended.append(ended)
        parent = playing.parent
        if parent is not None and all(asked.episode is not None for asked in parent.asked):
            parent.tools = answers(parent.asked)
            self._answered.append(parent)

    def _end_asked(self, playing: Playing, credits: Sequence[float | None]) -> None:
        """Adds the sequences of the episodes that an episode has asked for, with their rewards."""
        for asked, reward in zip(playing.asked, credits, strict=True):
            playing.windows += [replace(window, reward=reward) for window in asked.episode.sequences]
        playing.asked, playing.credits = [], []

    def _judge_ended(self) -> None:
        """Submits the finished episodes to the pool."""
        ended, self._ended = self._ended, []
        self._sampler.release([playing.id for playing in ended])
        own = [playing for playing in ended if playing.own and playing.parent is None]
        judged = [playing for playing in own if playing.episode.error is None]
        futures = self._pool.submit([self._job(playing.episode) for playing in judged])
        for playing, future in zip(judged, futures, strict=True):
            playing.verdict = future

    def _has_time(self, verdicts: Sequence[Future]) -> bool:
        """True if there is something to sample before these verdicts are there."""
        if self._processes.count > 1:
            self._sampler.ready()  # what the first process dispatches below, all must
        late: Sequence[Future] = ()
        if self._processes.index == 0:
            # Never longer than the verdicts take: the update may run on other devices than the sampler.
            while (late := [future for future in verdicts if not future.done()]) and self._sampler.ready() is False:
                concurrent.futures.wait(late, _LOOK_SECONDS)
        return self._processes.exchange(bool(late))[0]  # the clock of one process decides for all

    def _job(self, episode: Episode) -> Job:
        task = self._sources[episode.example.task].task
        return Job(task.verifier, episode.judged, episode.example.reference, task.verifier_options)


def _ids(tokens: Sequence[int]) -> Int32[np.ndarray, "_"]:
    return np.asarray(tokens, np.int32)
