"""Training attention in plain JAX: what the kernels are measured against, and what runs where there is no kernel."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlvr_jax.kernels.online_softmax import MASKED_SCORE
from rlvr_jax.kernels.schedule import Schedule, visible


def masked_attention(
    query: Float[Array, "batch queries heads dim"],
    keys: Float[Array, "batch time kv dim"],
    values: Float[Array, "batch time kv dim"],
    schedule: Schedule,
    *,
    scale: float = 1.0,
    soft_cap: float | None = None,
    start: int | jax.Array = 0,
) -> Float[Array, "batch queries heads dim"]:
    """Attention by the rule of `visible`, with all scores in memory at once. Queries that read nothing give 0.

    Args:
      query: the queries at places `start` and on of the rows.
      keys, values: of the whole rows; head h reads head h // (heads // kv) of them.
      schedule: its ids are used, its steps are not.
      scale: of the scores.
      soft_cap: scores become soft_cap * tanh(scores / soft_cap).

    Source: Vaswani et al. 2017 (arXiv:1706.03762), eq. 1.
    """
    batch, queries, heads, dim = query.shape
    key_ids = [schedule.ids[:, row, None, : keys.shape[1]] for row in (0, 1)]
    query_ids = [jax.lax.dynamic_slice_in_dim(schedule.ids[:, row], start, queries, 1)[..., None] for row in (2, 3, 4)]
    places = start + jnp.arange(queries)[:, None], jnp.arange(keys.shape[1])
    mask = visible(query_ids, key_ids, *places, tree=True, window=True)[:, None, None]
    query = query.reshape(batch, queries, keys.shape[2], -1, dim)
    scores = jnp.einsum("btkgd,bskd->bkgts", query, keys, preferred_element_type=jnp.float32) * scale
    scores = scores if soft_cap is None else soft_cap * jnp.tanh(scores / soft_cap)
    weights = jnp.where(mask, jax.nn.softmax(jnp.where(mask, scores, MASKED_SCORE), axis=-1), 0).astype(values.dtype)
    output = jnp.einsum("bkgts,bskd->btkgd", weights, values, preferred_element_type=jnp.float32)
    return output.reshape(batch, queries, heads, dim).astype(query.dtype)


def chunked_attention(
    query: Float[Array, "batch time heads dim"],
    keys: Float[Array, "batch time kv dim"],
    values: Float[Array, "batch time kv dim"],
    schedule: Schedule,
    *,
    scale: float = 1.0,
    soft_cap: float | None = None,
    chunk: int = 512,
) -> Float[Array, "batch time heads dim"]:
    """`masked_attention` over `chunk` queries at a time, forward and backward: memory is linear in time."""
    time = query.shape[1]
    if time <= chunk:
        return masked_attention(query, keys, values, schedule, scale=scale, soft_cap=soft_cap)

    @jax.checkpoint
    def attend(start):
        rows = jax.lax.dynamic_slice_in_dim(query, start, chunk, 1)
        return masked_attention(rows, keys, values, schedule, scale=scale, soft_cap=soft_cap, start=start)

    # The last chunk overlaps the one before it where the length is not a multiple.
    starts = [*range(0, time - chunk, chunk), time - chunk]
    outputs = jax.lax.map(attend, jnp.asarray(starts))
    overlap = starts[-2] + chunk - starts[-1]
    whole = jnp.moveaxis(outputs[:-1], 0, 1).reshape(query.shape[0], -1, *query.shape[2:])
    return jnp.concatenate([whole, outputs[-1][:, overlap:]], axis=1)
