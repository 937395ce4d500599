"""Preferences among the policy's own samples: online DPO and its relatives.

A step trains on one pair of each group, its samples of the highest and of the lowest reward: the filter
`algorithm.keep = "best_worst"` leaves two rows of a group, and the baseline of the same name marks them by advantages
of 1 and -1. Groups of equal rewards are no pairs.

Source: Guo et al. 2024 (online AI feedback, arXiv:2402.04792), of two samples, judged by a language model; the best and
the worst of several: Yuan et al. 2024 (self-rewarding language models, arXiv:2401.10020), section 2.
"""

from collections.abc import Mapping

import jax.numpy as jnp

from rlvr_jax.learner import preferences
from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.batch import Batch
from rlvr_jax.learner.kl import k1, k3
from rlvr_jax.learner.losses import Actions, Loss, Sums
from rlvr_jax.learner.preferences import Pairs, of_completions, sums_of
from rlvr_jax.learner.scores import score
from rlvr_jax.learner.supervised import PreferencesConfig
from rlvr_jax.policy import Params, PolicyConfig


def own_pairs(config: PolicyConfig, algorithm: AlgorithmConfig, temperature: float, _: int) -> Loss:
    """The loss of `algorithm.preference` of each group's pair; it trains "policy".

    Args:
      config: the policy's architecture.
      algorithm: the choices.
      temperature: the policy is softmax(logits / temperature).
    """

    def sums(params: Mapping[str, Params], batch: Batch) -> Sums:
        logprobs, entropy = score(config, params["policy"], batch, temperature)
        return pair_loss(algorithm, logprobs, entropy, batch)

    needs = ("advantages", "behaviour") + ("reference",) * needs_reference(algorithm)
    return Loss(sums, needs, rows_together=2)


def needs_reference(algorithm: AlgorithmConfig) -> bool:
    """True if the loss of `algorithm.preference` compares with a reference policy."""
    return preferences.LOSSES[algorithm.preference].reference


def pair_loss(algorithm: AlgorithmConfig, logprobs: Actions, entropy: Actions, batch: Batch) -> Sums:
    """The sum of the losses of pairs, and as its weight their number.

    Args:
      algorithm: with `preference` and `preference_beta`.
      logprobs: of the actions under the policy being trained (nats).
      entropy: of the policy at each action (nats).
      batch: rows 2 i and 2 i + 1 are a pair if their advantages are 1 and -1, in either order.
    """
    mask, columns = batch.action_mask, batch.columns
    of = lambda x: of_completions(batch, jnp.where(mask > 0, x, 0.0))  # noqa: E731
    lengths = jnp.maximum(of(mask), 1.0)
    preferred = of(columns["advantages"]) / lengths
    first = (preferred[:, 0] > preferred[:, 1])[:, None]
    in_order = lambda x: jnp.where(first, x, x[:, ::-1])  # noqa: E731
    reference = of(columns["reference"]) if needs_reference(algorithm) else jnp.zeros_like(lengths)
    ones = jnp.ones(len(lengths), jnp.float32)
    pairs = Pairs(*map(in_order, (of(logprobs), reference, lengths)), ones, ones, 0 * ones)
    options = PreferencesConfig(loss=algorithm.preference, beta=algorithm.preference_beta)
    found = sums_of(options, pairs, preferred[:, 0] * preferred[:, 1] < 0)
    count, total = jnp.sum(mask), lambda x: jnp.sum(jnp.where(mask > 0, x, 0.0), dtype=jnp.float32)
    means = {"train/loss": (found.loss, found.weight), "train/entropy": (total(entropy), count)}
    if needs_reference(algorithm):
        signed = total(k1(logprobs, columns["reference"]))
        means |= {"train/kl": (total(k3(logprobs, columns["reference"])), count)}
        means |= {"train/kl_k1": (signed, count), "train/kl_sample": (signed, jnp.sum(batch.samples))}
    gap = jnp.max(jnp.where(mask > 0, jnp.abs(logprobs - columns["behaviour"]), 0.0))
    return found.replace(means=found.means | means, largest={"train/logprob_gap": gap})
