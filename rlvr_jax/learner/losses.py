"""Losses as sums over tokens, each with its weight (see `aggregation.py`).

Sums, not means: a batch may be split into microbatches, of which none knows the tokens of the whole batch.
"""

from typing import no_type_check

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from rlvr_jax.learner.algorithm import AlgorithmConfig

Tokens = Float[Array, "batch time"]


@no_type_check  # as a pytree it may hold shapes or shardings, too
@struct.dataclass
class TokenSums:
    """The sums of a loss over a (micro)batch.

    Attributes:
      loss: weighted sum over tokens; its gradient is what the step follows.
      totals: name -> a quantity that is reported as the sum over all microbatches.
      means: name -> sum over tokens of a quantity that is reported as a mean over tokens.
      largest: name -> a quantity that is reported as a maximum.
    """

    loss: Float[Array, ""]
    totals: dict[str, Float[Array, ""]]
    means: dict[str, Float[Array, ""]]
    largest: dict[str, Float[Array, ""]]


def _actions_only(mask: Tokens, *values: Tokens) -> tuple[Tokens, ...]:
    """Each array with 0 in the masked places, which may hold anything: 0 * inf would poison sums and gradients."""
    return tuple(jnp.where(mask > 0, x, 0.0) for x in values)


def kl_divergence(logprobs: Tokens, reference: Tokens) -> Tokens:
    """Estimate of KL(policy || reference) from one sampled token: unbiased, and never negative but for rounding.

    Source: Schulman 2020, "Approximating KL divergence" (k3), http://joschu.net/blog/kl-approx.html; GRPO eq. 4.
    """
    difference = reference - logprobs
    return jnp.expm1(difference) - difference


def clipped_policy_loss(
    config: AlgorithmConfig,
    logprobs: Tokens,
    entropy: Tokens,
    mask: Tokens,
    weights: Tokens,
    advantages: Tokens,
    old_logprobs: Tokens,
    reference_logprobs: Tokens | None,
) -> TokenSums:
    """The clipped surrogate of PPO with GRPO's KL term.

    Args:
      config: clip range and KL coefficient.
      logprobs: of the taken actions under the policy being trained (nats).
      entropy: of the policy at each action (nats).
      mask: 1 on actions, 0 elsewhere.
      weights: of each action in the loss.
      advantages: of each action.
      old_logprobs: under the policy that sampled, as the sampler reported them.
      reference_logprobs: under the frozen reference policy, or None.

    Source: Schulman et al. 2017 (arXiv:1707.06347), eq. 7; Shao et al. 2024 (arXiv:2402.03300), eq. 3, but for
    its weights.
    """
    logprobs, entropy, advantages, old_logprobs = _actions_only(mask, logprobs, entropy, advantages, old_logprobs)
    (weights,) = _actions_only(mask, weights)
    gap = logprobs - old_logprobs
    ratio = jnp.exp(gap)
    clipped = jnp.clip(ratio, 1 - config.clip_low, 1 + config.clip_high)
    loss = -jnp.minimum(ratio * advantages, clipped * advantages)
    means = {
        "train/entropy": jnp.sum(entropy),
        "train/clip_fraction": jnp.sum(clipped * advantages < ratio * advantages, dtype=jnp.float32),
    }
    if reference_logprobs is not None:
        kl = kl_divergence(logprobs, *_actions_only(mask, reference_logprobs))
        loss = loss + config.kl_coef * kl
        means["train/kl"] = jnp.sum(kl)
    loss = jnp.sum(weights * loss)
    return TokenSums(loss, {"train/loss": loss}, means, {"train/logprob_gap": jnp.max(jnp.abs(gap))})


def imitation_loss(logprobs: Tokens, mask: Tokens, weights: Tokens) -> TokenSums:
    """Negative log-likelihood of demonstrated tokens (nats), each with its weight."""
    logprobs, weights = _actions_only(mask, logprobs, weights)
    loss = -jnp.sum(weights * logprobs)
    return TokenSums(loss, {"sft/loss": loss}, {}, {})
