"""Slots: sequences that decode concurrently, each replaced by the next one when it has finished. The device functions.

A slot is a row of one KV cache. Every decode step writes the newest token of all slots into the same column of a ring
buffer. Attention masks are derived from positions and segment ids alone, so slots of any age share a column, and a
write is one contiguous update in place. The ring must be wider than the longest sequence.

Outside the ring the KV cache of a sequence is a *row*, right-aligned and without gaps. Three functions operate on
sequences between chunks of decoding:

    append  prefills tokens after those of a row: a prompt, a piece of it, or an observation
    put     copies rows into slots to be decoded
    take    copies slots into rows

A row holds the keys and values of all tokens of its sequence but the last one, which is the slot's `last`; the decode
step of the next token computes them. So a prompt is appended without its last token, and an observation as the last
token of the turn before and all of the observation but its last token.
"""

from collections.abc import Callable
from typing import Any, no_type_check

import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from rlvr_jax import policy
from rlvr_jax.policy import Cache, KeyValues, Params, PolicyConfig
from rlvr_jax.rollout.sampling import Draws, SamplingConfig, draw_next, first_largest


@no_type_check  # as a pytree it may hold shapes or shardings, too
@struct.dataclass
class Tail:
    """The decode state of a sequence besides its KV cache.

    Attributes:
      last: its newest token, whose keys and values have yet to be computed.
      draws: see `sampling.Draws`; its limit is above the number drawn.
    """

    last: Int[Array, "slots"]
    draws: Draws


@no_type_check
@struct.dataclass
class Slots:
    """The state of the decoding loop.

    Attributes:
      cache: the ring; `cache.size` is the column of the next decode step.
      position: of each slot's last token within its sequence.
      active: False for slots that are empty or finished.
      tail: see `Tail`.
    """

    cache: KeyValues
    position: Int[Array, "slots"]
    active: Bool[Array, "slots"]
    tail: Tail


@no_type_check
@struct.dataclass
class Emitted:
    """The output of a chunk of decoding to the host.

    Attributes:
      tokens, logprobs: as in `batches.Samples`; a slot's first `count` are valid.
      count: tokens sampled in each slot in this chunk.
      finish: a key of `FINISH_REASONS` if the slot's sequence has finished in this chunk, otherwise 0.
      steps: decode steps of the chunk; fewer than requested if every sequence has finished.
    """

    tokens: Int[Array, "slots chunk"]
    logprobs: Float[Array, "slots chunk"]
    count: Int[Array, "slots"]
    finish: Int[Array, "slots"]
    steps: Int[Array, ""]


def _arrays(rows: KeyValues) -> tuple[Any, Array, Array]:
    return rows.layers, rows.positions, rows.segment_ids


def _columns(change: Callable[[Array, int], Array], rows: KeyValues) -> KeyValues:
    """`change(array, axis)` of every array, where `axis` is that of the tokens."""
    axes = (3, 2, 2, 2)  # of keys, of values, and of their scales if there are any
    layers = tuple(tuple(map(change, layer, axes)) for layer in rows.layers)
    return KeyValues(layers, change(rows.positions, 1), change(rows.segment_ids, 1), jnp.zeros((), jnp.int32))


def _fit(rows: KeyValues, width: int) -> KeyValues:
    """The last `width` columns, left-padded with empty ones if there are fewer."""
    surplus = rows.positions.shape[1] - width

    def fit(x, axis):
        if surplus >= 0:
            return jax.lax.slice_in_dim(x, surplus, None, axis=axis)
        return jnp.pad(x, [(-surplus * (i == axis), 0) for i in range(x.ndim)])

    return _columns(fit, rows)


def _held(rows: KeyValues) -> Int[Array, "rows"]:
    """The number of tokens in each row."""
    return jnp.sum(rows.segment_ids != 0, axis=1, dtype=jnp.int32)


def empty_rows(config: PolicyConfig, params: Params, count: int, width: int) -> KeyValues:
    """Rows without tokens, `width` columns wide; `params` from `layout.prepare`."""
    return policy.empty_key_values(config, params, count, width)


def empty_slots(config: PolicyConfig, params: Params, width: int, tail: Tail) -> Slots:
    """Slots without sequences and a ring of `width` columns; `params` from `layout.prepare`, `tail` of any values."""
    zeros = jnp.zeros_like(tail.last)
    return Slots(empty_rows(config, params, len(zeros), width), zeros, zeros.astype(bool), tail)


def append(
    config: PolicyConfig,
    params: Params,
    rows: KeyValues,
    tokens: Int[Array, "rows time"],
    counts: Int[Array, "rows"],
    first: bool = False,
) -> KeyValues:
    """The rows with the first `counts` of `tokens` appended; with `first`, rows without tokens.

    A row must be wide enough for all its tokens, or the oldest are lost. The result does not depend on the sizes of the
    appended pieces, up to rounding.
    """
    width, time = rows.positions.shape[1], tokens.shape[1]
    places = jnp.arange(time, dtype=jnp.int32)
    positions = _held(rows)[:, None] + places
    segment_ids = (places < counts[:, None]).astype(jnp.int32)
    room = _columns(lambda x, axis: jnp.pad(x, [(0, time * (i == axis)) for i in range(x.ndim)]), rows)
    cache = Cache(room.replace(size=jnp.int32(width)), empty=first)
    own = policy.forward(config, params, tokens, positions, segment_ids, cache)[1].own

    def last_columns(x, axis):  # those that end with the row's last valid token
        return jax.vmap(lambda x, start: jax.lax.dynamic_slice_in_dim(x, start, width, axis - 1))(x, counts)

    return _columns(last_columns, own)


