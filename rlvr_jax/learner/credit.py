"""From rewards of episodes to advantages of actions: KL penalties, baselines of samples, or values of a critic."""

import numpy as np
from jaxtyping import Float, Int

from rlvr_jax.learner.advantages import advantages, describe_advantages
from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.baselines import whitened
from rlvr_jax.learner.batch import Batch
from rlvr_jax.learner.gae import adaptive_lambdas, explained_variance, gae, last_actions
from rlvr_jax.learner.samples import Samples

_LARGEST_ERROR = 0.2  # share of the target by which the divergence counts as too large or too small


def has_critic(config: AlgorithmConfig) -> bool:
    """True if the baseline is learned."""
    return config.advantage == "baseline" and config.baseline == "value"


def has_states(config: AlgorithmConfig) -> bool:
    """True if advantages are those of steps of reasoning, from values of the states between them."""
    return config.advantage == "baseline" and config.baseline == "monte_carlo"


def has_tracker(config: AlgorithmConfig) -> bool:
    """True if the baseline is a running mean of the rewards of each problem."""
    return config.advantage == "baseline" and config.baseline == "tracker"


def penalises_kl(config: AlgorithmConfig) -> bool:
    """True if rewards contain the divergence from the reference policy."""
    return config.kl_reward_coef > 0


def by_action(config: AlgorithmConfig) -> bool:
    """True if the advantage of an action depends on its place in the episode."""
    to_go = config.advantage == "baseline" and config.baseline == "none" and (config.gamma < 1 or penalises_kl(config))
    return has_critic(config) or has_states(config) or to_go


def with_advantages(
    config: AlgorithmConfig,
    batch: Batch,
    episodes: Int[np.ndarray, "batch"],
    samples: Samples,
    kl_coef: float = 0.0,
    seconds: float | None = None,
) -> tuple[Batch, dict[str, float]]:
    """The batch with the column "advantages" and, for a critic, "returns"; and metrics.

    An action's reward is -kl_coef (log policy - log reference) of its token (k1, the policy being the one that sampled
    it), and for the last action of an episode the episode's reward besides. With a critic the advantages are those of
    `gae.gae`. Without one all actions of an episode have the same, that of the sum of its rewards; but with the
    baseline "none" each has the discounted sum of the rewards from it on, as in REINFORCE++ (Hu 2025,
    arXiv:2501.03262), and with the baseline "monte_carlo" that of its step, see `vine.step_advantages`.

    In the reward only k1 has the gradient of KL(policy || reference): Liu et al. 2025 (arXiv:2510.01555).

    Args:
      config: the choices.
      batch: with the columns "behaviour", "reference" for KL penalties, "values" for a critic, and "steps" for
        "monte_carlo".
      episodes: the index of each row's episode among the samples, undefined for rows without actions.
      samples: of the step; those without actions have no penalty.
      kl_coef: weight of the KL penalty, at this step.
      seconds: see `advantages`.
    """
    mask, metrics = batch.action_mask, {}
    owners, trained = np.broadcast_to(episodes[:, None], mask.shape), np.unique(episodes[(mask > 0).any(axis=1)])
    rewards = np.zeros(mask.shape, np.float64)
    if penalises_kl(config):
        k1 = np.where(mask > 0, batch.columns["behaviour"] - batch.columns["reference"], 0).astype(np.float64)
        rewards -= kl_coef * k1
        kl = np.bincount(owners[mask > 0], k1[mask > 0], minlength=len(samples.rewards))
        metrics = {"train/kl_episode": _mean(kl[trained]), "train/kl_reward_coef": float(kl_coef)}
        if not by_action(config):
            samples = samples.with_rewards(samples.rewards - kl_coef * kl)
    if not by_action(config):
        of_samples = advantages(config, samples, seconds)
        metrics |= describe_advantages(of_samples[trained])
        batch, of_rows = _own_rewards(config, batch, samples.groups[episodes], of_samples[episodes])
        return batch.with_columns(advantages=of_rows[:, None] * mask), metrics

    sample, place = last_actions(mask, owners)
    rewards.reshape(-1)[place] += samples.rewards[sample]
    before, lam, columns = np.zeros(mask.shape, np.float32), 1.0, {}
    if has_critic(config):
        before, lam = batch.columns["values"], config.gae_lambda
        if config.gae_length:
            lam = adaptive_lambdas(config.gae_length, mask, owners, len(samples.rewards))
        returns = gae(rewards, before, mask, owners, config.gamma, config.return_lambda) + before
        columns = {"returns": np.where(mask > 0, returns, 0)}
        metrics |= {
            "critic/value": _mean(before[mask > 0]),
            "critic/return": _mean(returns[mask > 0]),
            "critic/explained_variance": explained_variance(before, returns, mask),
        }
    if has_states(config):
        others = dict(batch.columns)
        of_actions, batch = others.pop("steps") * mask, batch.replace(columns=others)
    else:
        of_actions = gae(rewards, before, mask, owners, config.gamma, lam)
    if config.scale == "token_whitening":
        of_actions = whitened(of_actions, mask, config.ddof).astype(np.float32)
    metrics |= describe_advantages(of_actions[mask > 0])
    return batch.with_columns(advantages=of_actions, **columns), metrics


def _own_rewards(
    config: AlgorithmConfig,
    batch: Batch,
    groups: Int[np.ndarray, "batch"],
    advantages: Float[np.ndarray, "batch"],
) -> tuple[Batch, Float[np.ndarray, "batch"]]:
    """The batch without the column "own_reward", and the advantage of each row.

    That of a sequence with a reward of its own is the difference to the mean of all such sequences of its group, which
    answered other questions of the same problem; a pair is of whole samples.
    """
    columns = dict(batch.columns)
    if "own_reward" not in columns:
        return batch, advantages
    own = columns.pop("own_reward")[:, 0].astype(np.float64)
    if config.baseline == "best_worst":
        return batch.replace(columns=columns), advantages
    has = (batch.samples > 0) & np.isfinite(own)
    sums, counts = (np.bincount(groups[has], x, groups.max() + 1) for x in (own[has], None))
    means = sums / np.maximum(counts, 1)
    return batch.replace(columns=columns), np.where(has, own - means[groups], advantages).astype(np.float32)


def next_kl_coef(config: AlgorithmConfig, coef: float, kl: float, episodes: int) -> float:
    """The coefficient after a step: larger if the divergence of its episodes was above the target.

    Source: Ziegler et al. 2019 (arXiv:1909.08593), section 2.2: a proportional controller of log(coef), with the rate
    of their code, `episodes` / horizon.

    Args:
      config: target and horizon.
      coef: of the step.
      kl: mean over its episodes of the sum of k1 over their actions (nats).
      episodes: their number.
    """
    error = np.clip(kl / config.kl_reward_target - 1, -_LARGEST_ERROR, _LARGEST_ERROR)
    return float(coef * (1 + error * episodes / config.kl_reward_horizon))


def _mean(x: Float[np.ndarray, "n"]) -> float:
    return float(np.mean(x, dtype=np.float64)) if x.size else 0.0
