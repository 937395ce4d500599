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
      tracker_prior: samples, half of them right, that a problem starts with, with the baseline "tracker".
      tracker_drift: mean change of a problem's log-probs (nats) at which what is known of it counts half.
      tracker_low, tracker_high: bounds of the weight of what is known of it, see
        `rlvr_jax.learner.baselines.tracker_decay`.
      length_reward: change of the reward by the length of a response, a key of `rlvr_jax.learner.lengths.LENGTHS`.
      length_coef: weight of the change by `length_reward`; of each token with "exact" and "maximum".
      length_target: tokens that "exact" and "maximum" compare a response with.
      length_buffer: tokens before the response budget at which "soft_overlong" begins; 0 for a fifth of the budget.
      overlong: "train" on samples that a limit of tokens or turns cut off, or "mask" them: they have no actions, but
        their rewards count in their group (overlong filtering; Yu et al. 2025, DAPO, arXiv:2503.14476).
      keep: which samples of a step are trained on: a key of `rlvr_jax.learner.advantages.KEEPS`.
      max_draws: batches of prompts that are sampled for a step at most, to replace groups of which `keep` leaves
        nothing (dynamic sampling; DAPO); 1 replaces none.
      demonstrations: samples of each group that are demonstrations of the task, instead of the policy's own; their
        rewards count in the group, and their loss is `losses.shaped` (LUFFY).
      replay: groups of a step that are earlier groups, trained on again, instead of new problems.
      replay_size: earlier groups that are kept to choose from.
      replay_order: which earlier groups are trained on, "newest" or "deviation", see `rlvr_jax.rollout.replay.stored`.
      demonstration_shaping: the probability at which a token of a demonstration has half of the largest weight.
      state_samples: with `baseline` "monte_carlo", episodes that are sampled from each state between two steps.
      max_states: of an episode, from its prompt on, that are sampled from.
      step_delimiter: text after which a step of reasoning ends.
      step_length: tokens of a step, instead; 0 for the delimiter.
      loss: a key of `rlvr_jax.learner.objectives.LOSSES`, or the name of a function with the arguments of
        `rlvr_jax.learner.losses.policy_gradient` that returns a `Loss`.
      preference: loss of each pair, with the loss "preferences", see `rlvr_jax.learner.preferences.LOSSES`.
      preference_beta: beta of the loss `preference`.
      distillation_beta: weight of the teacher in the mixture of the loss "distillation": 1 is KL(policy || teacher), 0
        is KL(teacher || policy), see `rlvr_jax.policy.divergence`.
      ratio: level of the probability ratio policy / proximal, a key of `rlvr_jax.learner.ratios.RATIOS`.
      clip: treatment of the ratio, a key of `rlvr_jax.learner.clips.CLIPS`.
      clip_low, clip_high: the clip range, by default of the ratio: [1 - clip_low, 1 + clip_high].
      clip_dual: upper bound of the ratio for negative advantages, with `clip` "dual".
      tau_positive, tau_negative: temperatures of `clip` "sapo" for positive and other advantages.
      mirror_tau: weight of the penalty of `clip` "mirror".
      aggregation: weights of tokens, a key of `rlvr_jax.learner.aggregation.AGGREGATIONS`.
      aggregation_tokens: the constant of `aggregation` "constant", in tokens; 0 for the response budget.
      proximal: the denominator of the ratio. "behaviour": the policy that sampled, by the sampler's log-probs.
        "recompute": the policy before the first update of the step, at the cost of a forward pass. "current": the same
        without that cost, where a step has a single update: the ratio is 1.
      correction: importance weight of the proximal policy relative to the behaviour policy, a key of
        `rlvr_jax.learner.correction.CORRECTIONS`.
      importance_floor, importance_cap: bounds of the weight of `correction`.
      kl: estimator of the KL divergence to the reference policy in the loss, a key of `rlvr_jax.learner.kl.KLS`.
      kl_coef: weight of the term `kl`.
      kl_reward_coef: weight of the divergence (k1) in the reward of each token, see `rlvr_jax.learner.credit`; with a
        target its first value.
      kl_reward_target: sum of k1 over an episode (nats) that an adaptive `kl_reward_coef` aims at; 0 for a fixed one.
      kl_reward_horizon: episodes in which an adaptive coefficient changes by at most a fifth.
      reference: the reference policy: "initial" is a copy of the initial policy, whose log-probs are computed in every
        step; without a coefficient only for the metric `train/kl`. "teacher" is the policy of `config.teacher`, of any
        size: on-policy distillation. "none" needs coefficients of 0.
      reference_every: steps between moves of the reference policy towards the policy; 0 for never.
      reference_share: share of the policy in the moved reference policy, parameter by parameter: 1 replaces it; a small
        share at every step is an exponential average (TR-DPO, Gorbatovski et al. 2024, arXiv:2404.09656: 0.6 every 512
        updates).
      gamma: discount per token, with the baselines "value" and "none".
      gae_lambda: weight of longer estimates in the advantages, per token, with the baseline "value": 1 is the return
        less the value.
      gae_length: makes that weight 1 - 1 / (gae_length * tokens of the sample); 0 for `gae_lambda`.
      return_lambda: as `gae_lambda`, in the returns that the critic learns: 1 is the sum of all later rewards.
      entropy: use of the policy's entropy in the loss, a key of `rlvr_jax.learner.entropy.ENTROPIES`.
      entropy_coef: weight of the term `entropy`; with "adaptive" its first value.
      entropy_target, entropy_delta: entropy (nats) below which "adaptive" applies and grows its weight, and the change
        of the weight in a step.
      entropy_share: share of the tokens of an update that it selects.
      cov_low, cov_high: bounds of the covariance of tokens that "clip_cov" selects.
      shuffle_rewards: train on rewards permuted among the samples of a step: a control, with which nothing should be
        learned. Metrics show the true rewards.
      minibatches: parts of a rollout batch, each of which is an optimizer update.
      epochs: passes over these parts, in the same order.
    """

    preset: str = ""
    advantage: str = "baseline"
    baseline: str = "group_mean"
    scale: str = "group_std"
    ddof: int = 0
    scale_epsilon: float = 1e-6
    pass_k: int = 4
    tracker_prior: float = 8.0
    tracker_drift: float = 0.06
    tracker_low: float = 0.875
    tracker_high: float = 0.96
    length_reward: str = "none"
    length_coef: float = 1.0
    length_target: int = 0
    length_buffer: int = 0
    overlong: Literal["train", "mask"] = "train"
    keep: str = "all"
    max_draws: int = 1
    demonstrations: int = 0
    replay: int = 0
    replay_size: int = 256
    replay_order: Literal["newest", "deviation"] = "newest"
    demonstration_shaping: float = 0.1
    state_samples: int = 9
    max_states: int = 25
    step_delimiter: str = "\n"
    step_length: int = 0
    loss: str = "policy_gradient"
    preference: Literal["dpo", "dpo_norm", "ipo", "simpo"] = "dpo"
    preference_beta: float = 0.1
    distillation_beta: float = 1.0
    ratio: str = "token"
    clip: str = "ppo"
    clip_low: float = 0.2
    clip_high: float = 0.2
    clip_dual: float = 3.0
    tau_positive: float = 1.0
    tau_negative: float = 1.05
    mirror_tau: float = 0.1
    aggregation: str = "token_mean"
    aggregation_tokens: int = 0
    proximal: Literal["behaviour", "recompute", "current"] = "behaviour"
    correction: str = "none"
    importance_floor: float = 0.0
    importance_cap: float = 2.0
    kl: str = "k3"
    kl_coef: float = 0.0
    kl_reward_coef: float = 0.0
    kl_reward_target: float = 0.0
    kl_reward_horizon: int = 10_000
    reference: Literal["none", "initial", "teacher"] = "none"
    reference_every: int = 0
    reference_share: float = 1.0
    gamma: float = 1.0
    gae_lambda: float = 1.0
    gae_length: float = 0.0
    return_lambda: float = 1.0
    entropy: str = "none"
    entropy_coef: float = 0.0
    entropy_target: float = 0.2
    entropy_delta: float = 0.005
    entropy_share: float = 0.2
    cov_low: float = 1.0
    cov_high: float = 5.0
    shuffle_rewards: bool = False
    minibatches: int = 1
    epochs: int = 1
