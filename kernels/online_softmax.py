"""One step of the online softmax: attention to one block of keys, merged with the state of earlier blocks.

Every attention kernel, of training and of decoding, on every back end, is a loop over this function in a fixed order of
blocks. A query that visits the same blocks in the same order therefore gets the same result, whatever its tile.

Scores are in base 2: exp(x) is 2 ** (x * log2(e)), and hardware computes 2 ** x. Callers fold log2(e) and the softmax
scale into the query once (or give both as `scale`).

Source: Milakov and Gimelshein 2018 (arXiv:1805.02867), algorithm 3; blocks: Dao 2023 (arXiv:2307.08691), algorithm 1.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlvr_jax.kernels.platform import product_precision, target_platform

LOG2_E = math.log2(math.e)
LN_2 = math.log(2)  # converts gradients of scores from natural units to base 2
# A masked score, and where the running maximum starts. The second is above the first, so a masked score has the weight
# 2 ** -huge = 0 even in a row that has seen no key yet, and a block without visible keys changes no bit.
MASKED_SCORE, NO_SCORE = -1e30, -5e29


class Carry(NamedTuple):
    """State of a tile of rows, in float32.

    `maximum` and `total` have one column, or as many as a vector register: `maximum` is then the same in all, as
    broadcasting a single column costs a permutation each time, and `total` is split over them until `finish`. Then keys
    in a block, and dim, are a multiple of that width or less than it.
    """

    maximum: jax.Array  # [rows, width]: highest score so far
    total: jax.Array  # [rows, width]: sum of 2 ** (score - maximum)
    weighted: jax.Array  # [rows, dim]: the same weights times the values


def start(rows: int, dim: int, width: int = 1) -> Carry:
    """The state before any key."""
    column = (rows, width)
    return Carry(jnp.full(column, NO_SCORE), jnp.zeros(column), jnp.zeros((rows, dim)))


def dot(x: jax.Array, y: jax.Array, contract: tuple[int, int]) -> jax.Array:
    """Matrix product over one axis of each; float32 operands in full precision, float32 result.

    On GPU the product of float32 operands is that of their halves in TF32, three products of tensor cores: as accurate
    as a sum of float32 products, and in Triton several times as fast.
    """
    dimensions = (((contract[0],), (contract[1],)), ((), ()))
    precision = product_precision(x.dtype)
    if x.dtype == jnp.float32 and target_platform() == "gpu":
        precision = jax.lax.DotAlgorithmPreset.TF32_TF32_F32_X3
    return jax.lax.dot_general(x, y, dimensions, precision=precision, preferred_element_type=jnp.float32)


def spread(column: jax.Array, width: int) -> jax.Array:
    """A column, repeated to some width already or not, for arithmetic with `width` columns."""
    have = column.shape[1]
    if have == 1 or have == width:
        return column
    return column[:, :width] if width < have else jnp.tile(column, (1, width // have))


def _partial_sums(weights: jax.Array, width: int) -> jax.Array:
    """[rows, keys] to [rows, width]: sums of every width-th column."""
    if width == 1:
        return weights.sum(axis=1, keepdims=True)
    if weights.shape[1] < width:
        weights = jnp.pad(weights, ((0, 0), (0, width - weights.shape[1])))
    parts = [weights[:, at : at + width] for at in range(0, weights.shape[1], width)]
    return sum(parts[1:], parts[0])


def step(
    carry: Carry,
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array | None = None,
    *,
    scale: float = 1.0,
    soft_cap: float | None = None,
    key_scales: jax.Array | None = None,
    value_scales: jax.Array | None = None,
) -> Carry:
    """Attends to one more block.

    Args:
      carry: from `start` or the step before.
      query: [rows, dim].
      key, value: [keys, dim].
      mask: [rows, keys], True where a row attends to a key; None for all.
      scale: from products of query and key to scores in base 2.
      soft_cap: scores, in natural units, are held inside +-soft_cap by tanh as in Gemma 2 (arXiv:2408.00118).
      key_scales, value_scales: [1, keys], factors of quantised keys and values; None for 1.
    """
    scores = dot(query, key, (1, 1))
    if key_scales is not None:
        scores = scores * key_scales
    if scale != 1.0:
        scores = scores * scale
    if soft_cap is not None:
        scores = soft_cap * LOG2_E * jnp.tanh(scores / (soft_cap * LOG2_E))
    if mask is not None:
        scores = jnp.where(mask, scores, MASKED_SCORE)
    maximum = jnp.maximum(carry.maximum, scores.max(axis=1, keepdims=True))
    weights = jnp.exp2(scores - spread(maximum, scores.shape[1]))
    shrink = jnp.exp2(carry.maximum - maximum)
    total = carry.total * shrink + _partial_sums(weights, carry.total.shape[1])
    if value_scales is not None:
        weights = weights * value_scales
    products = dot(weights.astype(value.dtype), value, (1, 0))
    return Carry(maximum, total, carry.weighted * spread(shrink, value.shape[1]) + products)


def merge(first: Carry, second: Carry) -> Carry:
    """The combined state of two disjoint sets of keys, such as a shared prefix and the rest."""
    maximum = jnp.maximum(first.maximum, second.maximum)
    shrinks = [jnp.exp2(x.maximum - maximum) for x in (first, second)]
    total = first.total * shrinks[0] + second.total * shrinks[1]
    dim = first.weighted.shape[1]
    weighted = first.weighted * spread(shrinks[0], dim) + second.weighted * spread(shrinks[1], dim)
    return Carry(maximum, total, weighted)


def finish(carry: Carry) -> tuple[jax.Array, jax.Array]:
    """The output [rows, dim], and log2 of the sum of 2 ** score [rows, width].

    A row without visible keys gets 0 and a huge sum, so that its weights are 0 in the gradients.
    """
    total = carry.total
    if total.shape[1] > 1:
        total = jnp.broadcast_to(total.sum(axis=1, keepdims=True), total.shape)
    empty = total == 0
    total = jnp.where(empty, 1.0, total)
    log_sum = jnp.where(empty, -NO_SCORE, carry.maximum + jnp.log2(total))
    return carry.weighted * spread(1.0 / total, carry.weighted.shape[1]), log_sum


def base_2_weights(scores, mask, log_sum, soft_cap: float | None) -> tuple[jax.Array, jax.Array | None]:
    """For the gradients: the softmax weights again, and the slope of the soft cap, None without one.

    Args:
      scores: products in base 2, before the cap.
      mask: as in `step`, shaped as the scores.
      log_sum: from `finish`, broadcast against the scores.
    """
    slope = None
    if soft_cap is not None:
        squashed = jnp.tanh(scores / (soft_cap * LOG2_E))
        scores, slope = soft_cap * LOG2_E * squashed, 1 - squashed * squashed
    if mask is not None:
        scores = jnp.where(mask, scores, MASKED_SCORE)
    return jnp.exp2(scores - log_sum), slope
