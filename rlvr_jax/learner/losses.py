"""Losses: functions of parameters and a batch that return sums and the weight to divide them by.

Sums, not means: a microbatch does not know the weight of the whole batch.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import no_type_check

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Float

from rlvr_jax.learner import aggregation
from rlvr_jax.learner import entropy as entropy_terms
from rlvr_jax.learner.aggregation import AGGREGATIONS
from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.batch import Batch
from rlvr_jax.learner.clips import CLIPS
from rlvr_jax.learner.correction import CORRECTIONS
from rlvr_jax.learner.entropy import ENTROPIES
from rlvr_jax.learner.kl import KLS, k1, k3
from rlvr_jax.learner.quantiles import bounds, quantiles, shares_below
from rlvr_jax.learner.ratios import RATIOS, Terms, bounded, sample_sums
from rlvr_jax.learner.scores import score
from rlvr_jax.policy import Params, PolicyConfig

Actions = Float[Array, "batch action"]
Number = Float[Array, ""]
Means = dict[str, tuple[Float[Array, "..."], Number]]  # see `Sums`
Largest = dict[str, Float[Array, "..."]]

# Of `Sums`, for `derived`: for the quantiles of the ratio, and the correlation of log-probs.
_SHARES, _BOUNDS, _MOMENTS = "_ratio_shares", "_ratio_bounds", "_logprob_moments"


@no_type_check  # as a pytree it may hold shapes or shardings, too
@struct.dataclass
class Sums:
    """The sums of a loss over a (micro)batch; those of microbatches add up to those of the batch.

    Attributes:
      loss: the gradient of the update is this sum's, divided by `weight`.
      weight: a count, e.g. of actions, samples or pairs.
      means: name -> (sum, count) of a metric reported as sum / count. Names that begin with `_` are for `Loss.derived`:
        they are not reported, and may be arrays.
      largest: name -> a metric reported as the maximum over microbatches; likewise.
    """

    loss: Number
    weight: Number
    means: Means
    largest: Largest


@dataclass(frozen=True, eq=False)  # compiled functions are kept by it, whatever it holds
class Loss:
    """A loss and the columns it needs.

    Attributes:
      sums: (parameters by name, such as "policy"; a (micro)batch) -> its sums.
      needs: names of the columns that it uses.
      rows_together: number of consecutive rows that must be in one microbatch, such as 2 for pairs.
      derived: the metrics of an update -> further ones, which are no sums.
      metrics: the group that the norm of its gradient is logged in.
      frozen: names of the parameters that it reads and does not train, such as "teacher".
    """

    sums: Callable[[Mapping[str, Params], Batch], Sums]
    needs: tuple[str, ...] = ()
    rows_together: int = 1
    derived: Callable[[Mapping[str, Float[Array, "..."]]], dict[str, Number]] = lambda _: {}
    metrics: str = "train"
    frozen: tuple[str, ...] = ()


def policy_gradient(config: PolicyConfig, algorithm: AlgorithmConfig, temperature: float, max_length: int) -> Loss:
    """The loss of reinforcement learning, see `policy_loss`; it trains "policy".

    Args:
      config: the policy's architecture.
      algorithm: the choices.
      temperature: the policy is softmax(logits / temperature).
      max_length: the response budget, in tokens.
    """

    def sums(params: Mapping[str, Params], batch: Batch) -> Sums:
        logprobs, entropy = score(config, params["policy"], batch, temperature)
        return policy_loss(algorithm, max_length, logprobs, entropy, batch)

    return Loss(sums, columns_of(algorithm), derived=derived)


def columns_of(algorithm: AlgorithmConfig) -> tuple[str, ...]:
    """The columns that `policy_loss` reads with these choices."""
    needs = ("advantages", "behaviour")
    needs += aggregation.NEEDS.get(algorithm.aggregation, ()) + entropy_terms.NEEDS.get(algorithm.entropy, ())
    needs += ("proximal",) * (algorithm.proximal == "recompute")
    needs += ("demonstrated",) * (algorithm.demonstrations > 0)
    return needs + ("reference",) * (algorithm.reference != "none")


@functools.lru_cache(maxsize=32)  # the runs of a process share losses, and so what is compiled for them
def imitation(config: PolicyConfig, sources: tuple[str, ...] = ()) -> Loss:
    """The loss of supervised learning; it trains "policy".

    With names of sources, of which a batch has the numbers as the column "source", there is a metric of each.
    """

    def sums(params: Mapping[str, Params], batch: Batch) -> Sums:
        logprobs, _ = score(config, params["policy"], batch, 1.0)
        found, mask = imitation_loss(logprobs, batch.action_mask), batch.action_mask
        masks = {name: mask * (batch.columns["source"] == i) for i, name in enumerate(sources)}
        parts = {f"sft/{name}/loss": imitation_loss(logprobs, x) for name, x in masks.items()}
        return found.replace(means=found.means | {name: (x.loss, x.weight) for name, x in parts.items()})

    return Loss(sums, ("source",) if sources else ())


def policy_loss(config: AlgorithmConfig, max_length: int, logprobs: Actions, entropy: Actions, batch: Batch) -> Sums:
    """The loss of the choices of a config, by default the clipped surrogate of PPO (see `clips.ppo`).

    For each action, of advantage A:

        entropy(w clip(ratio, A)) + kl_coef kl

    with the tables `ratios.RATIOS`, `clips.CLIPS`, `correction.CORRECTIONS` (w), `entropy.ENTROPIES` and `kl.KLS`;
    `aggregation.AGGREGATIONS` gives the weights and the divisor of the sum.

    Args:
      config: the choices.
      max_length: the response budget, in tokens.
      logprobs: of the actions under the policy being trained (nats).
      entropy: of the policy at each action (nats).
      batch: with the columns of `columns_of`.
    """
    mask, columns = batch.action_mask, batch.columns
    logprobs, entropy, advantages, behaviour = _actions_only(
        mask, logprobs, entropy, columns["advantages"], columns["behaviour"]
    )
    shown = columns["demonstrated"] > 0 if config.demonstrations else None
    if shown is not None:  # no policy sampled these: their ratio is 1
        behaviour = jnp.where(shown, jax.lax.stop_gradient(logprobs), behaviour)
    proximal = behaviour
    if config.proximal == "recompute":
        (proximal,) = _actions_only(mask, columns["proximal"])
    elif config.proximal == "current":
        proximal = jax.lax.stop_gradient(logprobs)
    terms = Terms(config, batch, logprobs, proximal, behaviour, advantages)
    count = jnp.sum(mask)
    total = lambda values: jnp.sum(jnp.where(mask > 0, values, 0.0), dtype=jnp.float32)  # noqa: E731
    means = {"train/entropy": (jnp.sum(entropy), count)}
    for name, of in (("positive", advantages > 0), ("negative", advantages < 0)):
        means[f"train/entropy_{name}"] = (total(entropy * of), total(of))

    ratio = RATIOS[config.ratio](terms)
    loss, active = CLIPS[config.clip](terms, ratio)
    if shown is not None:
        loss = jnp.where(shown, shaped(config, logprobs, advantages), loss)
    if active:
        means["train/clip_fraction"] = (total(functools.reduce(jnp.logical_or, active.values())), count)
        means |= {f"train/clip_{name}": (total(where), count) for name, where in active.items()}
    if config.proximal != "behaviour":
        log_w = bounded(proximal - behaviour)
        raw = jnp.exp(log_w)
        means |= {"train/importance_raw": (total(raw), count), "train/importance_chi2": (total(raw**2 - 1), count)}
        share = mask / jnp.maximum(sample_sums(batch, mask), 1.0)  # of a sample's weight W, at each of its actions
        whole, samples = jnp.exp(bounded(sample_sums(batch, log_w))), jnp.sum(share)
        means["train/importance_sample"] = (jnp.sum(share * whole), samples)
        means["train/importance_sample_chi2"] = (jnp.sum(share * (whole**2 - 1)), samples)
        if config.correction != "none":
            weight = CORRECTIONS[config.correction](config, batch, log_w)
            loss = weight * loss
            means["train/importance_weight"] = (total(weight), count)
            means["train/importance_masked"] = (total(weight == 0), count)
    loss = ENTROPIES[config.entropy](terms, entropy, loss)
    if "entropy_coef" in entropy_terms.NEEDS.get(config.entropy, ()):
        means["train/entropy_coef"] = (total(columns["entropy_coef"]), count)
    if config.reference != "none":
        (reference,) = _actions_only(mask, columns["reference"])
        in_loss = KLS[config.kl]
        if config.kl_coef > 0 and in_loss is not None:
            loss = loss + config.kl_coef * in_loss(terms, reference)
        signed = jnp.sum(k1(logprobs, reference))
        means["train/kl"] = (jnp.sum(k3(logprobs, reference)), count)
        means |= {"train/kl_k1": (signed, count), "train/kl_sample": (signed, jnp.sum(batch.samples))}
    weights, divisor = AGGREGATIONS[config.aggregation](config, batch, max_length)
    loss = jnp.sum(loss if weights is None else weights * loss)
    of_sampler, largest = _sampler_gap(logprobs, behaviour, count)
    means |= of_sampler
    if config.ratio != "none":
        sampled = mask if shown is None else jnp.where(shown, 0.0, mask)
        of_ratio, most = _moved(terms.log_ratio, ratio, sampled, count)
        means, largest = means | of_ratio, largest | most
    return Sums(loss, divisor, means | {"train/loss": (loss, divisor)}, largest)


def _sampler_gap(logprobs: Actions, behaviour: Actions, count: Number) -> tuple[Means, Largest]:
    """Metrics of the difference between the trainer's and the sampler's log-probs, which are 0 outside of the mask."""
    gap, moved = jnp.abs(logprobs - behaviour), jnp.abs(jnp.exp(logprobs) - jnp.exp(behaviour))
    products = (logprobs, behaviour, logprobs**2, behaviour**2, logprobs * behaviour)
    moments = jnp.stack([jnp.sum(x) for x in products])
    means = {"train/logprob_gap_mean": (jnp.sum(gap), count), _MOMENTS: (moments, count)}
    return means, {"train/logprob_gap": jnp.max(gap), "train/probability_gap": jnp.max(moved)}


def _moved(log_ratio: Actions, ratio: Actions, sampled: Actions, count: Number) -> tuple[Means, Largest]:
    """Metrics of the policy's ratio to the proximal one: of tokens, and with `ratio` at the level of the clip."""
    at_clip = jnp.log(jax.lax.stop_gradient(ratio))
    means = {
        # k3, which estimates KL(proximal || policy) without bias by samples of the proximal policy.
        "train/policy_kl": (jnp.sum(jnp.expm1(log_ratio) - log_ratio), count),
        _SHARES: (shares_below(at_clip, sampled), jnp.sum(sampled)),
    }
    return means, {"train/log_ratio": jnp.max(jnp.abs(log_ratio)), _BOUNDS: bounds(at_clip, sampled)}