def put(
    slots: Slots,
    rows: KeyValues,
    count: Int[Array, ""],
    source: Int[Array, "n"],
    target: Int[Array, "n"],
    tail: Tail,
) -> Slots:
    """The slots with sequence `i < count` copied from row `source[i]` into slot `target[i]`, ready to decode.

    Args:
      slots: with a ring wider than the length of the rows.
      rows: unchanged: a prompt's row serves all samples of its group.
      count: number of sequences; later entries of the other arguments are ignored.
      source, target: rows and slots; no slot twice.
      tail: of each sequence.
    """
    cache, held = slots.cache, _held(rows)
    shift = cache.size
    turned = _arrays(_columns(lambda x, axis: jnp.roll(x, shift, axis), _fit(rows, cache.positions.shape[1])))

    def copy(i, ring):
        def copy_row(pool, rows):
            row = jax.lax.dynamic_index_in_dim(rows, source[i])
            return jax.lax.dynamic_update_slice_in_dim(pool, row, target[i], axis=0)

        return jax.tree.map(copy_row, ring, turned)

    # A loop, because the number of sequences is usually small.
    layers, positions, segment_ids = jax.lax.fori_loop(0, count, copy, _arrays(cache))
    number = slots.position.shape[0]
    where = jnp.where(jnp.arange(source.shape[0]) < count, target, number)  # others are out of bounds
    write = lambda x, new: x.at[where].set(new, mode="drop")  # noqa: E731
    return Slots(
        cache=KeyValues(layers, positions, segment_ids, cache.size),
        position=write(slots.position, held[source]),
        active=write(slots.active, jnp.ones(source.shape[0], bool)),
        tail=jax.tree.map(write, slots.tail, tail),
    )


def take(
    slots: Slots, rows: KeyValues, count: Int[Array, ""], source: Int[Array, "n"], target: Int[Array, "n"]
) -> KeyValues:
    """The rows with the sequence in slot `source[i]` copied into row `target[i]`, for `i < count`.

    A finished sequence is intact while the ring is at least as wide as its length plus the decode steps since: take it
    before the next chunk.
    """
    cache, width = slots.cache, rows.positions.shape[1]
    newest_first = jnp.roll(cache.segment_ids, -cache.size, axis=1)[:, ::-1] != 0
    gaps = first_largest(newest_first)  # columns that others have written since the sequence finished

    def copy(i, rows):
        slot = source[i]
        layers, *ids = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, slot), _arrays(cache))
        shift = gaps[slot] - cache.size
        turned = _columns(lambda x, axis: jnp.roll(x, shift, axis), KeyValues(layers, *ids, cache.size))
        write = lambda x, new: jax.lax.dynamic_update_slice_in_dim(x, new, target[i], axis=0)  # noqa: E731
        return jax.tree.map(write, rows, _arrays(_fit(turned, width)))

    layers, positions, segment_ids = jax.lax.fori_loop(0, count, copy, _arrays(rows))
    return KeyValues(layers, positions, segment_ids, rows.size)


def pick(rows: KeyValues, indices: Int[Array, "n"]) -> KeyValues:
    """Copies of these rows; an index of -1 gives a row without tokens."""
    layers, positions, segment_ids = jax.tree.map(lambda x: x[indices], _arrays(rows))
    return KeyValues(layers, positions, jnp.where(indices[:, None] < 0, 0, segment_ids), rows.size)


def resize(slots: Slots, width: int) -> Slots:
    """The slots with a ring of another width, which must fit the longest sequence and a further chunk."""
    cache = slots.cache
    rows = _columns(lambda x, axis: jnp.roll(x, -cache.size, axis), cache)
    return slots.replace(cache=_fit(rows, width))


def decode(
    config: PolicyConfig,
    sampling: SamplingConfig,
    params: Params,
    slots: Slots,
) -> tuple[Slots, Emitted]:
    """Samples up to `sampling.chunk` tokens in every active slot; fewer if all have finished.

    Args:
      config: the policy's architecture.
      sampling: see `SamplingConfig`.
      params: from `layout.prepare`.
      slots: with a ring that fits the longest active sequence and the chunk.
    """
    count, width = slots.cache.positions.shape
    floats = jnp.zeros((count, sampling.chunk), jnp.float32)
    zeros = jnp.zeros(count, jnp.int32)
    out = Emitted(floats.astype(jnp.int32), floats, zeros, zeros, jnp.int32(0))

    def unfinished(state):
        slots, out = state
        return (out.steps < sampling.chunk) & jnp.any(slots.active)

    def step(state):
        slots, out = state
        active, tail = slots.active, slots.tail
        inputs = (tail.last, slots.position, active.astype(jnp.int32))
        hidden, cache = policy.forward(config, params, *(x[:, None] for x in inputs), Cache(slots.cache))
        logits = policy.head_logits(config, params, hidden[:, 0])
        token, logprob, finish = draw_next(sampling, tail.draws, logits)
        finish = jnp.where(active, finish, 0)

        def write(x, new):
            return jax.lax.dynamic_update_slice_in_dim(x, jnp.where(active, new, 0)[:, None], out.steps, axis=1)

        slots = Slots(
            cache=cache.own.replace(size=cache.own.size % width),
            position=slots.position + active,
            active=active & (finish == 0),
            tail=Tail(jnp.where(active, token, tail.last), tail.draws.replace(drawn=tail.draws.drawn + active)),
        )
        out = Emitted(
            tokens=write(out.tokens, token),
            logprobs=write(out.logprobs, logprob),
            count=out.count + active,
            finish=jnp.where(active, finish, out.finish),
            steps=out.steps + 1,
        )
        return slots, out

    return jax.lax.while_loop(unfinished, step, (slots, out))
