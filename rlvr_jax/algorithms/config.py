"""The choices that make up a policy-gradient method."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class AlgorithmConfig:
    """GRPO and its relatives, as independent choices.

    Attributes:
      scale: what a group's centred rewards are divided by: "group_std" (GRPO; Shao et al. 2024, arXiv:2402.03300) or
        "none" (Liu et al. 2025, arXiv:2503.20783).
      clip_low, clip_high: the probability ratio is clipped to [1 - clip_low, 1 + clip_high].
      kl_coef: weight of the KL divergence to the reference policy in the loss.
      reference: "initial" keeps a frozen copy of the policy that the run started from, for the KL divergence;
        "none" saves its memory and its forward pass (then `kl_coef` must be 0).
      minibatches: optimizer updates for each batch of samples.
    """

    scale: Literal["group_std", "none"] = "group_std"
    clip_low: float = 0.2
    clip_high: float = 0.2
    kl_coef: float = 0.0
    reference: Literal["initial", "none"] = "initial"
    minibatches: int = 1
