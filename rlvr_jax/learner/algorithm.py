"""The choices that make up a policy-gradient method."""

from dataclasses import dataclass
from typing import Literal

from rlvr_jax.learner.aggregation import Aggregation


@dataclass(frozen=True)
class AlgorithmConfig:
    """GRPO and its relatives, as independent choices.

    Attributes:
      scale: what a group's centred rewards are divided by: "group_std" (GRPO; Shao et al. 2024, arXiv:2402.03300) or
        "none".
      aggregation: what the loss is of its tokens, see `aggregation.py`: their mean over the update ("token_mean"), or
        their sum divided by the response budget of all samples ("constant"). With `scale` "none" and no KL the latter
        is Dr. GRPO (Liu et al. 2025, arXiv:2503.20783).
      clip_low, clip_high: the probability ratio is clipped to [1 - clip_low, 1 + clip_high].
      kl_coef: weight of the KL divergence to the reference policy in the loss.
      reference: "initial" keeps a frozen copy of the policy that the run started from, and computes its log-probs in
        every step, for the KL divergence; with `kl_coef` 0 that serves the metric `train/kl` alone. "none" needs
        neither (and `kl_coef` 0).
      shuffle_rewards: train on each step's rewards in a random order among its samples: the control of an experiment,
        under which nothing should be learned. The metrics show the true ones.
      minibatches: optimizer updates for each batch of samples.
    """

    scale: Literal["group_std", "none"] = "group_std"
    aggregation: Aggregation = "token_mean"
    clip_low: float = 0.2
    clip_high: float = 0.2
    kl_coef: float = 0.0
    reference: Literal["none", "initial"] = "none"
    shuffle_rewards: bool = False
    minibatches: int = 1
