"""The history of a run: the state on the host that its samples leave behind, one record for all that need one.

These are pass rates of levels and problems (curricula, and the baseline "tracker"), the problems of the next steps,
which are chosen by them, and earlier groups to train on again. `advanced` is a pure function of the record and the
groups of a step, which are the same in all processes. The record is saved with each checkpoint; where no key of the
config asks for one it stays empty.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from rlvr_jax import tasks
from rlvr_jax.config import Config, TaskConfig
from rlvr_jax.learner.advantages import Signal
from rlvr_jax.learner.baselines import tracker_decay
from rlvr_jax.learner.batch import in_groups, make_batch
from rlvr_jax.learner.credit import has_tracker
from rlvr_jax.learner.samples import make_samples
from rlvr_jax.learner.scores import Scorer
from rlvr_jax.rollout import kept
from rlvr_jax.rollout.episode import Group
from rlvr_jax.rollout.replay import Outcome, stored
from rlvr_jax.tasks import Place
from rlvr_jax.tasks.curriculum import Chosen, Counts, CurriculumConfig, choose, key_of, observed, pools
from rlvr_jax.training.setup import Setup, training_mixture

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class History:
    """The record.

    Attributes:
      rates: counts of right and wrong samples of each task, and of each level or problem that was seen.
      stage: the highest of the stages of tasks that are open.
      problems: of the next steps, by step, if the rates choose them.
      last: with the baseline "tracker", the last episode of each problem, by its key.
      replay: groups to train on again, oldest first.
    """

    rates: Mapping[str, Counts] = field(default_factory=dict)
    stage: int = 0
    problems: Mapping[int, tuple[Place, ...]] = field(default_factory=dict)
    last: Mapping[str, Group] = field(default_factory=dict)
    replay: tuple[Outcome, ...] = ()


Choice = Callable[[History, int, int], Chosen]  # (history, step, number of the draw) -> its problems


def chooses(config: Config) -> bool:
    """True if pass rates choose the problems of a run."""
    c, none = config.curriculum, CurriculumConfig()
    staged = any(task.stage > 0 for task in config.tasks.values() if task.weight > 0)
    return staged or (c.sampling, c.low, c.high) != (none.sampling, none.low, none.high)


def remembers(config: Config) -> bool:
    """True if a run has a history."""
    return chooses(config) or has_tracker(config.algorithm) or config.algorithm.replay > 0


def make_choice(setup: Setup) -> Choice:
    """The function that chooses the problems of a step, by the order of the mixture where no rates do."""
    config, mixture = setup.config, training_mixture(setup)
    by_level = config.curriculum.sampling != "mixture" and config.curriculum.by == "level"
    of_levels = pools(mixture) if by_level else []
    size = config.rollout.prompts - config.algorithm.replay

    def chosen(history: History, step: int, number: int) -> Chosen:
        is_open = [_is_open(config.tasks[task.name], history.stage, step) for task in mixture.tasks]
        pairs = [x for x, y in zip(zip(mixture.tasks, mixture.weights, strict=True), is_open, strict=True) if y]
        now = tasks.Mixture(*zip(*pairs, strict=True))
        names = [task.name for task in now.tasks]
        levels = [pool for pool in of_levels if pool.task.name in names]
        return choose(config.curriculum, now, levels, history.rates, config.seed, step, size, number)

    return chosen


def _is_open(task: TaskConfig, stage: int, step: int) -> bool:
    return task.stage <= stage and (not task.steps or task.steps[0] <= step <= task.steps[1])


def first_history(config: Config, choice: Choice) -> History:
    """The history before the first step."""
    history = History()
    if not chooses(config):
        return history
    ahead = range(1, config.training.max_lag + 2)
    return replace(history, problems={step: choice(history, step, 0).places for step in ahead})


def advanced(
    config: Config,
    choice: Choice,
    history: History,
    step: int,
    outcomes: Sequence[Outcome],
    drift: Mapping[str, float] | None = None,
) -> tuple[History, dict[str, float | int]]:
    """The history after a step, and metrics.

    Args:
      config: of the run.
      choice: from `make_choice`.
      history: before the step.
      step: of the run.
      outcomes: all groups that were sampled for the step, without replayed ones.
      drift: with the baseline "tracker", for problems with a last episode how far the policy has moved since, in nats
        per token, see `baselines.tracker_decay`.
    """
    if not remembers(config):
        return history, {}
    by = "problem" if has_tracker(config.algorithm) else config.curriculum.by
    keys = [key_of(by, outcome.place, outcome.group.example) for outcome in outcomes]
    rates = _rates(config, history.rates, keys, outcomes, drift or {})
    history = replace(history, rates=rates, stage=_stage(config, history.stage, rates))
    if has_tracker(config.algorithm):
        last = {key: _last_episode(x.group) for key, x in zip(keys, outcomes, strict=True)}
        history = replace(history, last={**history.last, **last})
    if config.algorithm.replay:
        size, order = config.algorithm.replay_size, config.algorithm.replay_order
        history = replace(history, replay=stored(history.replay, outcomes, size, order))
    if not chooses(config):
        return history, {}
    metrics = _describe(config, history, keys, by)
    ahead, problems = step + 1 + config.training.max_lag, dict(history.problems)
    problems.pop(step, None)
    chosen = choice(history, ahead, 0)  # also after the last step: the run may be continued with more
    metrics["curriculum/left_out"] = chosen.left_out
    return replace(history, problems={**problems, ahead: chosen.places}), metrics


def _rates(
    config: Config,
    before: Mapping[str, Counts],
    keys: Sequence[str],
    outcomes: Sequence[Outcome],
    drift: Mapping[str, float],
) -> dict[str, Counts]:
    """The counts after a step: of the tasks, and by `keys`, one for each outcome. Those of the baseline "tracker" are
    of rewards instead of right samples."""
    algorithm, tracked = config.algorithm, has_tracker(config.algorithm)
    seen: dict[str, Counts] = {}
    for key, x in zip(keys, outcomes, strict=True):
        pairs = zip(x.group.episodes, x.group.verdicts, x.judged, strict=True)
        right = [verdict.score == 1 for episode, verdict, judged in pairs if judged and not episode.is_demonstration]
        passed = {x.place[0]: float(sum(right)), key: float(sum(right))}
        if tracked:
            passed[key] = float(np.sum(x.rewards[x.judged], dtype=np.float64))
        for name, value in passed.items():
            seen[name] = observed(seen.get(name, Counts(0, 0)), value, len(right) - value, 1.0)
    rates = dict(before)
    for name, new in seen.items():
        decay, start = config.curriculum.decay, Counts(0, 0)
        if tracked and name in keys:
            decay, start = tracker_decay(algorithm, drift.get(name, 0.0)), prior(config)
        rates[name] = observed(before.get(name, start), new.right, new.wrong, decay)
    return rates


def drift(
    setup: Setup, history: History, outcomes: Sequence[Outcome], scorers: Mapping[str, Scorer]
) -> dict[str, float]:
    """With the baseline "tracker" the `drift` of `advanced`; otherwise empty, without a forward pass.

    Args:
      setup: of the run.
      history: before the step.
      outcomes: of the step.
      scorers: of the policy before the updates of the step, with "proximal".
    """
    found: dict[str, float] = {}
    if not has_tracker(setup.config.algorithm):
        return found
    rollout = setup.config.rollout
    keys = sorted({key_of("problem", x.place, x.group.example) for x in outcomes} & history.last.keys())
    for start in range(0, len(keys), rollout.prompts):
        part = keys[start : start + rollout.prompts]
        every = np.ones(len(part), bool)
        signal = Signal(make_samples(np.zeros(len(part)), np.arange(len(part))), every, every, 0.0)
        lengths = rollout.max_prompt_length, rollout.max_response_length
        batch, episodes = make_batch([history.last[key] for key in part], signal, *lengths)
        batch, owners = in_groups((batch, episodes), episodes, rollout.prompts, rollout.group_rows)
        moved = np.abs(scorers["proximal"](batch) - batch.columns["behaviour"]) * (batch.action_mask > 0)
        sums, counts = (np.bincount(owners, x.sum(axis=1, dtype=np.float64)) for x in (moved, batch.action_mask))
        found |= {key: float(sums[i] / max(counts[i], 1)) for i, key in enumerate(part)}
    return found


def prior(config: Config) -> Counts:
    """The counts of a problem that the baseline "tracker" has not seen."""
    return Counts(config.algorithm.tracker_prior / 2, config.algorithm.tracker_prior / 2)


def warn_exhausted(config: Config, step: int, chosen: Chosen, is_news: Callable[[float], bool]) -> None:
    """Logs it if the filter has left nothing for some places of a step of the run, and their share is news."""
    c = config.curriculum
    if step <= config.training.num_steps and is_news(chosen.exhausted / max(len(chosen.places), 1)):
        _log.warning(
            "step %d: for %d of %d problems all %d candidates had a pass rate outside of [%g, %g] "
            "(config.curriculum.low and high), and the first was taken; widen the range, add problems or raise tries "
            "(this is said again if their share doubles)",
            step, chosen.exhausted, len(chosen.places), c.tries, c.low, c.high,
        )  # fmt: skip


def _stage(config: Config, stage: int, rates: Mapping[str, Counts]) -> int:
    """The open stage: the next one once all tasks of this one have reached the threshold."""
    trained = {name: task.stage for name, task in config.tasks.items() if task.weight > 0}
    later = [x for x in trained.values() if x > stage]
    passed = [name in rates and rates[name].rate >= config.curriculum.threshold for name, x in trained.items()
              if x == stage]  # fmt: skip
    return min(later) if later and all(passed) else stage


def _describe(config: Config, history: History, keys: Sequence[str], by: str) -> dict[str, float | int]:
    metrics: dict[str, float | int] = {}
    if any(task.stage for task in config.tasks.values()):
        metrics["curriculum/stage"] = history.stage
    if by == "level":
        with_levels = {key.partition("/")[0] for key in history.rates if "/" in key}
        for key in sorted(history.rates.keys() - with_levels):
            metrics[f"curriculum/pass_rate/{key}"] = history.rates[key].rate
            metrics[f"curriculum/share/{key}"] = keys.count(key) / len(keys)
        return metrics
    rates = np.array([counts.rate for key, counts in history.rates.items() if "/" in key])
    low, high = config.curriculum.low, config.curriculum.high
    metrics["curriculum/problems"] = len(rates)
    metrics["curriculum/pass_rate"] = float(np.mean(rates)) if len(rates) else 0.0
    metrics["curriculum/outside"] = float(np.mean((rates < low) | (rates > high))) if len(rates) else 0.0
    return metrics


def _last_episode(group: Group) -> Group:
    return replace(group, episodes=group.episodes[-1:], verdicts=group.verdicts[-1:])


def to_json(history: History) -> dict[str, Any]:
    """The history as JSON data."""
    return {
        "rates": {key: [counts.right, counts.wrong] for key, counts in history.rates.items()},
        "stage": history.stage,
        "problems": {str(step): [list(place) for place in places] for step, places in history.problems.items()},
        "last": dict(zip(history.last, kept.to_json(list(history.last.values())), strict=True)),
        "replay": [
            {
                "place": list(x.place),
                "group": kept.to_json([x.group])[0],
                "rewards": x.rewards.tolist(),
                "judged": x.judged.tolist(),
                "step": x.step,
            }
            for x in history.replay
        ],
    }


def from_json(data: Mapping[str, Any], setup: Setup) -> History:
    """The history of `to_json`. Raises CheckpointError if its samples are of other problems than the config's."""
    mixture = training_mixture(setup)
    example = lambda place: tasks.examples_of(mixture, "train", [place])[0]  # noqa: E731
    place_of = lambda key: (key.rpartition("/")[0], int(key.rpartition("/")[2]))  # noqa: E731
    last = [kept.from_json([group], [example(place_of(key))])[0] for key, group in data["last"].items()]
    replay = []
    for x in data["replay"]:
        place = (x["place"][0], x["place"][1])
        (group,) = kept.from_json([x["group"]], [example(place)])
        replay.append(Outcome(place, group, np.array(x["rewards"], np.float32), np.array(x["judged"], bool), x["step"]))
    return History(
        {key: Counts(*counts) for key, counts in data["rates"].items()},
        data["stage"],
        {int(step): tuple((name, index) for name, index in places) for step, places in data["problems"].items()},
        dict(zip(data["last"], last, strict=True)),
        tuple(replay),
    )
