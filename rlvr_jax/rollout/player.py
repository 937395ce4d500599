"""Plays episodes against their environments, turn by turn, and submits finished ones to be judged.

The sampler decodes, the pool judges and runs tools, and environments are pure functions in between. Waiting is decided
by count: tools run until the sampler's next turns have finished, or with `patience` for so many decode steps; then
their results are awaited. Tokens therefore never depend on the clock.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Array, Int32, UInt32

from rlvr_jax.envs import Done, FinishReason, is_single_turn
from rlvr_jax.errors import CheckpointError
from rlvr_jax.parallel import Processes
from rlvr_jax.rollout.actions import Jobs, action_of, answers, receive
from rlvr_jax.rollout.continuous import ArraysOf
from rlvr_jax.rollout.episode import Author, Episode, Span
from rlvr_jax.rollout.episode import Sequence as Window
from rlvr_jax.rollout.in_flight import Log, Recorded, Results, log_from_json, log_to_json, results_to_json
from rlvr_jax.rollout.playing import (
    Limits,
    Playing,
    Source,
    begin,
    episode_of,
    open_thought,
    request_of,
    span_of,
    spoken,
)
from rlvr_jax.rollout.requests import NO_TOKENS, Turn, Turns, token_ids
from rlvr_jax.rollout.streams import episode_keys
from rlvr_jax.rollout.waiting import has_time, wait
from rlvr_jax.text.messages import Messages
from rlvr_jax.text.tokenizers import decode
from rlvr_jax.time_limit import time_limits
from rlvr_jax.verifiers.jobs import Job, ToolCall

_ASKED = 2**31  # the random streams of episodes that an episode asks for: fold_in(its key, this + their number)


class Player:
    """The episodes that are in play.

    Attributes:
      patience: decode steps that go on before results are awaited.
      steps: of decoding so far; while there is nothing to decode, they pass until the next results are due.
      logs: by id what has come in for each episode whose group has not been taken.
      waited: seconds, for verdicts and tools, in which there was nothing to decode.
    """

    def __init__(
        self,
        sampler: Turns,
        pool: Jobs,
        sources: Mapping[str, Source],
        tokenizer: Any,
        limits: Limits,
        processes: Processes,
        patience: int,
    ):
        """The arguments are those of `collector.Collector`."""
        self._sampler, self._pool, self._sources = sampler, pool, sources
        self._tokenizer, self._limits, self._processes = tokenizer, limits, processes
        self.patience, self.steps, self.waited = patience, 0, 0.0
        self.logs: dict[int, Log] = {}
        self._playing: dict[int, Playing] = {}  # by id
        self._waiting: list[Playing] = []  # for tools
        self._answered: list[Playing] = []  # whose episodes have ended that they had asked for
        self._ended: list[Playing] = []  # to be judged
        self._last_id = 0
        self._replayed: dict[int, Log] = {}  # those of a checkpoint, while they are replayed
        self._ids: dict[bytes, int] = {}  # their ids, by key

    def new_id(self, key: UInt32[np.ndarray, "words"], own: bool, first: int | None = None) -> int:
        """The id of another episode.

        Args:
          key: of its random stream.
          own: True if it belongs to this process.
          first: the id of the first of the episodes that have asked for it, if any.
        """
        self._last_id += 1
        id = self._ids.get(key.tobytes(), self._last_id)
        self.logs[id] = Log(key, own, id if first is None else first)
        return id

    def add(self, groups: Sequence[Sequence[Playing]]) -> None:
        """Begins to play the episodes of groups."""
        contexts = [np.concatenate([span.tokens for span in group[0].spans]) for group in groups]
        self._playing |= {playing.id: playing for group in groups for playing in group}
        with time_limits(self._limits.seconds) as limited:
            own = {group[0].id: begin(group, limited) for group in groups if group[0].own}
        begins = self._processes.merged(own)
        requests = []
        for group, context in zip(groups, contexts, strict=True):  # one array per group: it is prefilled once
            error, budgets = begins[group[0].id]
            for playing, playing.budget in zip(group, budgets, strict=True):
                if error:
                    self._end(playing, "env_error", error)
                elif playing is playing.together[0]:
                    requests.append(request_of(playing, self._limits, prompt=context))
        self._sampler.submit(requests)
        self._judge_ended()

    def round(self, due: int | None = None) -> bool:
        """Decodes until turns have finished or results are due, and continues their episodes.

        Returns False if there was nothing to do.

        Args:
          due: a decode step to which this goes on at most; None for any.
        """
        before, dues = self._sampler.steps, [self.logs[playing.id].due for playing in self._waiting]
        due = min([*dues, *([] if due is None else [due])], default=None)
        turns = self._sampler.poll(max(1, due - self.steps) if self.patience and due is not None else None)
        decoded = self._sampler.steps - before
        self.steps += decoded
        if not turns and not decoded and due is not None:
            self.steps = max(self.steps, due)
        waiting = [playing for playing in self._waiting if self.logs[playing.id].due <= self.steps]
        self._continue(turns, waiting)
        return bool(turns or decoded) or due is not None

    def _continue(self, turns: Sequence[Turn], waiting: Sequence[Playing]) -> None:
        """Continues the episodes of turns, and those that wait for tools."""
        received = {playing.id for playing in waiting}
        self._waiting = [playing for playing in self._waiting if playing.id not in received]
        said = [spoken(turn, self._playing[turn.id]) for turn in turns]
        texts = decode(self._tokenizer, said)
        self._advance([call for x in zip(turns, said, texts, strict=True) if (call := self._end_turn(*x))])
        if waiting:
            self.wait([future for playing in waiting for future in playing.tools])
        for playing in waiting:
            self.logs[playing.id].received += 1
        self._advance([(playing, partial(receive, playing)) for playing in waiting])
        while self._answered:
            answered, self._answered = self._answered, []
            self._advance([(playing, partial(receive, playing)) for playing in answered])
        self._judge_ended()

    def wait(self, futures: Sequence[Future]) -> None:
        """Waits for results while the sampler decodes what it can."""
        self.waited += wait(self._sampler, futures)

    def _end_turn(
        self, turn: Turn, said: Int32[np.ndarray, "_"], text: str
    ) -> tuple[Playing, Callable[[], tuple[Any, Any]]] | None:
        """The episode of a turn and the call of its environment, None if it has ended without one; `said` are the
        tokens of `text`, see `spoken`."""
        playing = self._playing[turn.id]
        self.logs[turn.id].turns.append(turn)
        env, pieces = playing.env, said[len(playing.begun) :]
        number = len(playing.turns) - playing.goes_on
        if not playing.goes_on and (tag := open_thought(playing, self._tokenizer)):
            playing.opened[number] = tag
        playing.turns[number:] = [text]
        playing.spans.append(span_of(turn, playing))
        playing.drawn += len(turn.tokens)
        playing.calls = 0
        cut = turn.finish == "length"
        if is_single_turn(env):
            return self._end(playing, turn.finish)
        playing.goes_on, playing.begun = cut, said if cut else NO_TOKENS
        if cut and env.cut is None:
            roles = tuple(Done(reason="length" if x is playing else "cancelled") for x in playing.seats)
            return playing, lambda: (playing.state, Done(reason="length", roles=roles))

        def call() -> Any:
            state = playing.state if env.at is None else env.at(playing.state, turn.version)
            if env.read is not None:
                state = env.read(state, decode(self._tokenizer, [[token] for token in pieces]))
            return (env.cut if cut else env.step)(state, playing.opened.get(number, "") + text)

        return playing, call

    def _advance(self, calls: Sequence[tuple[Playing, Callable[[], tuple[Any, Any]]]]) -> None:
        """Calls environments, each in the process of its group, and executes their actions, in all processes alike."""
        if not calls:
            return
        with time_limits(self._limits.seconds) as limited:
            action = partial(action_of, self._called, self._tokenizer, self._limits, limited)
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
                self.logs[playing.id].due = self.steps + self.patience
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
        playing.goes_on, playing.begun = True, np.concatenate([playing.begun, token_ids(tokens)])
        self._go_on(playing, "forced", tokens)

    def _go_on(self, playing: Playing, author: Author, tokens: Sequence[int]) -> None:
        """Requests what follows the environment's tokens, or without any the rest of the turn."""
        if len(tokens):
            playing.spans.append(Span(author, token_ids(tokens)))
        if len(tokens) and playing.turns:
            self._sampler.submit([request_of(playing, self._limits, new=token_ids(tokens))])
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
            playing.spans, playing.goes_on, playing.begun = [Span("prompt", token_ids(tokens))], False, NO_TOKENS
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
        keys = episode_keys(playing.key, range(first, first + len(prompts)))
        playing.asked, playing.number_asked = [], playing.number_asked + len(prompts)
        for prompt, tokens, text, key in zip(prompts, contexts, texts, keys, strict=True):
            id = self.new_id(key, playing.own, playing.first.id)
            asked = replace(playing.example, prompt=text, problem=prompt)
            spans = [Span("prompt", token_ids(tokens))]
            playing.asked.append(
                Playing(id, playing.sample, asked, key, playing.temperature, playing.source.inner, spans,
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
        """Ends an episode, and those that it plays a game with: by the same error, or cancelled."""
        for ended in playing.together:
            self._record(ended, reason if error or ended is playing else "cancelled", error)
        self._answer(playing)

    def _end_of_each(self, playing: Playing, ends: Sequence[Mapping[str, Any]]) -> None:
        """Ends the episodes of a game, each with the end of its role, or all with the same one."""
        for number, ended in enumerate(playing.together):
            self._record(ended, **ends[number if len(ends) > 1 else 0])
        self._answer(playing)

    def _record(self, playing: Playing, *end: Any, **more: Any) -> None:
        """Ends an episode unless it has ended; `end` and `more` are arguments of `episode_of`."""
        if playing.episode is None:
            playing.episode = episode_of(playing, *end, **more)
            del self._playing[playing.id]
            self.logs[playing.id].ended = self.steps
            self._ended.append(playing)

    def _answer(self, playing: Playing) -> None:
        """Answers the episode that has asked for one that ends, if it was the last to do so."""
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
        for playing in judged:
            playing.verdict = self._replayed[playing.id].verdict if playing.id in self._replayed else None
        judged = [playing for playing in judged if playing.verdict is None]
        futures = self._pool.submit([self.job(playing.episode) for playing in judged])
        for playing, future in zip(judged, futures, strict=True):
            playing.verdict = future
        for playing in ended:
            self.logs[playing.id].verdict = playing.verdict

    def _called(self, playing: Playing, calls: Sequence[ToolCall]) -> Results:
        """The results of tools, to come or recorded."""
        results, recorded = self.logs[playing.id].results, self._replayed.get(playing.id, Log()).results
        number = len(results)
        results.append(recorded[number] if number < len(recorded) else self._pool.submit(calls))
        return results[number]

    def state(self) -> tuple[dict[str, Any], list[Array]]:
        """All that is in flight, once all results are there, and `Sampler.state`."""
        own = {id: results_to_json(log) for id, log in self.logs.items() if log.own}
        results = self._processes.merged(own)
        sampler, arrays = self._sampler.state()
        state = {
            "episodes": [[id, log_to_json(log) | results[id]] for id, log in self.logs.items()],
            "waiting": [playing.id for playing in self._waiting],
            "steps": self.steps,
            "last_id": self._last_id,
            "sampler": sampler,
        }
        return state, arrays

    @contextmanager
    def replaying(self, state: Mapping[str, Any], arrays_of: ArraysOf) -> Iterator[None]:
        """Within it, `add` the groups of `state` again; on exit all is as it was then. Nothing is done twice.

        Args:
          state: JSON data.
          arrays_of: see `Sampler.put_back`.

        Raises:
          CheckpointError: the episodes take another course now.
        """
        logs = {id: log_from_json(data) for id, data in state["episodes"]}
        self._replayed, self._ids = logs, {log.key.tobytes(): id for id, log in logs.items()}
        sampler, self._sampler = self._sampler, Recorded({id: log.turns for id, log in logs.items()})
        yield
        turns, waiting = self._sampler.poll(), []
        while turns or waiting:
            self._continue(turns, waiting)
            turns = self._sampler.poll()
            waiting = [x for x in self._waiting if self.logs[x.id].received < logs[x.id].received]
        sampler.put_back(state["sampler"], arrays_of)
        waiting = {playing.id: playing for playing in self._waiting}
        if not (waiting.keys() == {*state["waiting"]} and self._sampler.open == sampler.flying):
            raise CheckpointError(
                "the episodes in flight of the checkpoint take another course now: their environment or tokenizer has "
                "changed. Restore it, or use another --workdir"
            )
        for id, log in self.logs.items():
            log.due, log.ended = logs[id].due, logs[id].ended
        self._sampler, self._waiting = sampler, [waiting[id] for id in state["waiting"]]
        self.steps, self._last_id = state["steps"], state["last_id"]
        self._replayed, self._ids = {}, {}

    def has_time(self, verdicts: Sequence[Future]) -> bool:
        """True if there is something to sample before these verdicts are there."""
        return has_time(self._sampler, self._processes, verdicts)

    def job(self, episode: Episode) -> Job:
        """That judges an episode."""
        task = self._sources[episode.example.task].task
        return Job(task.verifier, episode.judged, episode.example.reference, task.verifier_options)
