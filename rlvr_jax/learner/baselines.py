"""Baselines and scales: from the rewards of a step's samples to one advantage for each, in float64 on the host.

A baseline is a function (config, samples) -> the reward of each sample minus what it is compared with; a scale is a
function (config, samples, differences) -> advantages. They read judged samples only; values at the others are ignored.
Equal rewards in a group give differences of exactly 0. r_i is the reward of sample i, d_i its difference, G the size of
its group, of whose n judged samples c are right.
"""

from collections.abc import Callable, Mapping
from math import comb

import numpy as np
from jaxtyping import Float, Int, Shaped

from rlvr_jax.errors import FunctionError
from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.samples import Samples

Values = Float[np.ndarray, "samples"]
Baseline = Callable[[AlgorithmConfig, Samples], Values]
Scale = Callable[[AlgorithmConfig, Samples, Values], Values]


def group_mean(_: AlgorithmConfig, samples: Samples) -> Values:
    """r_i - mean of the group, that of the sample itself included.

    Source: Shao et al. 2024 (GRPO, arXiv:2402.03300), section 4.1.2.
    """
    return samples.rewards - samples.means(samples.rewards)


def leave_one_out(config: AlgorithmConfig, samples: Samples) -> Values:
    """r_i - mean of the other samples of the group = G / (G - 1) (r_i - mean of the group); 0 in a group of one.

    Source: Ahmadian et al. 2024 (RLOO, arXiv:2402.14740).
    """
    count = samples.sums(np.ones(len(samples.rewards)))
    return group_mean(config, samples) * count / np.maximum(count - 1, 1)


def batch_mean(_: AlgorithmConfig, samples: Samples) -> Values:
    """r_i - mean of all judged samples of the step."""
    return samples.rewards - samples.means(samples.rewards, np.zeros_like(samples.groups))


def no_baseline(_: AlgorithmConfig, samples: Samples) -> Values:
    """The reward itself (REINFORCE; Williams 1992)."""
    return samples.rewards


def of_actions(config: AlgorithmConfig, samples: Samples) -> Values:
    """The reward itself: what it is compared with differs between the actions, see `rlvr_jax.learner.credit`."""
    return no_baseline(config, samples)


def length_weighted(_: AlgorithmConfig, samples: Samples) -> Values:
    """r_i - sum_j n_j r_j / sum_j n_j over the group, n_j being the tokens of sample j; 0 in a group without tokens.

    Source: Hao et al. 2025 (OPO, arXiv:2505.23585), for exactly on-policy updates.
    """
    lowest = np.full(samples.groups.max(initial=0) + 1, np.inf)
    np.minimum.at(lowest, samples.groups[samples.judged], samples.rewards[samples.judged])
    # Relative to the lowest reward, so that equal rewards give exactly 0.
    above = np.where(samples.judged, samples.rewards - lowest[samples.groups], 0.0)
    tokens = samples.sums(samples.lengths)
    return np.where(tokens > 0, above - samples.sums(above * samples.lengths) / np.maximum(tokens, 1), 0.0)


def greedy(_: AlgorithmConfig, samples: Samples) -> Values:
    """r_i - the reward of the greedy response to the same prompt, which is not trained on.

    Source: Li et al. 2023 (ReMax, arXiv:2310.10505).
    """
    return samples.rewards - samples.expected


def tracker(_: AlgorithmConfig, samples: Samples) -> Values:
    """r_i - alpha / (alpha + beta), the tracked mean reward of the problem before this step, for rewards in [0, 1].

    Afterwards alpha becomes rho alpha + sum r and beta rho beta + sum (1 - r), the sums over the samples of the problem
    (SPO has one); rho is `tracker_decay`. Both start at half of `tracker_prior`.

    Source: Xu & Ding 2025 (SPO, arXiv:2509.13232), as in verl's recipe. They start from 8 samples of each problem that
    are drawn before the run, N0 (s + 0.5) / (n + 1) with N0 = 8; here n = 0.
    """
    odd = samples.rewards[samples.judged & ((samples.rewards < 0) | (samples.rewards > 1))]
    if odd.size:
        raise FunctionError(
            f"config.algorithm.baseline = 'tracker' needs rewards in [0, 1], and {odd.size} of {samples.rewards.size} "
            f"are others, such as {odd[0]:g}: change config.reward, or use baseline = 'group_mean'"
        )
    return samples.rewards - samples.expected


