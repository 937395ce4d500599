"""Advantages and returns of single actions, from a reward and a value of each.

Time is counted in actions. Observations between the turns of a sample take none: the value after an action is that
before the sample's next action, wherever that is in the batch. So rows may hold several samples, and a sample may span
several rows. Everything is summed in float64, on the host and over the whole batch.
"""

import numpy as np
from jaxtyping import Float, Int

_VARIANCE = 1e-5  # added to that of the returns, in `explained_variance`

PerAction = Float[np.ndarray, "batch action"]


def gae(
    rewards: PerAction,
    values: PerAction,
    actions: Float[np.ndarray, "batch action"],
    samples: Int[np.ndarray, "batch action"],
    gamma: float = 1.0,
    lam: float | Float[np.ndarray, "sample"] = 1.0,
) -> PerAction:
    """Generalised advantage estimation:

        delta_t = r_t + gamma V_{t+1} - V_t
        A_t = delta_t + gamma lam A_{t+1}

    over the actions t of a sample. After its last action V and A are 0, also if a limit of tokens or turns has cut it
    off: the limit is part of the task, and the reward is that of what was cut off. With values of 0 and `lam` 1 the
    result is the discounted return from each action on. A + V is the target of a critic.

    Source: Schulman et al. 2016 (arXiv:1506.02438), eq. 16.

    Args:
      rewards: of each action.
      values: of the state before each action.
      actions: 1 on actions, 0 elsewhere.
      samples: the index, from 0, of the sample that each action belongs to, undefined elsewhere. Those of a sample are
        in order along the flattened array.
      gamma: discount, per action.
      lam: the weight of longer estimates, per action; one number, or one for each sample.

    Returns:
      The advantages; 0 where there is no action.
    """
    places, sample, step = _steps(actions, samples)
    if not len(places):
        return np.zeros(rewards.shape, np.float32)

    def dense(x: PerAction) -> Float[np.ndarray, "sample step"]:
        result = np.zeros((sample.max() + 1, step.max() + 2))  # one step more, at which everything is 0
        result[sample, step] = x.reshape(-1)[places]
        return result

    value = dense(values)
    advantages = dense(rewards) - value
    advantages[:, :-1] += gamma * value[:, 1:]
    decay = gamma * (np.broadcast_to(lam, sample.max() + 1) if np.ndim(lam) == 0 else lam[: sample.max() + 1])
    for t in reversed(range(advantages.shape[1] - 1)):
        advantages[:, t] += decay * advantages[:, t + 1]
    result = np.zeros(rewards.size, np.float32)
    result[places] = advantages[sample, step]
    return result.reshape(rewards.shape)


def adaptive_lambdas(
    scale: float, actions: Float[np.ndarray, "batch action"], samples: Int[np.ndarray, "batch action"], count: int
) -> Float[np.ndarray, "count"]:
    """The lambda of each sample, 1 - 1 / (scale * its actions), at least 0, so that long samples look further ahead.

    Source: Yue et al. 2025, VAPO (arXiv:2504.05118), "length-adaptive GAE", with scale 0.05 (UNVERIFIED).

    Args:
      scale: above 0.
      actions, samples: see `gae`.
      count: of the samples.
    """
    lengths = np.bincount(samples[actions > 0], minlength=count)
    return np.maximum(1 - 1 / (scale * np.maximum(lengths, 1)), 0)


def last_actions(
    actions: Float[np.ndarray, "batch action"], samples: Int[np.ndarray, "batch action"]
) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """The samples that have actions, and the place of the last one of each in the flattened array; see `gae`."""
    places, sample, _ = _steps(actions, samples)
    is_last = np.append(sample[1:] != sample[:-1], True)[: len(sample)]
    return sample[is_last], places[is_last]


def explained_variance(values: PerAction, returns: PerAction, actions: Float[np.ndarray, "batch action"]) -> float:
    """1 - Var(returns - values) / (Var(returns) + 1e-5) over all actions: 1 for a perfect critic, 0 for a constant.

    Negative if the values are worse than a constant; 0 without actions.
    """
    value, target = (x[actions > 0].astype(np.float64) for x in (values, returns))
    if not value.size:
        return 0.0
    return float(1 - np.var(target - value) / (np.var(target) + _VARIANCE))


def _steps(
    actions: Float[np.ndarray, "batch action"], samples: Int[np.ndarray, "batch action"]
) -> tuple[Int[np.ndarray, "n"], Int[np.ndarray, "n"], Int[np.ndarray, "n"]]:
    """Of each action its place in the flattened array, its sample, and its number within that: sample by sample."""
    places = np.flatnonzero(actions.reshape(-1) > 0)
    sample = samples.reshape(-1)[places]
    order = np.argsort(sample, kind="stable")
    places, sample = places[order], sample[order]
    first = np.searchsorted(sample, sample)
    return places, sample, np.arange(len(sample)) - first
