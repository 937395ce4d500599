"""Attention over one or several stretches of keys and values, in plain JAX.

This is the reference that every faster kernel is measured against, and what runs on CPU.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

# Finite, so that a row with no visible key (padding) gives a finite, unused output instead of NaN.
MASKED = -1e30

# Parts differ in batch and length, which `_` leaves unchecked: jaxtyping binds a name once for all parts.
Part = tuple[
    Float[Array, "_part_batch kv dim _length"],  # keys, transposed: see `attention`
    Float[Array, "_part_batch kv _length dim"],  # values
    Bool[Array, "batch time _length"],  # True where a query may read a key
]


def attention(
    query: Float[Array, "batch time heads dim"], parts: tuple[Part, ...]
) -> Float[Array, "batch time heads dim"]:
    """Softmax attention of each query over the keys of all parts together.

    Grouped-query: `heads` is a multiple of `kv`, and head h reads key/value head h // (heads // kv). A part's batch
    may be a divisor of the query's: query row r then reads part row r // (batch // part_batch), so that a prompt
    which a group of samples shares is stored and read once. Keys come transposed because the decoding loop reads
    them once per token, and with the long axis last that read is contiguous (three times faster on CPU).

    Args:
      query: rotated queries, scaled by dim ** -0.5.
      parts: (keys, values, mask) of each stretch.

    Returns:
      The attention output in the query's dtype; scores, softmax and accumulation are in float32.

    Source: Vaswani et al. 2017 (arXiv:1706.03762), eq. 1; grouped queries: Ainslie et al. 2023 (arXiv:2305.13245).
    """
    batch, time, heads, dim = query.shape
    kv = parts[0][0].shape[1]
    repeat = heads // kv
    rows = query.reshape(batch, time, kv, repeat, dim).transpose(0, 2, 1, 3, 4).reshape(batch, kv, time * repeat, dim)

    def share(x, part_batch):  # [batch, kv, rows, n] -> [part_batch, kv, rows of all that share a part row, n]
        if part_batch == batch:
            return x
        x = x.reshape(part_batch, batch // part_batch, *x.shape[1:])
        return x.transpose(0, 2, 1, 3, 4).reshape(part_batch, kv, -1, x.shape[-1])

    def unshare(x):  # the inverse of share
        if x.shape[0] == batch:
            return x
        x = x.reshape(x.shape[0], kv, batch // x.shape[0], time * repeat, x.shape[-1])
        return x.transpose(0, 2, 1, 3, 4).reshape(batch, kv, time * repeat, x.shape[-1])

    scores = []
    for keys, _, mask in parts:
        products = jnp.einsum("bkrd,bkds->bkrs", share(rows, keys.shape[0]), keys, preferred_element_type=jnp.float32)
        products = unshare(products).reshape(batch, kv, time, repeat, keys.shape[-1])
        scores.append(jnp.where(mask[:, None, :, None, :], products, MASKED))
    weights = jax.nn.softmax(jnp.concatenate(scores, axis=-1), axis=-1).astype(query.dtype)
    weights = weights.reshape(batch, kv, time * repeat, -1)

    output, start = jnp.zeros((batch, kv, time * repeat, dim), jnp.float32), 0
    for _, values, mask in parts:
        stop = start + mask.shape[-1]
        part_weights = share(weights[..., start:stop], values.shape[0])
        products = jnp.einsum("bkrs,bksd->bkrd", part_weights, values, preferred_element_type=jnp.float32)
        output, start = output + unshare(products), stop
    output = output.reshape(batch, kv, time, repeat, dim).transpose(0, 2, 1, 3, 4)
    return output.reshape(batch, time, heads, dim).astype(query.dtype)
