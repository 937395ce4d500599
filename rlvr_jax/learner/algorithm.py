"""The configuration of a policy-gradient method."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class AlgorithmConfig:
    """GRPO and its relatives, as independent choices; docs/algorithms.md lists them with formulas and sources.

    Each choice names an entry of a table of functions. A published method is a preset, a set of choices
    (`rlvr_jax.learner.presets`); keys that are given besides take precedence. Constructed directly this class holds the
    defaults; `rlvr_jax.config.from_dict` and `presets.preset` apply a preset.

    Attributes:
      preset: name of a published method whose choices are the defaults of the other keys; empty for those below.
      advantage: "baseline" is the reward minus `baseline`, normalised by `scale`; or the `module:function` or
        `file.py:function` (rewards, groups, judged) -> advantages, see `rlvr_jax.learner.advantages`.
      baseline: what is subtracted from a reward, a key of `rlvr_jax.learner.baselines.BASELINES`.
      scale: normalisation of the difference, a key of `rlvr_jax.learner.baselines.SCALES`.
      ddof: delta degrees of freedom of standard deviations of rewards: 0 divides by n, 1 by n - 1.
      scale_epsilon: added to a standard deviation of rewards.
      pass_k: k of the baseline "pass_at_k".
      length_reward: change of the reward by the length of a response, a key of `rlvr_jax.learner.lengths.LENGTHS`.
      length_coef, length_target, length_buffer: its constants; the last two in tokens (a buffer of 0 is a fifth of the
        response budget).
      overlong: "train" on samples that a limit of tokens or turns cut off, or "mask" them: they have no actions, but
        their rewards count in their group (overlong filtering; Yu et al. 2025, DAPO, arXiv:2503.14476).
      keep: which samples of a step are trained on, the others being dropped without replacement: a key of
        `rlvr_jax.learner.advantages.KEEPS`.
      loss: "policy_gradient", or the name of a function with the arguments of
        `rlvr_jax.learner.losses.policy_gradient` that returns a `Loss`.
      ratio: level of the probability ratio policy / proximal, a key of `rlvr_jax.learner.ratios.RATIOS`.
      clip: treatment of the ratio, a key of `rlvr_jax.learner.clips.CLIPS`.
      clip_low, clip_high: the clip range, by default of the ratio: [1 - clip_low, 1 + clip_high].
      clip_dual: upper bound of the ratio for negative advantages, with `clip` "dual".
      tau_positive, tau_negative: temperatures of `clip` "sapo" for positive and other advantages.
      aggregation: weights of tokens, a key of `rlvr_jax.learner.aggregation.AGGREGATIONS`.
      aggregation_tokens: the constant of `aggregation` "constant", in tokens; 0 for the response budget.
      proximal: the denominator of the ratio. "behaviour": the policy that sampled, by the sampler's log-probs.
        "recompute": the policy before the first update of the step, at the cost of a forward pass. "current": the same
        without that cost, where a step has a single update: the ratio is 1.
      correction: importance weight of the proximal policy relative to the behaviour policy, a key of
        `rlvr_jax.learner.correction.CORRECTIONS`.
      importance_floor, importance_cap: bounds of that weight.
      kl: estimator of the KL divergence to the reference policy in the loss, a key of `rlvr_jax.learner.kl.KLS`.
      kl_coef: its weight.
      reference: the reference policy: "initial" is a frozen copy of the initial policy, whose log-probs are computed in
        every step; with `kl_coef` 0 only for the metric `train/kl`. "none" needs `kl_coef` 0.
      entropy: use of the policy's entropy in the loss, a key of `rlvr_jax.learner.entropy.ENTROPIES`.
      entropy_coef: weight of its term.
      entropy_share: share of the tokens of an update that it selects.
      cov_low, cov_high: bounds of the covariance of tokens that "clip_cov" selects.
      shuffle_rewards: train on rewards permuted among the samples of a step: a control, with which nothing should be
        learned. Metrics show the true rewards.
      minibatches: optimizer updates per rollout batch.
    """

    preset: str = ""
    advantage: str = "baseline"
    baseline: str = "group_mean"
    scale: str = "group_std"
    ddof: int = 0
    scale_epsilon: float = 1e-6
    pass_k: int = 4
    length_reward: str = "none"
    length_coef: float = 1.0
    length_target: int = 0
    length_buffer: int = 0
    overlong: Literal["train", "mask"] = "train"
    keep: str = "all"
    loss: str = "policy_gradient"
    ratio: str = "token"
    clip: str = "ppo"
    clip_low: float = 0.2
    clip_high: float = 0.2
    clip_dual: float = 3.0
    tau_positive: float = 1.0
    tau_negative: float = 1.05
    aggregation: str = "token_mean"
    aggregation_tokens: int = 0
    proximal: Literal["behaviour", "recompute", "current"] = "behaviour"
    correction: str = "none"
    importance_floor: float = 0.0
    importance_cap: float = 2.0
    kl: str = "k3"
    kl_coef: float = 0.0
    reference: Literal["none", "initial"] = "none"
    entropy: str = "none"
    entropy_coef: float = 0.0
    entropy_share: float = 0.2
    cov_low: float = 1.0
    cov_high: float = 5.0
    shuffle_rewards: bool = False
    minibatches: int = 1
