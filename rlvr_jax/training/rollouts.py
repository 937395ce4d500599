"""The rollouts of a step: its groups with their rewards, and the further episodes that an algorithm asks for.

These are the groups that replace those without a signal (`algorithm.max_draws`), greedy responses to the same prompts
(`algorithm.baseline` "greedy"), episodes that go on from the states between the steps of others ("monte_carlo"), and
earlier groups (`algorithm.replay`).
"""

import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Array, Float, Int32, Shaped

from rlvr_jax import tasks
from rlvr_jax.learner.advantages import KEEPS, zero_signal_groups
from rlvr_jax.learner.credit import has_states, has_tracker
from rlvr_jax.learner.rewards import Rewards, joined, of_groups, reward, without_groups
from rlvr_jax.learner.samples import samples_of
from rlvr_jax.learner.vine import step_advantages
from rlvr_jax.rollout import kept
from rlvr_jax.rollout.collector import Collector
from rlvr_jax.rollout.continuous import ArraysOf
from rlvr_jax.rollout.episode import Episode, Group, Span
from rlvr_jax.rollout.episode import Sequence as Window
from rlvr_jax.rollout.replay import Outcome, drawn
from rlvr_jax.rollout.steps import states_of, steps_of
from rlvr_jax.rollout.streams import Stream, fold_in
from rlvr_jax.tasks.curriculum import Chosen, key_of
from rlvr_jax.text.tokenizers import encode
from rlvr_jax.training.history import (
    History,
    first_history,
    from_json,
    make_choice,
    prior,
    to_json,
    warn_exhausted,
)
from rlvr_jax.training.record import doubling
from rlvr_jax.training.setup import Setup, training_mixture

_log = logging.getLogger(__name__)

# The random streams of a step's rollouts: fold_in(its key, one of these), then the number of the draw.
_GREEDY, _REPLACEMENTS, _STATES = 1, 2, 3
_NONE = History()
_HISTORY, _IN_FLIGHT = "history", "in_flight"  # their names beside those of rollouts


@dataclass(frozen=True)
class Rollout:
    """The episodes of a step.

    Attributes:
      groups: to train on.
      rewards: of their episodes.
      outcomes: all groups that were sampled, also those that were replaced, with their rewards.
      replayed: the number of groups, the last ones, that are earlier steps'.
      expected: for each episode the reward that its problem leads to expect: that of the greedy response, or the
        tracked one; or None.
      steps: for each episode the advantage of the step of each of its tokens; or None.
      metrics: of further episodes.
    """

    groups: list[Group]
    rewards: Rewards
    outcomes: Sequence[Outcome] = ()
    replayed: int = 0
    expected: Float[np.ndarray, "episodes"] | None = None
    steps: Sequence[Float[np.ndarray, "_"]] | None = None
    metrics: Mapping[str, float | int] = field(default_factory=dict)

    @property
    def own(self) -> tuple[list[Group], Rewards]:
        """The groups that the step has sampled."""
        count = len(self.groups) - self.replayed
        return self.groups[:count], of_groups(self.rewards, np.arange(count)) if self.replayed else self.rewards


@dataclass(frozen=True)
class _Drawn:
    """Groups with their rewards and the places of their problems."""

    places: list[tasks.Place]
    groups: list[Group]
    rewards: Rewards

    def outcomes(self, step: int) -> list[Outcome]:
        ends = np.searchsorted(self.rewards.group, np.arange(len(self.groups) + 1))
        parts = [slice(*pair) for pair in itertools.pairwise(ends.tolist())]
        values, judged = self.rewards.values, self.rewards.judged
        triples = zip(self.places, self.groups, parts, strict=True)
        return [Outcome(place, group, values[part], judged[part], step) for place, group, part in triples]