def tracker_decay(config: AlgorithmConfig, drift: float) -> float:
    """rho = 2^(-D / `tracker_drift`) within [`tracker_low`, `tracker_high`]: the further the policy has moved, the less
    counts what is known of a problem.

    Source: Xu & Ding 2025 (SPO, arXiv:2509.13232), with 0.06, 0.875 and 0.96 as in verl's recipe.

    Args:
      config: the constants.
      drift: D, the mean absolute difference between the log-probs (nats) of the tokens of the problem's last sample,
        under the policy now and under the one that sampled it.
    """
    return min(max(2.0 ** (-drift / config.tracker_drift), config.tracker_low), config.tracker_high)


def pass_at_k(config: AlgorithmConfig, samples: Samples) -> Values:
    """The change of the group's pass@k by a sample, for binary rewards: 1 - rho if it is right, and
    1 - rho - C(n - c - 1, k - 1) / C(n - 1, k - 1) if it is wrong, where rho = 1 - C(n - c, k) / C(n, k).

    n are the judged samples of the group, c the right ones. All are 0 where rho = 1: fewer than k are wrong; or n < k.
    With k = 1 the differences are those of `group_mean`.

    Source: Chen et al. 2025 (arXiv:2508.10751), analytical derivation, as in their published code.
    """
    _binary("baseline = 'pass_at_k'", samples)
    n, failure, others = _failures(config.pass_k, samples)
    differences = np.where(samples.rewards == 1, failure, failure - others)
    return np.where((failure > 0) & (n >= config.pass_k), differences, 0.0)


def best_worst(_: AlgorithmConfig, samples: Samples) -> Values:
    """1 for the first sample of the highest reward in its group, -1 for the first of the lowest, 0 for all others and
    in groups of equal rewards. See `rlvr_jax.learner.own_pairs`."""
    found = np.zeros(len(samples.rewards))
    judged = np.flatnonzero(samples.judged)
    for group in np.unique(samples.groups[judged]):
        own = judged[samples.groups[judged] == group]
        rewards = samples.rewards[own]
        if rewards.max() > rewards.min():
            found[own[rewards.argmax()]], found[own[rewards.argmin()]] = 1.0, -1.0
    return found


def _failures(k: int, samples: Samples) -> tuple[Int[np.ndarray, "samples"], Values, Values]:
    """For each sample the size n of its group, the chance C(n - c, k) / C(n, k) that k of its samples are all wrong,
    and C(n - c - 1, k - 1) / C(n - 1, k - 1)."""
    n, c = (samples.sums(x).astype(int) for x in (np.ones(len(samples.rewards)), samples.rewards))
    pairs = list(zip(n.tolist(), c.tolist(), strict=True))
    share = lambda wrong, total, k: comb(wrong, k) / comb(total, k) if wrong >= 0 and total >= k else 0.0  # noqa: E731
    failure = [share(a - b, a, k) for a, b in pairs]
    return n, np.array(failure), np.array([share(a - b - 1, a - 1, k - 1) for a, b in pairs])


def _binary(key: str, samples: Samples) -> None:
    odd = samples.rewards[~np.isin(samples.rewards, (0, 1))]
    if odd.size:
        raise FunctionError(
            f"config.algorithm.{key} needs rewards of 0 and 1, and {odd.size} of {samples.rewards.size} are others, "
            f"such as {odd[0]:g}: use a verifier without partial scores, or baseline = 'group_mean'"
        )


def no_scale(_: AlgorithmConfig, __: Samples, differences: Values) -> Values:
    """The differences (Liu et al. 2025, Dr. GRPO, arXiv:2503.20783)."""
    return differences


def group_std(config: AlgorithmConfig, samples: Samples, differences: Values) -> Values:
    """d_i / (std of the group's rewards + epsilon).

    Source: Shao et al. 2024 (GRPO, arXiv:2402.03300), section 4.1.2, which does not say whether the divisor of the
    variance is G (`ddof` 0) or G - 1 (`ddof` 1, as TRL and verl have it).
    """
    return differences / (_std(config, samples, samples.groups) + config.scale_epsilon)


