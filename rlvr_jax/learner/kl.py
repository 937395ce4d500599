"""Estimators of KL(policy || reference) at sampled tokens, and as terms of the loss.

d = log policy - log reference of the sampled token. Value and gradient are different questions: E stands for the
gradient's expectation on-policy, with the state given. A token's effect on later states is left out of all of them;
KL in the reward includes it. sg[x] is x without its gradient.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlvr_jax.learner.ratios import Terms, bounded

Actions = Float[Array, "batch action"]


def k1(logprobs: Actions, reference: Actions) -> Actions:
    """d: unbiased, of either sign. Source: Schulman 2020, "Approximating KL divergence",
    http://joschu.net/blog/kl-approx.html."""
    return logprobs - reference


def k3(logprobs: Actions, reference: Actions) -> Actions:
    """exp(-d) - 1 + d: unbiased, and non-negative up to rounding. Source: as `k1`."""
    difference = reference - logprobs
    return jnp.expm1(difference) - difference


def k2_loss(terms: Terms, reference: Actions) -> Actions:
    """d^2 / 2. E = grad KL(policy || reference), exactly; biased off-policy.

    Source: Liu et al. 2025, "Rethinking KL Regularization in RLHF" (arXiv:2510.01555).
    """
    return 0.5 * k1(terms.logprobs, reference) ** 2


def k3_loss(terms: Terms, reference: Actions) -> Actions:
    """exp(-d) - 1 + d, GRPO's term. E = grad KL(reference || policy): the forward divergence, not the one that
    its value is of.

    Source: Shao et al. 2024 (GRPO, arXiv:2402.03300), eq. 4; for the gradient Liu et al. 2025 (arXiv:2510.01555).
    """
    return k3(terms.logprobs, reference)


def ratio_k1_loss(terms: Terms, reference: Actions) -> Actions:
    """r d, r = policy / behaviour of the token, differentiable. E = grad KL(policy || reference), also off-policy."""
    return _ratio(terms) * k1(terms.logprobs, reference)


def ratio_k3_loss(terms: Terms, reference: Actions) -> Actions:
    """r (exp(-d) - 1 + d), r = policy / behaviour of the token, differentiable. E = grad KL(policy || reference),
    also off-policy.

    Source: DeepSeek-V3.2 (arXiv:2512.02556), section 3.1, eq. 7.
    """
    return _ratio(terms) * k3(terms.logprobs, reference)


def weighted_k2_loss(terms: Terms, reference: Actions) -> Actions:
    """sg[r] d^2 / 2, r = policy / behaviour of the token. E = grad KL(policy || reference), also off-policy."""
    return jax.lax.stop_gradient(_ratio(terms)) * k2_loss(terms, reference)


def _ratio(terms: Terms) -> Actions:
    return jnp.exp(bounded(terms.logprobs - terms.behaviour))


KLS: Mapping[str, Callable[[Terms, Actions], Actions] | None] = {
    "none": None,
    "k2": k2_loss,
    "k3": k3_loss,
    "ratio_k1": ratio_k1_loss,
    "ratio_k3": ratio_k3_loss,
    "weighted_k2": weighted_k2_loss,
}
REFUSED = {
    "k1": "its expected gradient on-policy is 0, so it regularises nothing and adds noise; use 'k2' or 'ratio_k3', "
    "whose expected gradient is that of KL(policy || reference)"
}
