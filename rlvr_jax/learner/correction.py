"""Off-policy corrections: functions from log-weights log w_t = log proximal / behaviour to the weight of each token.

The weight multiplies the clipped policy loss, without gradient; KL and entropy terms have none. Tokens of weight 0
still count in the divisor of the loss. W is the product of w_t over the sample's actions.
"""

from collections.abc import Callable, Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.batch import Batch
from rlvr_jax.learner.quantiles import PROBABILITIES
from rlvr_jax.learner.ratios import LARGEST_LOG, bounded, sample_means, sample_sums

Actions = Float[Array, "batch action"]


def decoupled(_: AlgorithmConfig, __: Batch, log_w: Actions) -> Actions:
    """w_t.

    Source: Hilton et al. 2021 (decoupled PPO, arXiv:2110.00641); Fu et al. 2025 (AReaL, arXiv:2505.24298), eq. 5.
    """
    return jnp.exp(log_w)


def token_tis(config: AlgorithmConfig, _: Batch, log_w: Actions) -> Actions:
    """min(w_t, cap): truncated importance sampling.

    Source: Yao et al. 2025 (fengyao.notion.site/off-policy-rl); truncated as rho is in V-trace (Espeholt et al. 2018,
    arXiv:1802.01561, section 4.1).
    """
    return jnp.minimum(jnp.exp(log_w), config.importance_cap)


def token_mis(config: AlgorithmConfig, _: Batch, log_w: Actions) -> Actions:
    """w_t if floor <= w_t <= cap, else 0: masked importance sampling, as in IcePop.

    Source: IcePop (arXiv:2510.18855; its bounds are unverified); 0.5 and 5 in INTELLECT-3 (arXiv:2512.16144, eq. 1),
    where w is policy / behaviour.
    """
    return _within(config, jnp.exp(log_w))


def sequence_tis(config: AlgorithmConfig, batch: Batch, log_w: Actions) -> Actions:
    """min(W, cap) for all tokens of the sample."""
    return jnp.minimum(jnp.exp(bounded(sample_sums(batch, log_w))), config.importance_cap)


def sequence_mis(config: AlgorithmConfig, batch: Batch, log_w: Actions) -> Actions:
    """W if floor <= W <= cap, else 0, for all tokens of the sample.

    Source: Liu & Li 2025 (richardli.xyz/rl-collapse), without a floor; TRL's default, with a cap of 3.
    """
    return _within(config, jnp.exp(bounded(sample_sums(batch, log_w))))


def geometric(config: AlgorithmConfig, batch: Batch, log_w: Actions) -> Actions:
    """1 if floor <= exp(mean_t log w_t) <= cap, else 0, for all tokens of the sample.

    Source: the sequence mask of OpenRLHF, without its weights of tokens.
    """
    mean = jnp.exp(sample_means(batch, log_w))
    return ((mean >= config.importance_floor) & (mean <= config.importance_cap)).astype(jnp.float32)


def _within(config: AlgorithmConfig, weight: Actions) -> Actions:
    return jnp.where((weight >= config.importance_floor) & (weight <= config.importance_cap), weight, 0.0)


def weight_quantiles(batch: Batch) -> dict[str, float]:
    """The metrics of the distribution of w_t over a step's actions, before its first update; empty without the column
    "proximal". q0 and q100 are the extremes."""
    if "proximal" not in batch.columns:
        return {}
    sampled = (batch.action_mask > 0) & (batch.columns.get("demonstrated", np.zeros(1)) == 0)
    log_w = (batch.columns["proximal"] - batch.columns["behaviour"])[sampled].astype(np.float64)
    if not log_w.size:
        return {}
    found = np.quantile(np.exp(np.clip(log_w, -LARGEST_LOG, LARGEST_LOG)), PROBABILITIES)
    return {f"train/importance_q{100 * q:g}": float(x) for q, x in zip(PROBABILITIES, found, strict=True)}


def none(_: AlgorithmConfig, __: Batch, log_w: Actions) -> Actions:
    """1."""
    return jnp.ones_like(log_w)


CORRECTIONS: Mapping[str, Callable[[AlgorithmConfig, Batch, Actions], Actions]] = {
    "none": none,
    "decoupled": decoupled,
    "token_tis": token_tis,
    "token_mis": token_mis,
    "sequence_tis": sequence_tis,
    "sequence_mis": sequence_mis,
    "geometric": geometric,
}
