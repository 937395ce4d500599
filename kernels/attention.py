"""Attention over one or several KV segments, in plain JAX.

Every faster kernel is tested against this function; on CPU it is the one that runs.
"""

from functools import reduce

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from rlvr_jax.kernels.platform import product_precision

# Finite, so that a row with no visible key (padding) gives a finite, unused output instead of NaN.
MASKED = -1e30

# Decoding on CPU keeps keys in blocks of this many columns: XLA's matrix products read those at full memory
# bandwidth, and rows of hundreds of columns at half of it.
KEY_BLOCK = 64

# Segments differ in batch and length, which `_` leaves unchecked: jaxtyping binds a name once for all parts.
Part = tuple[
    Float[Array, "_part_batch kv dim _length"] | Float[Array, "_part_batch kv _blocks dim _size"],  # transposed keys
    Float[Array, "_part_batch kv _length dim"],  # values
    Bool[Array, "batch time _length"],  # True where a query may attend to a key
]


def attention(
    query: Float[Array, "batch time heads dim"], parts: tuple[Part, ...]
) -> Float[Array, "batch time heads dim"]:
    """Softmax attention of each query over the keys of all KV segments together.

    Grouped-query: `heads` is a multiple of `kv`, and head h attends to key/value head h // (heads // kv). A segment's
    batch may be a divisor of the query's: query row r then attends to segment row r // (batch // part_batch), so that a
    prompt which a group of samples shares is stored and read once. Keys come transposed because the decoding loop reads
    them once per token, and with the long axis last that read is contiguous (three times faster on CPU).

    The mask is added to the scores and the sum divides the output: XLA's CPU back end runs products with such steps
    around them as one pass over the keys and values, which a selection or a concatenation of segments would break.

    Args:
      query: rotated queries, scaled by dim ** -0.5.
      parts: (keys, values, mask) of each KV segment; the keys whole or in blocks of columns.

    Returns:
      The attention output in the query's dtype; scores, softmax and accumulation are in float32.

    Source: Vaswani et al. 2017 (arXiv:1706.03762), eq. 1; grouped queries: Ainslie et al. 2023 (arXiv:2305.13245).
    """
    batch, time, heads, dim = query.shape
    kv = parts[0][0].shape[1]
    repeat = heads // kv
    options = {"precision": product_precision(query.dtype), "preferred_element_type": jnp.float32}
    rows = query.reshape(batch, time, kv, repeat, dim).transpose(0, 2, 1, 3, 4).reshape(batch, kv, 1, -1, dim)

    def share(x, part_batch):  # [batch, kv, n, rows, m] -> [part_batch, kv, n, rows of all that share a part row, m]
        x = jnp.moveaxis(x.reshape(part_batch, -1, *x.shape[1:]), 1, 3)
        return x.reshape(*x.shape[:3], -1, x.shape[-1])

    def unshare(x):  # the inverse of share
        x = x.reshape(*x.shape[:3], batch // x.shape[0], -1, x.shape[-1])
        return jnp.moveaxis(x, 3, 1).reshape(batch, kv, x.shape[2], -1, x.shape[-1])

    scores = []  # of each part: [batch, kv, blocks, time, repeat, columns of a block]
    for keys, _, mask in parts:
        keys = keys if keys.ndim == 5 else keys[:, :, None]
        part_batch, _, blocks, _, size = keys.shape
        part_rows = share(rows, part_batch)
        part_rows = jnp.broadcast_to(part_rows, (part_batch, kv, blocks, *part_rows.shape[3:]))
        products = jnp.einsum("bknrd,bknds->bknrs", part_rows, keys, **options)
        hidden = jnp.where(mask, 0.0, MASKED).reshape(batch, time, blocks, size).swapaxes(1, 2)
        products = unshare(products).reshape(batch, kv, blocks, time, repeat, size)
        scores.append(products + hidden[:, None, :, :, None])
    top = reduce(jnp.maximum, [jnp.max(x, axis=(2, 5), keepdims=True) for x in jax.lax.stop_gradient(scores)])
    weights = [jnp.exp(x - top) for x in scores]
    total = sum(jnp.sum(x, axis=(2, 5)) for x in weights)

    output = 0.0
    for part_weights, (_, values, _) in zip(weights, parts, strict=True):
        blocks, size = part_weights.shape[2], part_weights.shape[5]
        part_weights = share(part_weights.reshape(batch, kv, blocks, -1, size).astype(query.dtype), values.shape[0])
        values = values.reshape(values.shape[0], kv, blocks, size, dim)
        products = jnp.einsum("bknrs,bknsd->bknrd", part_weights, values, **options)
        output += unshare(jnp.sum(products, axis=2, keepdims=True))
    output = output.reshape(batch, kv, time, repeat, dim) / total[..., None]
    return output.transpose(0, 2, 1, 3, 4).reshape(batch, time, heads, dim).astype(query.dtype)
