"""From examples to groups: plays episodes against their environments and judges finished ones while others continue.

Each of several processes samples all episodes and knows their tokens; environments, tools and verifiers of a group run
in the process that it belongs to, and their actions and verdicts are exchanged.
"""

import itertools
from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from jaxtyping import Array, Int32, Key

from rlvr_jax.errors import ConfigError
from rlvr_jax.parallel import Processes
from rlvr_jax.rollout.actions import Jobs
from rlvr_jax.rollout.continuous import ArraysOf
from rlvr_jax.rollout.episode import Episode, Group, Span
from rlvr_jax.rollout.player import Player
from rlvr_jax.rollout.playing import Limits, Playing, Source, of_all, seat, verdict_of
from rlvr_jax.rollout.requests import Turns
from rlvr_jax.rollout.streams import Stream, episode_keys
from rlvr_jax.tasks.task import Example
from rlvr_jax.text.tokenizers import encode_batch
from rlvr_jax.verifiers.verdict import Verdict


class Collector:
    """Batches of groups, started and taken by name.

    Episodes are sampled with the sampler's current parameters. Call `play` before these change, unless the sampler goes
    on with turns in flight; then take groups by `take_first`, in the order in which they finish.
    """

    def __init__(
        self,
        sampler: Turns,
        pool: Jobs,
        sources: Mapping[str, Source],
        tokenizer: Any,
        limits: Limits,
        processes: Processes | None = None,
        patience: int = 0,
    ):
        """A collector of the sampler's episodes.

        Args:
          sampler: not used by others while episodes are in flight.
          pool: the processes for verifiers and tools.
          sources: by name of task.
          tokenizer: of the policy.
          limits: of episodes.
          processes: of the run; by default this one alone.
          patience: decode steps that go on before results of tools are awaited, and by `take_first` verdicts. With 0
            tools run until the next turns have finished.
        """
        processes = processes or Processes()
        self._player = Player(sampler, pool, sources, tokenizer, limits, processes, patience)
        self._pool, self._sources, self._tokenizer, self._limits = pool, sources, tokenizer, limits
        self._processes = processes
        self._batches: dict[Hashable, dict[int, list[Playing]]] = {}  # started here: groups by number
        self._kept: dict[Hashable, list[Group]] = {}  # played and judged, not taken yet

    @property
    def waited(self) -> float:
        """Seconds, for verdicts and tools, in which there was nothing to decode."""
        return self._player.waited

    @property
    def patience(self) -> int:
        """Decode steps that go on before results are awaited."""
        return self._player.patience

    def start(
        self,
        name: Hashable,
        examples: Sequence[Example],
        group_size: int,
        key: Key[Array, ""] | Stream,
        temperature: float,
        begun: Sequence[Int32[np.ndarray, "_"]] | None = None,
        numbers: Sequence[int] | None = None,
    ) -> None:
        """Submits `group_size` episodes of each example; episode `i` draws from the random stream `fold_in(key, i)`.

        Args:
          name: of the batch.
          examples: of its groups.
          group_size: episodes of each.
          key: of the random streams, or its raw data.
          temperature: of the sampling distribution; 0 is greedy.
          begun: for each example the tokens with which the policy's first turn begins; by default none.
          numbers: of the groups in the batch; by default 0, 1, ...

        Raises:
          ConfigError: a prompt is empty or too long; names its id.
        """
        numbers = range(len(examples)) if numbers is None else numbers
        samples = [number * group_size + i for number in numbers for i in range(group_size)]
        keys = iter(zip(samples, episode_keys(key, samples), strict=True))
        prompts = encode_batch(self._tokenizer, [example.prompt for example in examples])
        groups: list[list[Playing]] = []
        for index, (number, example, ids) in enumerate(zip(numbers, examples, prompts, strict=True)):
            if not 0 < len(ids) <= self._limits.prompt:
                raise ConfigError(
                    f"the prompt of {example.id} has {len(ids)} tokens; 1 to config.rollout.max_prompt_length = "
                    f"{self._limits.prompt} fit"
                )
            spans = [Span("prompt", np.asarray(ids, np.int32))]
            if begun is not None and len(begun[index]):
                spans.append(Span("policy", np.asarray(begun[index], np.int32)))
            source, own = self._sources[example.task], number % self._processes.count == self._processes.index
            groups.append([])
            for i, words in itertools.islice(keys, group_size):
                id = self._player.new_id(words, own)
                playing = Playing(id, i, example, words, temperature, source, list(spans), own)
                if len(spans) > 1:
                    playing.begun, playing.drawn = spans[1].tokens, len(spans[1].tokens)
                groups[-1].append(playing)
            if source.env.roles:
                seat(groups[-1], source.env.roles)
        self._batches[name] = self._batches.get(name, {}) | dict(zip(numbers, groups, strict=True))
        self._player.add(groups)

    def play(self, name: Hashable | None = None) -> None:
        """Plays all episodes of a batch to the end, or those of all batches."""
        names = [name] if name is not None else list(self._batches)
        members = [member for x in names for group in self._batches.get(x, {}).values() for member in group]
        while any(member.episode is None for member in members):
            self._round()

    def take(self, name: Hashable) -> list[Group]:
        """The groups of a batch, in the order of its examples, once all of their verdicts are there.

        While it waits for them it goes on with other batches.
        """
        if name in self._kept:
            return self._kept.pop(name)
        self.play(name)
        groups = list(self._batches.pop(name).values())
        verdicts = [member.verdict for group in groups for member in group if member.verdict is not None]
        while self._player.has_time(verdicts) and self._player.round():
            pass
        return self._judged(groups)

    def take_first(self, count: int) -> list[tuple[Hashable, int, Group]]:
        """The groups that finish first, with the names of their batches and their numbers, in the order of these.

        Groups finish by count of decode steps, not by the clock: `patience` steps after the last of their episodes has
        ended, or once there is nothing to decode. It does not wait for the others.

        Args:
          count: of the groups; fewer only if fewer are in flight.
        """
        self.play_first(count)
        order = {(name, number): i for i, (name, number) in enumerate(self._groups())}
        chosen = sorted([pair for _, pair in self._finished_groups()[:count]], key=order.__getitem__)
        groups = self._judged([self._batches[name].pop(number) for name, number in chosen])
        self._batches = {name: groups for name, groups in self._batches.items() if groups}
        return [(*pair, group) for pair, group in zip(chosen, groups, strict=True)]

    def play_first(self, count: int) -> None:
        """Plays until `take_first` has nothing to play."""
        count = min(count, len(self._groups()))
        while sum(due <= self._player.steps for due, _ in self._finished_groups()) < count:
            self._round()

    def _groups(self) -> list[tuple[Hashable, int]]:
        return [(name, number) for name, groups in self._batches.items() for number in groups]

    def _finished_groups(self) -> list[tuple[int, tuple[Hashable, int]]]:
        """The groups whose episodes have ended, with the decode step of which on they count as finished, by that."""
        found = []
        for name, number in self._groups():
            group = self._batches[name][number]
            if all(member.episode is not None for member in group):
                ended = max(self._player.logs[member.id].ended for member in group)
                found.append((ended + self.patience, (name, number)))
        return sorted(found, key=lambda x: x[0])

    def _judged(self, groups: Sequence[Sequence[Playing]]) -> list[Group]:
        """Played groups with their verdicts, once these are there."""
        own = [member for group in groups for member in group if member.own]
        self._player.wait([member.verdict for member in own if member.verdict is not None])
        verdicts = of_all(self._processes, {member.id: verdict_of(member) for member in own})
        found = []
        for group in groups:
            episodes = tuple(member.episode for member in group)
            found.append(Group(episodes[0].example, episodes, tuple(verdicts[member.id] for member in group)))
        done = {member.id for group in groups for member in group}
        self._player.logs = {id: log for id, log in self._player.logs.items() if log.first not in done}
        return found

    def judge(self, episodes: Sequence[Episode]) -> list[Verdict]:
        """The verdicts on episodes that were not played here."""
        own = range(self._processes.index, len(episodes), self._processes.count)
        futures = self._pool.submit([self._player.job(episodes[i]) for i in own])
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

    def state(self) -> tuple[dict[str, Any], list[Array]]:
        """All that is in flight as JSON data, once all results are there, and arrays; see `Sampler.state`."""
        state, arrays = self._player.state()
        return state | {"batches": [[name, list(groups)] for name, groups in self._batches.items()]}, arrays

    @contextmanager
    def replaying(self, state: Mapping[str, Any], arrays_of: ArraysOf) -> Iterator[None]:
        """Within it, `start` the groups of `state` again; on exit all is as it was then. Nothing is done twice.

        Args:
          state: JSON data.
          arrays_of: see `Sampler.put_back`.

        Raises:
          CheckpointError: the episodes take another course now.
        """
        with self._player.replaying(state, arrays_of):
            yield

    def _round(self) -> None:
        due = [due for due, _ in self._finished_groups() if due > self._player.steps] if self.patience else []
        if not self._player.round(min(due, default=None)):
            raise RuntimeError("episodes have not finished, but no turn or tool is in flight")
