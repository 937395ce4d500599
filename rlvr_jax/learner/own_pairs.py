"""Preferences among the policy's own samples: online DPO and its relatives.

A step trains on one pair of each group, its samples of the highest and of the lowest reward: the filter
`algorithm.keep = "best_worst"` leaves two rows of a group, and the baseline of the same name marks them by advantages
of 1 and -1. Groups of equal rewards are no pairs. The log-ratio of a sample is that of all its context windows.

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
from rlvr_jax.learner.preferences import Pairs, sums_of
from rlvr_jax.learner.scores import score
from rlvr_jax.learner.supervised import PreferencesConfig
from rlvr_jax.policy import Params, PolicyConfig


def own_pairs(config: PolicyConfig, algorithm: AlgorithmConfig, temperature: float, windows: int = 1) -> Loss:
    """The loss of `algorithm.preference` of each group's pair; it trains "policy".

    Args:
      config: the policy's architecture.
      algorithm: the choices.
      temperature: the policy is softmax(logits / temperature).
      windows: rows of a sample at most, one for each context window.
    """

    def sums(params: Mapping[str, Params], batch: Batch) -> Sums:
        logprobs, entropy = score(config, params["policy"], batch, temperature)
        return pair_loss(algorithm, logprobs, entropy, batch, windows)

    needs = ("advantages", "behaviour") + ("reference",) * needs_reference(algorithm)
    return Loss(sums, needs, rows_together=2 * windows)


def needs_reference(algorithm: AlgorithmConfig) -> bool:
    """True if the loss of `algorithm.preference` compares with a reference policy."""
    return preferences.LOSSES[algorithm.preference].reference


def pair_loss(algorithm: AlgorithmConfig, logprobs: Actions, entropy: Actions, batch: Batch, windows: int = 1) -> Sums:
    """The sum of the losses of pairs, and as its weight their number.

    Args:
      algorithm: with `preference` and `preference_beta`.
      logprobs: of the actions under the policy being trained (nats).
      entropy: of the policy at each action (nats).
      batch: each 2 * windows consecutive rows have the samples of a pair, if there are both advantages of 1 and of -1.
      windows: rows of a sample at most.
    """
    mask, columns = batch.action_mask, batch.columns
    sums = lambda x: jnp.sum(jnp.where(mask > 0, x, 0.0), axis=1).reshape(-1, 2 * windows)  # noqa: E731
    sides = sums(columns["advantages"])
    of = lambda x: jnp.stack([jnp.sum(jnp.where(s, sums(x), 0.0), 1) for s in (sides > 0, sides < 0)], 1)  # noqa: E731
    tokens = of(mask)
    lengths = jnp.maximum(tokens, 1.0)
    reference = of(columns["reference"]) if needs_reference(algorithm) else jnp.zeros_like(lengths)
    ones = jnp.ones(len(lengths), jnp.float32)
    pairs = Pairs(of(logprobs), reference, lengths, ones, ones, 0 * ones)
    options = PreferencesConfig(loss=algorithm.preference, beta=algorithm.preference_beta)
    found = sums_of(options, pairs, jnp.all(tokens > 0, axis=1))
    count, total = jnp.sum(mask), lambda x: jnp.sum(jnp.where(mask > 0, x, 0.0), dtype=jnp.float32)
    means = {"train/loss": (found.loss, found.weight), "train/entropy": (total(entropy), count)}
    if needs_reference(algorithm):
        signed = total(k1(logprobs, columns["reference"]))
        means |= {"train/kl": (total(k3(logprobs, columns["reference"])), count)}
        means |= {"train/kl_k1": (signed, count), "train/kl_sample": (signed, jnp.sum(batch.samples))}
    gap = jnp.max(jnp.where(mask > 0, jnp.abs(logprobs - columns["behaviour"]), 0.0))
    return found.replace(means=found.means | means, largest={"train/logprob_gap": gap})
