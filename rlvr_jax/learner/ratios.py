"""Levels of the probability ratio policy / proximal: functions from log-ratios of tokens to factors of advantages.

Everything is masked: 0 where a token is not trained on. u_t is the ratio of token t, sg[x] is x without its gradient.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.batch import Batch

Actions = Float[Array, "batch action"]
LARGEST_LOG = 20.0  # of log-ratios before exp, which overflows in float32 at 88


@dataclass(frozen=True)
class Terms:
    """Inputs of the loss of a token.

    Attributes:
      config: the choices.
      batch: the (micro)batch.
      logprobs: of the actions under the policy being trained, in nats; the only differentiable attribute.
      proximal: log-probs under the proximal policy.
      behaviour: log-probs under the policy that sampled.
      advantages: of the actions.
    """

    config: AlgorithmConfig
    batch: Batch
    logprobs: Actions
    proximal: Actions
    behaviour: Actions
    advantages: Actions

    @property
    def log_ratio(self) -> Actions:
        """log policy / proximal of each token."""
        return bounded(self.logprobs - self.proximal)


def bounded(log_ratio: Actions) -> Actions:
    """A log-ratio whose exponential is finite."""
    return jnp.clip(log_ratio, -LARGEST_LOG, LARGEST_LOG)


def sample_sums(batch: Batch, values: Actions) -> Actions:
    """At each action the sum of masked values over the actions of its sample, in rows of one sample or packed ones."""
    if batch.parents is None:
        return jnp.broadcast_to(jnp.sum(values, axis=1, keepdims=True), values.shape)
    segments = batch.segment_ids[:, -values.shape[1] :]
    index = jnp.cumsum(jnp.diff(segments, axis=1, prepend=segments[:, :1]) != 0, axis=1)  # of the run of one segment

    def of_row(row: Float[Array, "action"], index: Array) -> Float[Array, "action"]:
        return jax.ops.segment_sum(row, index, row.shape[0], indices_are_sorted=True)[index]

    return jax.vmap(of_row)(values, index)


def sample_means(batch: Batch, values: Actions) -> Actions:
    """As `sample_sums`, the mean; 0 for a sample without actions."""
    return sample_sums(batch, values) / jnp.maximum(sample_sums(batch, batch.action_mask), 1.0)


def token(terms: Terms) -> Actions:
    """u_t = policy / proximal of the token (Schulman et al. 2017, PPO, arXiv:1707.06347)."""
    return jnp.exp(terms.log_ratio)


def sequence(terms: Terms) -> Actions:
    """s = exp(mean_t log u_t), the geometric mean of the sample's ratios, for each of its tokens.

    Its gradient spreads over all tokens of the sample: with `aggregation` "sequence_mean" that of a sample's loss is
    s A mean_t grad log policy.

    Source: Zheng et al. 2025 (GSPO, arXiv:2507.18071), eq. 5-7.
    """
    return jnp.exp(sample_means(terms.batch, terms.log_ratio))


def sequence_token(terms: Terms) -> Actions:
    """s_t = sg[s] u_t / sg[u_t]: the value of `sequence` with the gradient of the token alone, for advantages that
    differ between the tokens of a sample.

    Source: Zheng et al. 2025 (GSPO-token, arXiv:2507.18071), eq. 13-14.
    """
    fixed = jax.lax.stop_gradient(terms.logprobs)
    return jax.lax.stop_gradient(sequence(terms)) * jnp.exp(terms.logprobs - fixed)


def geometric(terms: Terms) -> Actions:
    """exp(mean_t z_t), where z_t is log u_t, clipped where that makes the objective smaller: to at most `clip_high` for
    positive advantages, to at least -`clip_low` for negative ones.

    The clip range is that of logarithms, and of tokens before the mean, so `clip` must be "none".

    Source: Zhao et al. 2025 (GMPO, arXiv:2507.20673), with a range of 0.4 on both sides.
    """
    z, sign = terms.log_ratio, jnp.sign(terms.advantages)
    limited = sign * jnp.minimum(sign * z, sign * jnp.clip(z, -terms.config.clip_low, terms.config.clip_high))
    return jnp.exp(sample_means(terms.batch, limited))


def none(terms: Terms) -> Actions:
    """The log-prob, so that the loss is -A log policy: REINFORCE (Williams 1992), without a ratio to clip."""
    return terms.logprobs


RATIOS: Mapping[str, Callable[[Terms], Actions]] = {
    "token": token,
    "sequence": sequence,
    "sequence_token": sequence_token,
    "geometric": geometric,
    "none": none,
}
