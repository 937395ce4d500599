"""Aggregation: the loss of an update as a weighted sum over tokens, with a weight for each action."""

from typing import Literal

import numpy as np
from jaxtyping import Float

Aggregation = Literal["token_mean", "constant"]


def token_weights(
    aggregation: Aggregation, action_mask: Float[np.ndarray, "samples response"], max_length: int
) -> Float[np.ndarray, "samples response"]:
    """The weight of each action in the loss of one update; 0 where there is none.

    "token_mean": 1 / number of actions, so that every token of the update weighs the same (as in the code of Yu et al.
    2025, DAPO, arXiv:2503.14476; their eq. 12 divides by the actions of each group instead).
    "constant": 1 / (samples * max_length), whatever the lengths are, so that no sample changes the weight of another
    (Liu et al. 2025, Dr. GRPO, arXiv:2503.20783). Samples that are left out of the loss count, too.

    Args:
      aggregation: which.
      action_mask: 1 on the actions of all samples of the update, 0 elsewhere.
      max_length: the response budget, in tokens.
    """
    total = np.sum(action_mask) if aggregation == "token_mean" else len(action_mask) * max_length
    return action_mask / np.float32(max(total, 1))
