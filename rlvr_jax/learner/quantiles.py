"""Quantiles of the ratios of a step's actions, from sums: no device needs the actions of another."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from rlvr_jax.learner.ratios import LARGEST_LOG

PROBABILITIES = (0.0, 0.001, 0.01, 0.5, 0.99, 0.999, 1.0)
_SIZES = np.geomspace(1e-5, LARGEST_LOG, 38)  # of log-ratios: neighbours differ by a factor of 1.5
EDGES = np.concatenate([-_SIZES[::-1], [0.0], _SIZES]).astype(np.float32)

Actions = Float[Array, "batch action"]


def shares_below(log_ratio: Actions, mask: Actions) -> Float[Array, "edges"]:
    """The number of actions whose log-ratio is at most each of `EDGES`."""
    return jnp.sum((log_ratio[..., None] <= EDGES) * mask[..., None], axis=(0, 1), dtype=jnp.float32)


def bounds(log_ratio: Actions, mask: Actions) -> Float[Array, "2"]:
    """The largest log-ratio of an action, and minus the smallest one; -`LARGEST_LOG` without any."""
    return jnp.max(jnp.where(mask > 0, jnp.stack([log_ratio, -log_ratio]), -LARGEST_LOG), axis=(1, 2))


def quantiles(shares: Float[Array, "edges"], bounds: Float[Array, "2"]) -> dict[str, Float[Array, ""]]:
    """The metrics of the quantiles of the ratio: p0 and p100 are exact, the others interpolated between `EDGES`.

    Args:
      shares: `shares_below` over the number of actions.
      bounds: the maxima of `bounds` over the microbatches. Without any action the quantiles are 1.
    """
    highest, lowest = bounds[0], -bounds[1]
    inner = jnp.interp(jnp.asarray(PROBABILITIES[1:-1], jnp.float32), shares, EDGES)
    logs = jnp.concatenate([lowest[None], jnp.clip(inner, lowest, highest), highest[None]])
    ratios = jnp.where(lowest > highest, 1.0, jnp.exp(logs))
    return {f"train/ratio_p{100 * q:g}": ratio for q, ratio in zip(PROBABILITIES, ratios, strict=True)}
