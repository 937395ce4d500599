"""Advantages from the rewards of groups.

Samples are flat arrays; `groups` holds the group index of each sample. Groups have any size; indices any values and
order.
"""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from rlvr_jax import named
from rlvr_jax.errors import FunctionError
from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.tasks.task import draw

EPSILON = 1e-6


def advantages_of(
    config: AlgorithmConfig,
    rewards: Float[np.ndarray, "samples"],
    groups: Int[np.ndarray, "samples"],
    judged: Bool[np.ndarray, "samples"],
    seed: int,
    step: int,
) -> Float[np.ndarray, "samples"]:
    """The advantage of each sample of a step; 0 for unjudged ones.

    Args:
      config: the choices.
      rewards: of the samples.
      groups: the group index of each sample.
      judged: False for samples without a reward.
      seed, step: seed the permutation of `shuffle_rewards`.

    Raises:
      FunctionError: a user's function raises, or does not return a finite number per sample.
    """
    if config.shuffle_rewards:
        rewards = shuffled(rewards, judged, seed, step)
    if config.advantage in ADVANTAGES:
        return ADVANTAGES[config.advantage](rewards, groups, judged, config.scale)
    try:
        # Copies: a function that changes its arguments would change what is logged.
        found = np.asarray(named.load(config.advantage)(rewards.copy(), groups.copy(), judged.copy()), np.float32)
    except Exception as error:
        where = f"{named.raised_at(error, config.advantage)}: {config.advantage!r}"
        raise FunctionError(f"{where}: {type(error).__name__}: {error}") from error
    if found.shape != rewards.shape or not np.isfinite(found[judged]).all():
        raise FunctionError(
            f"{named.where(config.advantage)}: {config.advantage!r} gave {found.size} numbers, "
            f"{int(np.sum(~np.isfinite(found)))} of them not finite, for {rewards.size} rewards"
        )
    return np.where(judged, found, np.float32(0))


def group_advantages(
    rewards: Float[np.ndarray, "samples"],
    groups: Int[np.ndarray, "samples"],
    judged: Bool[np.ndarray, "samples"],
    scale: Literal["group_std", "none"] = "group_std",
) -> Float[np.ndarray, "samples"]:
    """Each reward minus its group's mean, divided by the group's standard deviation if `scale` is "group_std".

    Unjudged samples are excluded from mean and deviation, and their advantage is 0, as is that of the only judged
    sample of a group.

    Source: Shao et al. 2024 (arXiv:2402.03300), section 4.1.2, with the population standard deviation (divisor: the
    number of judged samples). "none" is Liu et al. 2025 (arXiv:2503.20783).
    """
    _, group = np.unique(groups, return_inverse=True)
    # Equal rewards must give exactly 0; in float32 the mean of several 0.1 is not 0.1. Sums of equal float32 numbers
    # are exact in float64.
    rewards = np.where(judged, rewards.astype(np.float32), 0).astype(np.float64)
    count = np.maximum(np.bincount(group, judged), 1)
    centred = np.where(judged, rewards - (np.bincount(group, rewards) / count)[group], 0)
    if scale == "group_std":
        centred /= np.sqrt(np.bincount(group, centred**2) / count)[group] + EPSILON
    return centred.astype(np.float32)


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
    """Share of groups whose judged rewards are all equal, so that their advantages are 0.

    They include groups with at most one judged sample. Without any group the share is 0.
    """
    numbers, group = np.unique(groups, return_inverse=True)
    lowest, highest = np.full(len(numbers), np.inf), np.full(len(numbers), -np.inf)
    np.minimum.at(lowest, group[judged], rewards[judged])
    np.maximum.at(highest, group[judged], rewards[judged])
    return float(np.sum(lowest >= highest) / max(len(numbers), 1))  # without a judged sample infinity >= -infinity


ADVANTAGES = {"group_relative": group_advantages}
