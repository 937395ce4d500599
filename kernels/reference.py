"""Training attention in plain JAX: the baseline of the kernels, and the implementation where there is none."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from rlvr_jax.kernels.online_softmax import MASKED_SCORE
from rlvr_jax.kernels.platform import product_precision
from rlvr_jax.kernels.schedule import KEY_POSITION, KEY_SEGMENT, NOBODY, QUERY_SEGMENT, Schedule, visible


def masked_attention(
    query: Float[Array, "batch queries heads dim"],
    keys: Float[Array, "batch keys kv dim"],
    values: Float[Array, "batch keys kv dim"],
    schedule: Schedule,
    *,
    scale: float = 1.0,
    soft_cap: float | None = None,
    start: int | jax.Array | None = None,
    keep_scores: bool = True,
) -> Float[Array, "batch queries heads dim"]:
    """Attention by the rule of `visible`, with all scores in memory. Queries without visible keys give 0.

    Args:
      query: the queries from index `start` of the rows on.
      keys, values: of the rows, at least up to the last query; head h attends to head h // (heads // kv).
      schedule: only its ids are used.
      scale: of the scores.
      soft_cap: scores become soft_cap * tanh(scores / soft_cap).
      start: None if the last query is the last key's.
      keep_scores: name them, so that a rematerialisation policy may keep them for the backward pass.

    Source: Vaswani et al. 2017 (arXiv:1706.03762), eq. 1.
    """
    (batch, queries, _, dim), (_, time, kv, _) = query.shape, keys.shape
    start = time - queries if start is None else start
    keys, values = keys.transpose(0, 2, 1, 3), values.transpose(0, 2, 1, 3)
    rows = query.reshape(batch, queries, kv, -1, dim).transpose(0, 2, 1, 3, 4).reshape(batch, kv, -1, dim)
    key_ids = [schedule.ids[:, row, None, :time] for row in (KEY_SEGMENT, KEY_POSITION)]
    own_ids = jax.lax.dynamic_slice_in_dim(schedule.ids, start, queries, axis=2)
    query_ids = [own_ids[:, QUERY_SEGMENT + i, :, None] for i in range(3)]
    places = start + np.arange(queries)[:, None], np.arange(time)
    mask = visible(query_ids, key_ids, *places, tree=schedule.tree, window=schedule.window is not None)

    options = {"precision": product_precision(query.dtype), "preferred_element_type": jnp.float32}
    scores = jnp.einsum("bkrd,bksd->bkrs", rows, keys, **options)
    scores = checkpoint_name(scores, "scores") if keep_scores else scores
    scores = scores if scale == 1.0 else scores * scale
    scores = scores if soft_cap is None else soft_cap * jnp.tanh(scores / soft_cap)
    scores = jnp.where(mask[:, None, :, None], scores.reshape(batch, kv, queries, -1, time), MASKED_SCORE)
    weights = jax.nn.softmax(scores, axis=-1).astype(values.dtype).reshape(batch, kv, -1, time)
    output = jnp.einsum("bkrs,bksd->bkrd", weights, values, **options)
    output = output.reshape(batch, kv, queries, -1, dim).transpose(0, 2, 1, 3, 4).reshape(query.shape)
    return checkpoint_name(jnp.where(query_ids[0][..., None] == NOBODY, 0, output).astype(query.dtype), "attention")


def chunked_attention(
    query: Float[Array, "batch queries heads dim"],
    keys: Float[Array, "batch keys kv dim"],
    values: Float[Array, "batch keys kv dim"],
    schedule: Schedule,
    *,
    scale: float = 1.0,
    soft_cap: float | None = None,
    chunk: int = 256,
) -> Float[Array, "batch queries heads dim"]:
    """`masked_attention` over chunks of queries, forward and backward: memory is linear in time.

    The queries, the last ones of the rows, are divided into up to four sections, each of which attends only to the keys
    up to its own end.

    Args:
      chunk: maximum number of queries at a time.
    """
    (batch, count), time = query.shape[:2], keys.shape[1]
    first = time - count
    sections = min(4, -(-count // chunk))
    pieces = -(-count // (sections * chunk))
    size = -(-count // (sections * pieces))  # queries of a piece
    pad = [(0, 0), (0, sections * pieces * size - count), (0, 0), (0, 0)]
    tail = [(0, 0), (0, 0), pad[1]]  # ids of padding queries, which attend to nothing
    schedule = schedule.replace(ids=jnp.pad(schedule.ids[..., :time], tail, constant_values=NOBODY))
    rows = jnp.pad(query, pad).reshape(batch, sections, pieces, size, *query.shape[2:])

    def section(number):
        stop = min(first + (number + 1) * pieces * size, time)
        own = keys[:, :stop], values[:, :stop]

        @jax.checkpoint
        def attend(piece):
            rows, start = piece
            options = {"scale": scale, "soft_cap": soft_cap, "start": start, "keep_scores": False}
            return masked_attention(rows, *own, schedule, **options)

        starts = first + (number * pieces + jnp.arange(pieces)) * size
        outputs = jax.lax.map(attend, (jnp.moveaxis(rows[:, number], 1, 0), starts))
        return jnp.moveaxis(outputs, 0, 1).reshape(batch, pieces * size, *query.shape[2:])

    return jnp.concatenate([section(number) for number in range(sections)], axis=1)[:, :count]


def by_branch(
    attend: Callable[..., Array],
    query: Float[Array, "batch time heads dim"],
    keys: Float[Array, "batch time kv dim"],
    values: Float[Array, "batch time kv dim"],
    schedule: Schedule,
    **options: float | None,
) -> Float[Array, "batch time heads dim"]:
    """`attend`, one of the two above, without the scores between the responses of a row, which all are hidden.

    In rows with `Schedule.branches` each response is a row of its own, with a copy of the prompt's keys and values.
    """
    if schedule.branches is None:
        return attend(query, keys, values, schedule, **options)
    prompt, response = schedule.branches
    batch, time = query.shape[:2]
    branches = (time - prompt) // response
    stop = prompt + branches * response  # columns behind it are padding

    def own(x):
        return x[:, prompt:stop].reshape(batch * branches, response, *x.shape[2:])

    def whole(x):
        return jnp.concatenate([jnp.repeat(x[:, :prompt], branches, axis=0), own(x)], axis=1)

    ids = jnp.moveaxis(whole(jnp.moveaxis(schedule.ids, 2, 1)), 1, 2)
    first = attend(query[:, :prompt], keys[:, :prompt], values[:, :prompt], schedule, **options)
    rest = attend(own(query), whole(keys), whole(values), schedule.replace(ids=ids), **options)
    rest = jnp.pad(rest.reshape(batch, -1, *query.shape[2:]), ((0, 0), (0, time - stop), (0, 0), (0, 0)))
    return jnp.concatenate([first, rest], axis=1)
