"""Advantages of a step's samples, and which of them are trained on."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from rlvr_jax import named
from rlvr_jax.errors import FunctionError, error_text
from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.baselines import BASELINES, SCALES
from rlvr_jax.learner.lengths import LENGTHS
from rlvr_jax.learner.samples import Samples
from rlvr_jax.tasks.task import draw
from rlvr_jax.time_limit import time_limits


@dataclass(frozen=True)
class Signal:
    """The samples that a step is trained on.

    Attributes:
      samples: all of them, with the rewards that advantages are computed from.
      trained: False for samples without actions: unjudged ones, and masked ones that were cut off.
      kept: False for samples that are left out of the batch, as if they had not been sampled.
      silent: share of groups without signal, see `zero_signal_groups`, of the rewards that the advantages are from.
    """

    samples: Samples
    trained: Bool[np.ndarray, "samples"]
    kept: Bool[np.ndarray, "samples"]
    silent: float


def signal(config: AlgorithmConfig, samples: Samples, seed: int, step: int) -> Signal:
    """The samples of a step with their rewards shuffled (a control) and changed by length, and the filters.

    Filters change no advantage of the samples that remain; `keep` reads the rewards before their change by length.

    Args:
      config: the choices.
      samples: of the step.
      seed, step: seed the permutation of `shuffle_rewards`.

    Raises:
      FunctionError: rewards are not those that a choice is defined for.
    """
    if config.shuffle_rewards:
        samples = samples.with_rewards(shuffled(samples.rewards, samples.judged, seed, step))
    kept = KEEPS[config.keep](samples)
    samples = samples.with_rewards(LENGTHS[config.length_reward](config, samples))
    trained = samples.judged & ~samples.cut_off if config.overlong == "mask" else samples.judged
    silent = zero_signal_groups(samples.rewards, samples.groups, samples.judged)
    return Signal(samples, trained, kept, silent)


def describe(found: Signal) -> dict[str, float]:
    """The metrics of a step's groups and filters."""
    samples = found.samples
    lowest, highest = _bounds(samples.rewards, samples.groups, samples.judged)
    positive = (lowest >= highest) & (lowest > 0) & np.isfinite(lowest)
    return {
        "train/zero_signal_groups": found.silent,
        "train/zero_signal_positive": float(np.sum(positive) / max(len(positive), 1)),
        "train/kept": float(np.mean(found.kept)),
    }


def describe_advantages(values: Float[np.ndarray, "n"]) -> dict[str, float]:
    """The metrics of a step's advantages: of samples that are trained on, or of actions."""
    values = values.astype(np.float64)
    return {
        "train/advantage_mean": float(np.mean(values)) if values.size else 0.0,
        "train/advantage_std": float(np.std(values)) if values.size else 0.0,
        "train/advantage_max": float(np.max(np.abs(values), initial=0.0)),
        "train/advantage_zero": float(np.mean(values == 0)) if values.size else 1.0,
    }


def advantages(config: AlgorithmConfig, samples: Samples, seconds: float | None = None) -> Float[np.ndarray, "samples"]:
    """The advantage of each sample by the baseline and scale of the config, or its function; 0 for unjudged ones.

    Args:
      config: the choices.
      samples: of the step.
      seconds: maximum time of the function; None for no limit.

    Raises:
      FunctionError: see `signal`.
    """
    if config.advantage == "baseline":
        differences = np.where(samples.judged, BASELINES[config.baseline](config, samples), 0.0)
        scaled = SCALES[config.scale](config, samples, differences)
        return np.where(samples.judged, scaled, 0.0).astype(np.float32)
    arguments = samples.rewards.astype(np.float32), samples.groups.copy(), samples.judged.copy()
    try:
        with time_limits(seconds) as limited:
            found = np.asarray(limited(named.load(config.advantage), *arguments), np.float32)
    except (Exception, SystemExit) as error:
        where = f"{named.raised_at(error, config.advantage)}: {config.advantage!r}"
        raise FunctionError(f"{where}: {error_text(error)}") from error
    if found.shape != samples.rewards.shape or not np.isfinite(found[samples.judged]).all():
        raise FunctionError(
            f"{named.where(config.advantage)}: {config.advantage!r} gave {found.size} numbers, "
            f"{int(np.sum(~np.isfinite(found)))} of them not finite, for {samples.rewards.size} rewards"
        )
    return np.where(samples.judged, found, np.float32(0))


def shuffled(
    rewards: Float[np.ndarray, "samples"], judged: Bool[np.ndarray, "samples"], seed: int, step: int
) -> Float[np.ndarray, "samples"]:
    """The rewards of a step, permuted among its judged samples by (seed, step).

    A control: rewards of the same distribution without information about the samples. A curve that rises with them does
    not rise because of the reward (Shao et al. 2025, "Spurious Rewards", arXiv:2506.10947).
    """
    places = np.flatnonzero(judged)
    order = sorted(range(len(places)), key=lambda place: draw("shuffled", seed, step, place))
    result = rewards.copy()
    result[places] = rewards[places[order]]
    return result


def zero_signal_groups(
    rewards: Float[np.ndarray, "samples"], groups: Int[np.ndarray, "samples"], judged: Bool[np.ndarray, "samples"]
) -> float:
    """Share of groups whose judged rewards are all equal, so that no baseline of the group finds a difference.

    They include groups with at most one judged sample. Without any group the share is 0.
    """
    index, group = np.unique(groups, return_inverse=True)
    lowest, highest = _bounds(rewards, group, judged)
    return float(np.sum(lowest >= highest) / max(len(index), 1))


def _bounds(
    rewards: Float[np.ndarray, "samples"], group: Int[np.ndarray, "samples"], judged: Bool[np.ndarray, "samples"]
) -> tuple[Float[np.ndarray, "groups"], Float[np.ndarray, "groups"]]:
    """Smallest and largest judged reward of each group, exact where a standard deviation is not; infinity and minus
    infinity without any."""
    count = group.max(initial=-1) + 1
    lowest, highest = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(lowest, group[judged], rewards[judged])
    np.maximum.at(highest, group[judged], rewards[judged])
    return lowest, highest


def all_samples(samples: Samples) -> Bool[np.ndarray, "samples"]:
    """Every sample, unjudged ones included."""
    return np.ones(len(samples.rewards), bool)


def mixed_groups(samples: Samples) -> Bool[np.ndarray, "samples"]:
    """The samples of groups whose judged rewards differ.

    Source: the filter of dynamic sampling (Yu et al. 2025, DAPO, arXiv:2503.14476), without new samples in place of the
    dropped ones.
    """
    lowest, highest = _bounds(samples.rewards, samples.groups, samples.judged)
    return (lowest < highest)[samples.groups]


def right_samples(samples: Samples) -> Bool[np.ndarray, "samples"]:
    """Samples with a reward above 0 (RAFT; Dong et al. 2023; Xiong et al. 2025, arXiv:2504.11343)."""
    return samples.judged & (samples.rewards > 0)


def best_and_worst(samples: Samples) -> Bool[np.ndarray, "samples"]:
    """Of each group whose judged rewards differ the samples of the highest and the lowest one, see
    `baselines.best_worst`."""
    return BASELINES["best_worst"](AlgorithmConfig(), samples) != 0


KEEPS: Mapping[str, Callable[[Samples], Bool[np.ndarray, "samples"]]] = {
    "all": all_samples,
    "mixed_groups": mixed_groups,
    "right": right_samples,
    "best_worst": best_and_worst,
}
