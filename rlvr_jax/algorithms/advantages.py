"""From the rewards of a group to the advantages of its samples."""

from typing import Literal

import numpy as np
from jaxtyping import Float

EPSILON = 1e-6


def group_advantages(
    rewards: Float[np.ndarray, "prompts group"], scale: Literal["group_std", "none"] = "group_std"
) -> Float[np.ndarray, "prompts group"]:
    """Each reward minus its group's mean, divided by the group's standard deviation if `scale` is "group_std".

    Source: Shao et al. 2024 (arXiv:2402.03300), section 4.1.2; the deviation is the population's (divisor: group).
    """
    # Equal rewards must give exactly 0, and 0.1 summed a few times in float32 and divided again is not 0.1. The sum
    # of equal float32 numbers is exact in float64.
    rewards = rewards.astype(np.float32).astype(np.float64)
    centred = rewards - rewards.mean(axis=1, keepdims=True)
    if scale == "group_std":
        centred /= rewards.std(axis=1, keepdims=True) + EPSILON
    return centred.astype(np.float32)


def zero_signal_groups(rewards: Float[np.ndarray, "prompts group"]) -> float:
    """Share of groups whose rewards are all equal: their advantages are zero and they teach nothing."""
    return float(np.mean(np.ptp(rewards, axis=1) == 0))