def batch_std(config: AlgorithmConfig, samples: Samples, differences: Values) -> Values:
    """d_i / (std of the rewards of all judged samples of the step + epsilon).

    Source: Liu et al. 2025 (Lite PPO, arXiv:2508.08221).
    """
    return differences / (_std(config, samples, np.zeros_like(samples.groups)) + config.scale_epsilon)


def domain_std(config: AlgorithmConfig, samples: Samples, differences: Values) -> Values:
    """d_i / (std of the rewards of the step's judged samples of the same task + epsilon): `batch_std` for each task of
    a mixture."""
    return differences / (_std(config, samples, samples.domains) + config.scale_epsilon)


def _std(config: AlgorithmConfig, samples: Samples, of: np.ndarray) -> Values:
    """Standard deviation of the rewards of the samples with the same index; 0 for too few of them."""
    centred = samples.rewards - samples.means(samples.rewards, of)
    count = samples.sums(np.ones(len(centred)), of) - config.ddof
    return np.where(count > 0, np.sqrt(samples.sums(centred**2, of) / np.maximum(count, 1)), 0.0)


def group_mean_scale(_: AlgorithmConfig, samples: Samples, differences: Values) -> Values:
    """d_i / mean reward of the group; 0 in a group whose mean is not positive.

    Source: MaxRL (arXiv:2602.02710), for rewards of 0 and 1.
    """
    _binary("scale = 'group_mean'", samples)
    means = samples.means(samples.rewards)
    return np.where(means > 0, differences / np.where(means > 0, means, 1.0), 0.0)


def pass_at_k_std(config: AlgorithmConfig, samples: Samples, differences: Values) -> Values:
    """d_i / (sqrt(rho (1 - rho)) + epsilon), the deviation of the success of k samples of a group; see `pass_at_k`."""
    _, failure, _ = _failures(config.pass_k, samples)
    return differences / (np.sqrt(failure * (1 - failure)) + config.scale_epsilon)


def batch_whitening(config: AlgorithmConfig, samples: Samples, differences: Values) -> Values:
    """(d_i - mean) / (std + epsilon), mean and std being those of the differences of the step's judged samples.

    Source: Xu & Ding 2025 (SPO, arXiv:2509.13232), as in verl's recipe, with an epsilon of 1e-8.
    """
    everywhere = np.zeros_like(samples.groups)
    centred = differences - samples.means(differences, everywhere)
    count = samples.sums(np.ones(len(centred)), everywhere) - config.ddof
    return centred / (np.sqrt(samples.sums(centred**2, everywhere) / np.maximum(count, 1)) + config.scale_epsilon)


def token_whitening(config: AlgorithmConfig, samples: Samples, differences: Values) -> Values:
    """`whitened` over the tokens of the step, all tokens of a sample having the same difference.

    Source: Hu 2025 (REINFORCE++, arXiv:2501.03262).
    """
    return whitened(differences, samples.lengths * samples.judged, config.ddof)


def whitened(
    values: Float[np.ndarray, "*any"], weights: Shaped[np.ndarray, "*any"], ddof: int = 0
) -> Float[np.ndarray, "*any"]:
    """(x - mean) / sqrt(variance + 1e-8) in float64, each value counted `weights` times; those of weight 0 become 0.

    The statistics are those of the whole array, so call it with all samples of a step.
    """
    values, weights = np.where(weights > 0, values, 0.0).astype(np.float64), np.asarray(weights, np.float64)
    count = weights.sum()
    centred = np.where(weights > 0, values - (weights * values).sum() / max(count, 1), 0.0)
    return centred / np.sqrt((weights * centred**2).sum() / max(count - ddof, 1) + 1e-8)


BASELINES: Mapping[str, Baseline] = {
    "group_mean": group_mean,
    "leave_one_out": leave_one_out,
    "batch_mean": batch_mean,
    "none": no_baseline,
    "length_weighted": length_weighted,
    "greedy": greedy,
    "tracker": tracker,
    "pass_at_k": pass_at_k,
    "best_worst": best_worst,
    "monte_carlo": of_actions,
    "value": of_actions,
}
SCALES: Mapping[str, Scale] = {
    "group_std": group_std,
    "none": no_scale,
    "batch_std": batch_std,
    "domain_std": domain_std,
    "group_mean": group_mean_scale,
    "pass_at_k_std": pass_at_k_std,
    "batch_whitening": batch_whitening,
    "token_whitening": token_whitening,
}
