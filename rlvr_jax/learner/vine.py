"""Advantages of steps of reasoning from Monte-Carlo values of the states between them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float


def step_advantages(reward: float, values: Sequence[float], count: int) -> Float[np.ndarray, "count"]:
    """The advantage of each step of an episode,

        A_k = r_k + V(s_{k+1}) - V(s_k),    V(s_count) = 0,

    where r_k is 0 but for the last step, which gets the episode's reward, and V(s_k) is the mean reward of episodes
    that were sampled from s_k on. States without a value have that of the reward, so the steps between two of them have
    the advantage 0.

    Source: Kazemnejad et al. 2024 (VinePPO, arXiv:2410.01679), as in their published code.

    Args:
      reward: of the episode.
      values: of the first states, at most `count`.
      count: of the steps.
    """
    known = np.full(count + 1, reward, np.float64)
    known[: len(values)] = values
    known[count] = 0.0
    advantages = known[1:] - known[:-1]
    if count:
        advantages[-1] += reward
    return advantages
