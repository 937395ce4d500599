"""Losses: functions of parameters and a batch that return sums and the weight to divide them by.

Sums, not means: a microbatch does not know the weight of the whole batch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import no_type_check

import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from rlvr_jax import named
from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.batch import Batch
from rlvr_jax.learner.scores import score
from rlvr_jax.policy import Params, PolicyConfig

Actions = Float[Array, "batch action"]
Number = Float[Array, ""]


@no_type_check  # as a pytree it may hold shapes or shardings, too
@struct.dataclass
class Sums:
    """The sums of a loss over a (micro)batch; those of microbatches add up to those of the batch.

    Attributes:
      loss: the gradient of the update is this sum's, divided by `weight`.
      weight: a count, e.g. of actions, samples or pairs.
      means: name -> (sum, count) of a metric reported as sum / count.
      largest: name -> a metric reported as the maximum over microbatches.
    """

    loss: Number
    weight: Number
    means: dict[str, tuple[Number, Number]]
    largest: dict[str, Number]


@dataclass(frozen=True)
class Loss:
    """A loss and the columns it needs.

    Attributes:
      sums: (parameters by name, such as "policy"; a (micro)batch) -> its sums.
      needs: names of the columns that it uses.
      rows_together: number of consecutive rows that must be in one microbatch, such as 2 for pairs.
    """

    sums: Callable[[Mapping[str, Params], Batch], Sums]
    needs: tuple[str, ...] = ()
    rows_together: int = 1


def policy_gradient(config: PolicyConfig, algorithm: AlgorithmConfig, temperature: float, max_length: int) -> Loss:
    """The loss of reinforcement learning, see `clipped_policy_loss`; it trains "policy".

    Args:
      config: the policy's architecture.
      algorithm: clip range, KL coefficient, aggregation.
      temperature: the policy is softmax(logits / temperature).
      max_length: the response budget, in tokens.
    """
    needs = ["advantages", "behaviour"]
    needs += ["proximal"] * (algorithm.proximal == "recompute") + ["reference"] * (algorithm.reference != "none")

    def sums(params: Mapping[str, Params], batch: Batch) -> Sums:
        logprobs, entropy = score(config, params["policy"], batch, temperature)
        return clipped_policy_loss(algorithm, max_length, logprobs, entropy, batch)

    return Loss(sums, tuple(needs))


LOSSES = {"policy_gradient": policy_gradient}


def make_loss(config: PolicyConfig, algorithm: AlgorithmConfig, temperature: float, max_length: int) -> Loss:
    """The loss that an algorithm names; the arguments are those of `policy_gradient`.

    Raises:
      ValueError: there is no such loss, or its function raises or returns something else.
    """
    if algorithm.loss in LOSSES:
        return LOSSES[algorithm.loss](config, algorithm, temperature, max_length)
    if not named.is_name(algorithm.loss):
        raise ValueError(f"there is no loss {algorithm.loss!r}; there are {', '.join(LOSSES)}, and 'module:function'")
    make = named.load(algorithm.loss)
    try:
        loss = make(config, algorithm, temperature, max_length)
    except Exception as error:
        where = f"{named.raised_at(error, algorithm.loss)}: {algorithm.loss!r}"
        raise ValueError(f"{where}: {type(error).__name__}: {error}") from error
    if not isinstance(loss, Loss):
        raise ValueError(
            f"{named.where(algorithm.loss)}: {algorithm.loss!r} returned {type(loss).__name__}, not a Loss"
        )
    return loss


def imitation(config: PolicyConfig) -> Loss:
    """The loss of supervised learning on demonstrations; it trains "policy"."""

    def sums(params: Mapping[str, Params], batch: Batch) -> Sums:
        logprobs, _ = score(config, params["policy"], batch, 1.0)
        return imitation_loss(logprobs, batch.action_mask)

    return Loss(sums)


def clipped_policy_loss(
    config: AlgorithmConfig, max_length: int, logprobs: Actions, entropy: Actions, batch: Batch
) -> Sums:
    """The clipped surrogate of PPO, optionally with GRPO's KL term and decoupled PPO's importance weight.

    For each action, of advantage A, with ratio = policy / proximal:

        -w min(ratio A, clip(ratio, 1 - clip_low, 1 + clip_high) A) + kl_coef KL(policy || reference)

    where proximal is the behaviour policy and w = 1, or both are given by `AlgorithmConfig.proximal`; w does not apply
    to the KL term. The weight of the sums is that of `AlgorithmConfig.aggregation`.

    Source: Schulman et al. 2017 (arXiv:1707.06347), eq. 7; Shao et al. 2024 (arXiv:2402.03300), eq. 3, except
    for the weights of tokens; the decoupled clipped objective of Hilton et al. 2021 (arXiv:2110.00641), its importance
    weight truncated as rho is in V-trace (Espeholt et al. 2018, arXiv:1802.01561, section 4.1).

    Args:
      config: the choices.
      max_length: the response budget, in tokens.
      logprobs: of the actions under the policy being trained (nats).
      entropy: of the policy at each action (nats).
      batch: with the columns that `policy_gradient` needs.
    """
    mask, columns = batch.action_mask, batch.columns
    logprobs, entropy, advantages, behaviour = _actions_only(
        mask, logprobs, entropy, columns["advantages"], columns["behaviour"]
    )
    count = jnp.sum(mask)
    weight = count if config.aggregation == "token_mean" else jnp.sum(batch.samples) * max_length
    means = {"train/entropy": (jnp.sum(entropy), count)}
    proximal, importance = behaviour, 1.0
    if config.proximal == "recompute":
        (proximal,) = _actions_only(mask, columns["proximal"])
        importance = jnp.minimum(jnp.exp(proximal - behaviour), config.importance_cap)
        means["train/importance_weight"] = (jnp.sum(mask * importance), count)
    ratio = jnp.exp(logprobs - proximal)
    clipped = jnp.clip(ratio, 1 - config.clip_low, 1 + config.clip_high)
    loss = -importance * jnp.minimum(ratio * advantages, clipped * advantages)
    is_clipped = clipped * advantages < ratio * advantages
    means["train/clip_fraction"] = (jnp.sum(is_clipped, dtype=jnp.float32), count)
    if config.reference != "none":
        kl = kl_divergence(logprobs, *_actions_only(mask, columns["reference"]))
        loss = loss + config.kl_coef * kl
        means["train/kl"] = (jnp.sum(kl), count)
    loss = jnp.sum(loss)
    gap = jnp.max(jnp.abs(logprobs - behaviour))
    return Sums(loss, weight, means | {"train/loss": (loss, weight)}, {"train/logprob_gap": gap})


def kl_divergence(logprobs: Actions, reference: Actions) -> Actions:
    """Estimate of KL(policy || reference) from one sampled token: unbiased, and non-negative up to rounding.

    Source: Schulman 2020, "Approximating KL divergence" (k3), http://joschu.net/blog/kl-approx.html; GRPO eq. 4.
    """
    difference = reference - logprobs
    return jnp.expm1(difference) - difference


def imitation_loss(logprobs: Actions, mask: Actions) -> Sums:
    """Negative log-likelihood of demonstrated tokens (nats)."""
    (logprobs,) = _actions_only(mask, logprobs)
    loss, count = -jnp.sum(logprobs), jnp.sum(mask)
    return Sums(loss, count, {"sft/loss": (loss, count)}, {})


def _actions_only(mask: Actions, *values: Actions) -> tuple[Actions, ...]:
    """Each array with 0 where masked, since 0 * inf would make sums and gradients NaN."""
    return tuple(jnp.where(mask > 0, x, 0.0) for x in values)
