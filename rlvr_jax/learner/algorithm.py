"""The configuration of a policy-gradient method."""

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
      scale: the divisor of a group's centred rewards: "group_std" (GRPO; Shao et al. 2024, arXiv:2402.03300) or "none".
      aggregation: the divisor of the sum over tokens. "token_mean": the actions of the update, so that all tokens have
        equal weight (as in the code of Yu et al. 2025, DAPO, arXiv:2503.14476; their eq. 12 divides by the actions of
        each group). "constant": samples * response budget, independent of lengths, so that no sample changes the weight
        of another; unjudged samples count, too. With `scale` "none" and no KL term this is Dr. GRPO (Liu et al. 2025,
        arXiv:2503.20783).
      clip_low, clip_high: the probability ratio is clipped to [1 - clip_low, 1 + clip_high].
      proximal: the denominator of the ratio. "behaviour": the policy that sampled, by the sampler's log-probs.
        "recompute": the policy before the first update of the step, at the cost of a forward pass; each token is then
        weighted by the truncated importance weight min(proximal / behaviour, importance_cap)
        (decoupled PPO: Hilton et al. 2021, arXiv:2110.00641; Fu et al. 2025, AReaL, arXiv:2505.24298).
      importance_cap: maximum importance weight.
      kl_coef: weight of the KL divergence to the reference policy in the loss.
      reference: the reference policy: "initial" is a frozen copy of the initial policy, whose log-probs are computed in
        every step; with `kl_coef` 0 only for the metric `train/kl`. "none" needs `kl_coef` 0.
      shuffle_rewards: train on rewards permuted among the samples of a step: a control, with which nothing should be
        learned. Metrics show the true rewards.
      minibatches: optimizer updates per rollout batch.
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