class Rollouts:
    """The rollouts of a run, started and taken by step. Those of a step are batches of the collector."""

    def __init__(
        self,
        setup: Setup,
        collector: Collector,
        key_of: Callable[[int], Stream],
        scored: Callable[[Sequence[Group]], Sequence[Group]] = lambda groups: groups,
    ):
        """Rollouts of a collector.

        Args:
          setup: of the run.
          collector: used by others between `take` and `start` only.
          key_of: step -> its random stream.
          scored: the groups with the scores of reward models and judges as parts of their verdicts.
        """
        self._setup, self._collector, self._key_of, self._scored = setup, collector, key_of, scored
        self._mixture = training_mixture(setup)
        self._choice, self._exhausted_is_news = make_choice(setup), doubling()
        self._sampled = setup.config.rollout.group_size - setup.config.algorithm.demonstrations
        self._size = setup.config.rollout.prompts - setup.config.algorithm.replay  # groups of a step
        self._goes_on, self._started = setup.config.rollout.in_flight != "finish", 0
        self._in_flight: dict[str, list[tasks.Place]] = {}  # of the groups of steps that were started here
        self._is_news = doubling()  # the share of groups that lack a signal after all draws

    def start(self, step: int, history: History = _NONE) -> None:
        """Submits the episodes of a step, unless they have been."""
        if (self._goes_on and step <= self._started) or str(step) in self._collector.started():
            return
        self._started, places = step, self._places(step, history)
        self._start(str(step), places)
        self._in_flight[str(step)] = places
        if self._setup.config.algorithm.baseline == "greedy":
            examples, key = self._examples(places), fold_in(self._key_of(step), _GREEDY)
            self._collector.start(_greedy(step), examples, 1, key, 0.0)

    def _start(self, name: str, places: Sequence[tasks.Place], **numbers: Sequence[int]) -> None:
        """Submits groups of a step, all of them or those of `numbers`."""
        examples, temperature = self._examples(places), self._setup.config.rollout.temperature
        self._collector.start(name, examples, self._sampled, self._key_of(int(name)), temperature, **numbers)

    def play(self) -> None:
        """Plays what must be played before the parameters of the sampler change.

        That is all that is in flight, unless it goes on with the new ones. Then it is the groups of the next step, if
        the sampler has devices of its own, which would be idle during the update.
        """
        if not self._goes_on:
            self._collector.play()
        elif self._setup.config.rollout.devices:
            self._collector.play_first(self._size)

    def take(self, step: int, history: History = _NONE) -> Rollout:
        """The groups of a step, once they and all further episodes are judged.

        Args:
          step: of the run.
          history: before it.

        Raises:
          RuntimeError: its episodes were not started.
        """
        algorithm, seed = self._setup.config.algorithm, self._setup.config.seed
        if self._goes_on:
            found = self._first(step)
        else:
            found = self._drawn(str(step), step, self._in_flight.pop(str(step), None) or self._places(step, history))
        sampled, metrics = found, {}
        if algorithm.max_draws > 1:
            found, sampled, metrics = self._refilled(step, found, history)
        groups, rewards, outcomes = found.groups, found.rewards, sampled.outcomes(step)
        if algorithm.replay:
            again = drawn(history.replay, algorithm.replay, seed, step)
            metrics |= {"replay/groups": len(again), "replay/size": len(history.replay)}
            metrics |= _mean_of("replay/age", np.array([step - outcome.step for outcome in again]))
            if again:
                groups = groups + [outcome.group for outcome in again]
                rewards = joined([rewards, self._rewards(groups[-len(again) :])])
            return Rollout(groups, rewards, outcomes, len(again), metrics=metrics)
        if has_tracker(algorithm):
            keys = [key_of("problem", *pair) for pair in zip(found.places, (x.example for x in groups), strict=True)]
            unseen = prior(self._setup.config)
            rates = np.array([history.rates.get(key, unseen).rate for key in keys])
            metrics |= _mean_of("train/tracked_reward", rates)
            return Rollout(groups, rewards, outcomes, expected=rates[rewards.group], metrics=metrics)
        if algorithm.baseline == "greedy":
            greedy = self._rewards(self._collector.take(_greedy(step)))
            errors = [verdict.error for verdict in greedy.verdicts]
            rewards = without_groups(
                rewards, {g: f"greedy response: {error}" for g, error in enumerate(errors) if error}
            )
            metrics |= _mean_of("train/greedy_reward", greedy.values[greedy.judged])
            return Rollout(groups, rewards, outcomes, expected=greedy.values[rewards.group], metrics=metrics)
        if has_states(algorithm):
            steps, values = self._steps(step, groups, rewards)
            return Rollout(groups, rewards, outcomes, steps=steps, metrics=metrics | values)
        return Rollout(groups, rewards, outcomes, metrics=metrics)

    def state(self, history: History = _NONE) -> tuple[dict[str, Any], list[Array]]:
        """All started rollouts that have not been taken, and the history, as JSON data; arrays of `Collector.state`.

        The rollouts are played and judged, unless they go on with other parameters.
        """
        arrays: list[Array] = []
        if self._goes_on:
            state, arrays = self._collector.state()
            groups = {_IN_FLIGHT: state | {"places": self._in_flight, "started": self._started}}
        else:
            groups = {name: kept.to_json(groups) for name, groups in self._collector.finished().items()}
        return groups | ({} if history == _NONE else {_HISTORY: to_json(history)}), arrays

    def put_back(self, saved: Mapping[str, Any], arrays_of: ArraysOf = list) -> History:
        """Adds the rollouts of an earlier process, from its `state`; returns its history, or a first one."""
        history = first_history(self._setup.config, self.choice)
        if _HISTORY in saved:
            history = from_json(saved[_HISTORY], self._setup)
        if _IN_FLIGHT in saved:
            state = saved[_IN_FLIGHT]
            self._started = state["started"]
            self._in_flight = {name: [tuple(x) for x in places] for name, places in state["places"].items()}
            with self._collector.replaying(state, arrays_of):
                for name, numbers in state["batches"]:
                    self._start(name, [self._in_flight[name][i] for i in numbers], numbers=numbers)
        for name, groups in saved.items():
            if name not in (_HISTORY, _IN_FLIGHT):
                examples = self._examples(self._places(int(name.split()[0]), history))
                self._collector.put_back(name, kept.from_json(groups, examples))
        return history

    def _places(self, step: int, history: History, draw: int = 0) -> list[tasks.Place]:
        """The places of the problems of a step. Each further draw has a stream of its own, which like the first has
        every problem of a finite task once an epoch."""
        if not draw and step in history.problems:
            return list(history.problems[step])
        return list(self.choice(history, step, draw).places)

    def choice(self, history: History, step: int, draw: int) -> Chosen:
        """Chooses the problems of a step, see `history.Choice`; warns of a filter that leaves too few."""
        chosen = self._choice(history, step, draw)
        warn_exhausted(self._setup.config, step, chosen, self._exhausted_is_news)
        return chosen

    def _examples(self, places: Sequence[tasks.Place]) -> list[tasks.Example]:
        return tasks.examples_of(self._mixture, "train", places)

    def _drawn(self, name: str, step: int, places: list[tasks.Place]) -> _Drawn:
        groups = self._shown(self._collector.take(name), step)
        return _Drawn(places, groups, self._rewards(groups))

    def _first(self, step: int) -> _Drawn:
        """As many groups as a step has, the first ones to finish."""
        found = self._collector.take_first(self._size)
        places = [self._in_flight[name][number] for name, number, _ in found]
        groups = self._shown([group for _, _, group in found], step)
        started = self._collector.started()
        self._in_flight = {name: x for name, x in self._in_flight.items() if name in started}
        return _Drawn(places, groups, self._rewards(groups))

    def _shown(self, groups: list[Group], step: int) -> list[Group]:
        """The groups with their demonstrations."""
        count = self._setup.config.algorithm.demonstrations
        if not count:
            return groups
        shown = [self._demonstration(group.example, step * count + i) for group in groups for i in range(count)]
        verdicts = self._collector.judge(shown)
        rows = [slice(i * count, (i + 1) * count) for i in range(len(groups))]
        return [
            replace(x, episodes=x.episodes + tuple(shown[part]), verdicts=x.verdicts + tuple(verdicts[part]))
            for x, part in zip(groups, rows, strict=True)
        ]

    def _demonstration(self, example: tasks.Example, number: int) -> Episode:
        """A demonstration as an episode, cut off at the response budget.

        Source: Yan et al. 2025 (LUFFY, arXiv:2504.14945).
        """
        setup, most = self._setup, self._setup.config.rollout.max_response_length
        text = setup.tasks[example.task].demonstration(example, number)
        tokens = [*encode(setup.tokenizer, text), setup.end_token]
        finish = "stop" if len(tokens) <= most else "length"
        spans = (
            Span("prompt", _ids(encode(setup.tokenizer, example.prompt))),
            Span("demonstration", _ids(tokens[:most])),
        )
        return Episode(example, number, (Window(spans),), (text,), finish)

    def _rewards(self, groups: Sequence[Group]) -> Rewards:
        setup, config = self._setup, self._setup.config
        groups = self._scored(groups)
        return reward(config.reward, groups, setup.parts, config.verifier.timeout, setup.processes)

    def _refilled(self, step: int, found: _Drawn, history: History) -> tuple[_Drawn, _Drawn, dict[str, float | int]]:
        """The first groups that `algorithm.keep` keeps, of as many draws as it takes; without any, those of the first.
        And the groups of all draws.

        Source: dynamic sampling of Yu et al. 2025 (DAPO, arXiv:2503.14476), section 3.2.
        """
        config, rollout = self._setup.config.algorithm, self._setup.config.rollout
        wanted, draws = len(found.groups), 1
        while (full := self._full(found.groups, found.rewards)).size < wanted and draws < config.max_draws:
            name, key = f"{step} draw {draws}", fold_in(self._key_of(step), _REPLACEMENTS, draws)
            places = self._places(step, history, draws)
            self._collector.start(name, self._examples(places), self._sampled, key, rollout.temperature)
            more = self._drawn(name, step, places)
            rewards = joined([found.rewards, more.rewards])
            found, draws = _Drawn(found.places + places, found.groups + more.groups, rewards), draws + 1
        rewards = found.rewards
        right = np.array([verdict.score == 1 for verdict in rewards.verdicts])
        metrics = {
            "rollout/draws": draws,
            **_mean_of("train/unfiltered_reward", rewards.values[rewards.judged]),
            **_mean_of("train/unfiltered_accuracy", right[rewards.judged]),
            "train/zero_signal_groups": zero_signal_groups(rewards.values, rewards.group, rewards.judged),
        }
        if self._is_news(1 - full.size / wanted):
            _log.warning(
                "step %d: %d of %d groups have a signal after %d draws (config.algorithm.max_draws); the step is "
                "trained on %s; this is said again if the share that lacks one doubles",
                step, full.size, wanted, draws, "these" if full.size else "none",
            )  # fmt: skip
        chosen = full[:wanted] if full.size else np.arange(wanted)
        places, groups = [found.places[i] for i in chosen], [found.groups[i] for i in chosen]
        return _Drawn(places, groups, of_groups(rewards, chosen)), found, metrics

    def _full(self, groups: Sequence[Group], rewards: Rewards) -> np.ndarray:
        """The numbers of the groups of which samples are kept."""
        config = self._setup.config
        samples = samples_of(groups, rewards, config.rollout.episode_length)
        return np.unique(rewards.group[KEEPS[config.algorithm.keep](samples)])

    def _steps(
        self, step: int, groups: Sequence[Group], rewards: Rewards
    ) -> tuple[list[Float[np.ndarray, "_"]], dict[str, float | int]]:
        """The advantage of the step of each token, from the mean rewards of further episodes from the states between.

        Equal states of a group are sampled from once.
        """
        config, tokenizer = self._setup.config.algorithm, self._setup.tokenizer
        members = [(group, episode) for group in groups for episode in group.episodes]
        steps = [steps_of(e.tokens, tokenizer, config.step_delimiter, config.step_length) for _, e in members]
        states: dict[tuple[int, bytes], tuple[tasks.Example, np.ndarray]] = {}
        of_episodes = []
        for (group, episode), number, judged, index in zip(members, rewards.group, rewards.judged, steps, strict=True):
            begun = [episode.tokens[:n] for n in states_of(index, config.max_states)] if judged else []
            keys = [(int(number), tokens.tobytes()) for tokens in begun]
            states |= {key: (group.example, tokens) for key, tokens in zip(keys, begun, strict=True)}
            of_episodes.append(keys)
        values = self._values(step, list(states.values()))
        means = dict(zip(states, values, strict=True))
        found = []
        for value, keys, index in zip(rewards.values, of_episodes, steps, strict=True):
            known = _without_gaps([means[key] for key in keys], float(value))
            found.append(step_advantages(float(value), known, int(index.max(initial=-1)) + 1)[index])
        return found, {"rollout/states": len(states), **_mean_of("train/state_value", values[np.isfinite(values)])}

    def _values(self, step: int, states: Sequence[tuple[tasks.Example, np.ndarray]]) -> Float[np.ndarray, "states"]:
        """The mean reward of episodes from each state, NaN if none could be judged."""
        if not states:
            return np.zeros(0)
        config, name = self._setup.config, f"{step} states"
        examples, begun = zip(*states, strict=True)
        key = fold_in(self._key_of(step), _STATES)
        self._collector.start(
            name, examples, config.algorithm.state_samples, key, config.rollout.temperature, list(begun)
        )
        rewards = self._rewards(self._collector.take(name))
        group, judged = rewards.group, rewards.judged
        sums, counts = np.bincount(group, rewards.values * judged, len(states)), np.bincount(group, judged, len(states))
        return np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)


def _ids(tokens: Sequence[int]) -> Int32[np.ndarray, "_"]:
    return np.asarray(tokens, np.int32)


def _without_gaps(values: Sequence[float], first: float) -> list[float]:
    """The values, an unknown one being that of the state before, so that the step between has no advantage."""
    known: list[float] = []
    for value in values:
        known.append(value if np.isfinite(value) else known[-1] if known else first)
    return known


def _greedy(step: int) -> str:
    return f"{step} greedy"


def _mean_of(name: str, values: Shaped[np.ndarray, "n"]) -> dict[str, float]:
    """The metric of that name, absent without values."""
    return {name: float(np.mean(values, dtype=np.float64))} if values.size else {}
