"""The choices that make up a policy-gradient method."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class AlgorithmConfig:
    """GRPO and its relatives, as independent choices.

    Attributes:
      advantage: "group_relative" is a reward minus its group's mean, see `scale`; or the `module:function` or
        `file.py:function` (rewards, groups, judged) -> advantages, see `rlvr_jax.learner.advantages`.
      loss: "policy_gradient", or the name of a function with the arguments of
        `rlvr_jax.learner.losses.policy_gradient` that returns a `Loss`.
      scale: what a group's centred rewards are divided by: "group_std" (GRPO; Shao et al. 2024, arXiv:2402.03300) or
        "none".
      aggregation: what the sum over tokens is divided by. "token_mean": the actions of the update, so that every token
        weighs the same (as in the code of Yu et al. 2025, DAPO, arXiv:2503.14476; their eq. 12 divides by the actions
        of each group instead). "constant": samples * response budget, whatever the lengths are, so that no sample
        changes the weight of another; samples that are left out of the loss count, too. With `scale` "none" and no KL
        that is Dr. GRPO (Liu et al. 2025, arXiv:2503.20783).
      clip_low, clip_high: the probability ratio is clipped to [1 - clip_low, 1 + clip_high].
      proximal: the policy that the ratio is relative to. "behaviour": the one that sampled, by the log-probs that the
        sampler reported. "recompute": the one before the first update of the step, whose log-probs take a forward pass
        more; each token is then weighted by the truncated importance weight min(proximal / behaviour, importance_cap)
        (decoupled PPO: Hilton et al. 2021, arXiv:2110.00641; Fu et al. 2025, AReaL, arXiv:2505.24298).
      importance_cap: the largest importance weight.
      kl_coef: weight of the KL divergence to the reference policy in the loss.
      reference: "initial" keeps a frozen copy of the policy that the run started from, and computes its log-probs in
        every step, for the KL divergence; with `kl_coef` 0 that serves the metric `train/kl` alone. "none" needs
        neither (and `kl_coef` 0).
      shuffle_rewards: train on each step's rewards in a random order among its samples: the control of an experiment,
        under which nothing should be learned. The metrics show the true ones.
      minibatches: optimizer updates for each batch of samples.
    """

    advantage: str = "group_relative"
    loss: str = "policy_gradient"
    scale: Literal["group_std", "none"] = "group_std"
    aggregation: Literal["token_mean", "constant"] = "token_mean"
    clip_low: float = 0.2
    clip_high: float = 0.2
    proximal: Literal["behaviour", "recompute"] = "behaviour"
    importance_cap: float = 2.0
    kl_coef: float = 0.0
    reference: Literal["none", "initial"] = "none"
    shuffle_rewards: bool = False
    minibatches: int = 1
