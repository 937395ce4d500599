"""Clips: functions (terms, ratio) -> the loss of each token, and where the clip is active.

u is the ratio policy / proximal, A the advantage, e_low and e_high are `clip_low` and `clip_high`, sg[x] is x without
its gradient.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rlvr_jax.learner.ratios import Terms, sample_sums

Actions = Float[Array, "batch action"]


class Clipped(NamedTuple):
    """The loss of each token, and by name the masks of the tokens whose gradient the clip changes.

    "low" and "high" are those below and above the clip range.
    """

    loss: Actions
    active: Mapping[str, Bool[Array, "batch action"]] = {}


def ppo(terms: Terms, u: Actions) -> Clipped:
    """-min(u A, clip(u, 1 - e_low, 1 + e_high) A): the gradient stops where the ratio would run away.

    Source: Schulman et al. 2017 (PPO, arXiv:1707.06347), eq. 7; with e_high > e_low the "clip-higher" of Yu et al. 2025
    (DAPO, arXiv:2503.14476).
    """
    config, advantages = terms.config, terms.advantages
    clipped = jnp.clip(u, 1 - config.clip_low, 1 + config.clip_high)
    active = clipped * advantages < u * advantages
    high = advantages > 0
    return Clipped(-jnp.minimum(u * advantages, clipped * advantages), {"low": active & ~high, "high": active & high})


def dual(terms: Terms, u: Actions) -> Clipped:
    """`ppo`, and at most -c A for negative advantages, c = `clip_dual`: a token that became much more probable is not
    pushed down with a weight above c; its gradient is 0.

    Source: Ye et al. 2019 (dual-clip PPO, arXiv:1912.09729).
    """
    loss, active = ppo(terms, u)
    bound = -terms.config.clip_dual * terms.advantages
    beyond = (terms.advantages < 0) & (loss > bound)
    return Clipped(jnp.where(beyond, bound, loss), {**active, "dual": beyond})


def cispo(terms: Terms, u: Actions) -> Clipped:
    """-sg[clip(u, 1 - e_low, 1 + e_high)] A log policy: the weight is bounded, and no token loses its gradient.

    e_low >= 1 leaves small ratios as they are. The weight's upper bound is 1 + e_high, as in verl and open-instruct;
    TRL's is e_high itself.

    Source: MiniMax 2025 (MiniMax-M1, arXiv:2506.13585), eq. 4-5.
    """
    config = terms.config
    weight = jax.lax.stop_gradient(jnp.clip(u, max(0.0, 1 - config.clip_low), 1 + config.clip_high))
    active = {"low": u < 1 - config.clip_low, "high": u > 1 + config.clip_high}
    return Clipped(-weight * terms.advantages * terms.logprobs, active)


def sapo(terms: Terms, u: Actions) -> Clipped:
    """-A (4 / tau) sigmoid(tau (u - 1)): a soft gate, of gradient weight 1 at u = 1. tau is `tau_positive` for A > 0
    and `tau_negative` otherwise.

    Source: Gao et al. 2025 (SAPO, arXiv:2511.20347).
    """
    tau = jnp.where(terms.advantages > 0, terms.config.tau_positive, terms.config.tau_negative)
    return Clipped(-terms.advantages * 4 / tau * jax.nn.sigmoid(tau * (u - 1)))


def dcpo(terms: Terms, u: Actions) -> Clipped:
    """`ppo` with a range that is wider for tokens that the proximal policy finds improbable. With its probability q:

        0.5 + 0.5 sqrt(max(0, 1 - 4 e_low / q)) <= u <= min(10, 0.5 + 0.5 sqrt(1 + 4 e_high / q))

    Source: Yang et al. 2025 (DCPO, arXiv:2509.02333), with 0.16 and 0.2; the clip alone, without their cumulative
    advantages.
    """
    config, advantages = terms.config, terms.advantages
    q = jnp.exp(jax.lax.stop_gradient(terms.proximal))
    lowest = 0.5 + 0.5 * jnp.sqrt(jnp.maximum(0.0, 1 - 4 * config.clip_low / q))
    highest = jnp.minimum(10.0, 0.5 + 0.5 * jnp.sqrt(1 + 4 * config.clip_high / q))
    clipped = jnp.clip(u, lowest, highest)
    active = clipped * advantages < u * advantages
    high = advantages > 0
    return Clipped(-jnp.minimum(u * advantages, clipped * advantages), {"low": active & ~high, "high": active & high})


def dppo(terms: Terms, u: Actions) -> Clipped:
    """-u A, and 0 where the token's probability has moved in the advantage's direction by more than `clip_high` (A > 0)
    or `clip_low` (A < 0).

    Source: DPPO (arXiv:2602.04879), the mask by total variation, as prime-rl has it with 0.2 on both sides and the
    sampler as the anchor (`proximal` "behaviour").
    """
    config, advantages = terms.config, terms.advantages
    moved = jax.lax.stop_gradient(jnp.exp(terms.logprobs) - jnp.exp(terms.proximal))
    high, low = (advantages > 0) & (moved > config.clip_high), (advantages < 0) & (moved < -config.clip_low)
    return Clipped(jnp.where(high | low, 0.0, -u * advantages), {"low": low, "high": high})


def mirror(terms: Terms, _: Actions) -> Clipped:
    """-A log policy + (tau / 2) S^2 / n at each of a sample's n tokens, S being the sum of log u over them and tau
    `mirror_tau`: instead of a clip, a quadratic penalty on the log-ratio of the whole sample to the proximal policy.
    With `aggregation` "sequence_sum" the loss of a sample is -A log policy(y) + (tau / 2) S^2.

    Source: Kimi k1.5 (arXiv:2501.12599), section 2.3.2 (number and tau unverified), from secondary sources.
    """
    mask, total = terms.batch.action_mask, sample_sums(terms.batch, terms.log_ratio)
    penalty = terms.config.mirror_tau / 2 * total**2 * mask / jnp.maximum(sample_sums(terms.batch, mask), 1.0)
    return Clipped(-terms.advantages * terms.logprobs + penalty)


def none(terms: Terms, u: Actions) -> Clipped:
    """-u A."""
    return Clipped(-u * terms.advantages)


CLIPS: Mapping[str, Callable[[Terms, Actions], Clipped]] = {
    "ppo": ppo,
    "dual": dual,
    "cispo": cispo,
    "sapo": sapo,
    "dcpo": dcpo,
    "dppo": dppo,
    "mirror": mirror,
    "none": none,
}