def derived(metrics: Mapping[str, Float[Array, "..."]]) -> dict[str, Number]:
    """Metrics of an update that are functions of others: quantiles of the ratio; the correlation of log-probs of the
    sampler and the trainer; and effective sample sizes as shares, (sum w)^2 / (N sum w^2) of the raw importance weights
    (Kong 1992), those of actions and, as products, those of samples."""
    found = {}
    if {_SHARES, _BOUNDS} <= metrics.keys():
        found |= quantiles(metrics[_SHARES], metrics[_BOUNDS])
    if _MOMENTS in metrics:
        x, y, xx, yy, xy = metrics[_MOMENTS]
        spread = jnp.sqrt(jnp.maximum((xx - x**2) * (yy - y**2), 0.0))
        correlation = jnp.clip((xy - x * y) / jnp.maximum(spread, 1e-30), -1.0, 1.0)  # rounding can lead beyond
        found["train/logprob_correlation"] = jnp.where(spread > 0, correlation, 1.0)
    sources = {
        "train/effective_actions": ("train/importance_raw", "train/importance_chi2"),
        "train/effective_samples": ("train/importance_sample", "train/importance_sample_chi2"),
    }
    for name, (mean, chi2) in sources.items():
        if mean in metrics:
            found[name] = metrics[mean] ** 2 / (1 + metrics[chi2])
    return found


def shaped(config: AlgorithmConfig, logprobs: Actions, advantages: Actions) -> Actions:
    """-A p / (p + c) for the tokens of demonstrations, p their probability and c = `demonstration_shaping`.

    The weight of the gradient, p c / (p + c)^2, is largest at p = c, so that improbable tokens are learned, too.

    Source: Yan et al. 2025 (LUFFY, arXiv:2504.14945), policy shaping, as in their published code.
    """
    probability = jnp.exp(logprobs)
    return -advantages * probability / (probability + config.demonstration_shaping)


def imitation_loss(logprobs: Actions, mask: Actions) -> Sums:
    """Negative log-likelihood of demonstrated tokens (nats)."""
    (logprobs,) = _actions_only(mask, logprobs)
    loss, count = -jnp.sum(logprobs), jnp.sum(mask)
    return Sums(loss, count, {"sft/loss": (loss, count)}, {})


def _actions_only(mask: Actions, *values: Actions) -> tuple[Actions, ...]:
    """Each array with 0 where masked, since 0 * inf would make sums and gradients NaN."""
    return tuple(jnp.where(mask > 0, x, 0.0) for x in values)
