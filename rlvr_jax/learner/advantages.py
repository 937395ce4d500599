"""From the rewards of a group to the advantages of its samples."""

from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.tasks.task import draw

EPSILON = 1e-6


def advantages_of(
    config: AlgorithmConfig,
    rewards: Float[np.ndarray, "prompts group"],
    judged: Bool[np.ndarray, "prompts group"],
    seed: int,
    step: int,
) -> Float[np.ndarray, "prompts group"]:
    """The advantage of each sample of a step by the algorithm's choices; `seed` and `step` name the control's order."""
    if config.shuffle_rewards:
        rewards = shuffled(rewards, judged, seed, step)
    return group_advantages(rewards, judged, config.scale)


def group_advantages(
    rewards: Float[np.ndarray, "prompts group"],
    judged: Bool[np.ndarray, "prompts group"],
    scale: Literal["group_std", "none"] = "group_std",
) -> Float[np.ndarray, "prompts group"]:
    """Each reward minus its group's mean, divided by the group's standard deviation if `scale` is "group_std".

    A group is its judged samples: the others enter neither its mean nor its deviation, and their advantage is 0.

    Source: Shao et al. 2024 (arXiv:2402.03300), section 4.1.2; the deviation is the population's (divisor: the number
    of judged samples). "none" is Liu et al. 2025 (arXiv:2503.20783).
    """
    # Equal rewards must give exactly 0, and 0.1 summed a few times in float32 and divided again is not 0.1. The sum
    # of equal float32 numbers is exact in float64.
    rewards = np.where(judged, rewards.astype(np.float32), 0).astype(np.float64)
    count = np.maximum(judged.sum(axis=1, keepdims=True), 1)
    centred = np.where(judged, rewards - rewards.sum(axis=1, keepdims=True) / count, 0)
    if scale == "group_std":
        centred /= np.sqrt(np.sum(centred**2, axis=1, keepdims=True) / count) + EPSILON
    return centred.astype(np.float32)


def shuffled(
    rewards: Float[np.ndarray, "prompts group"], judged: Bool[np.ndarray, "prompts group"], seed: int, step: int
) -> Float[np.ndarray, "prompts group"]:
    """The rewards of a step in another order among its judged samples, a function of (seed, step).

    The control of an experiment: rewards of the same distribution that say nothing of the samples. A curve that rises
    under them does not rise because of the reward (Shao et al. 2025, "Spurious Rewards", arXiv:2506.10947).
    """
    places = np.flatnonzero(judged)
    order = sorted(range(len(places)), key=lambda place: draw("shuffled", seed, step, place))
    result = rewards.copy()
    result.flat[places] = rewards.flat[places[order]]
    return result


def zero_signal_groups(rewards: Float[np.ndarray, "prompts group"], judged: Bool[np.ndarray, "prompts group"]) -> float:
    """Share of groups whose judged rewards are all equal: their advantages are zero and they teach nothing."""
    lowest = np.min(rewards, axis=1, where=judged, initial=np.inf)
    highest = np.max(rewards, axis=1, where=judged, initial=-np.inf)
    return float(np.mean(lowest >= highest))  # without a judged sample infinity >= -infinity
