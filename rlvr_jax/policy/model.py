"""The decoder: one function for training, prefill and decoding.

`forward` takes tokens with their positions and segment ids, and optionally a cache, and returns hidden states and the
cache. Attention masks are derived from positions, segment ids and the segments' parents alone, so packing, padding,
shared prefixes and decoding share one code path. With a tuple of layers instead of stacked ones (`unstack`) `forward`
computes the same, unrolled.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, no_type_check

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from rlvr_jax.kernels.attention import KEY_BLOCK
from rlvr_jax.kernels.platform import target_platform
from rlvr_jax.kernels.schedule import Schedule, make_schedule
from rlvr_jax.policy.config import PolicyConfig
from rlvr_jax.policy.layers import Layer, dense, rms_norm, row_parts, scale_init
from rlvr_jax.policy.rotary import rotary

Params = Any  # {"embed", "layers", "norm", optionally "head", and "adapters" (see `lora.py`)}
ADAPTERS = "adapters"

_kept = jax.checkpoint_policies
_products = _kept.dots_with_no_batch_dims_saveable  # those with weights
# Attention, whatever computes it, names what it gives "attention", and scores that it has in memory "scores".
_REMAT = {
    "none": _kept.save_from_both_policies(_products, _kept.save_only_these_names("attention", "scores")),
    "dots": _kept.save_from_both_policies(_products, _kept.save_only_these_names("attention")),
    "full": _kept.save_only_these_names("attention"),
}
_UNROLLED = 2  # layers that run without a loop: with so few, to copy into and out of its stacked arrays takes long


@no_type_check  # as a pytree it may hold shapes or shardings, too
@struct.dataclass
class KeyValues:
    """A KV segment: keys and values of every layer for consecutive tokens.

    Attributes:
      layers: (keys `[batch, kv, dim, length]`, values `[batch, kv, length, dim]`) of each layer: a tuple of such
        pairs, or one pair of arrays stacked along a leading layer axis, whichever the layers' parameters are. Keys may
        be in blocks of columns, `[batch, kv, length / KEY_BLOCK, dim, KEY_BLOCK]`. Quantised ones are followed by their
        float32 scales, `[batch, kv, length]` each.
      positions: of each token within its sequence.
      segment_ids: the sequence of each token; 0 for empty columns and padding.
      size: number of filled columns; the next tokens are written from here.
    """

    layers: Any
    positions: Int[Array, "batch length"]
    segment_ids: Int[Array, "batch length"]
    size: Int[Array, ""]


@no_type_check  # as a pytree it may hold shapes or shardings, too
@struct.dataclass
class Cache:
    """The KV cache.

    Attributes:
      own: one row per row of the batch; new tokens are appended to it.
      prefix: read-only; its batch may be a divisor of the batch: each row is shared by a group of consecutive rows.
      empty: True if there is no prefix and nothing in `own`. New tokens then attend to each other only, as in training:
        except on CPU with few of them, memory is linear in their number.
    """

    own: KeyValues
    prefix: KeyValues | None = None
    empty: bool = struct.field(pytree_node=False, default=False)


def _init_boxed(config: PolicyConfig, key: Array) -> Params:
    """Parameters, each in a box with the names of its axes."""
    normal = nn.initializers.normal(config.init_scale)
    box = lambda init, axes, shape, i: nn.with_logical_partitioning(init, axes)(  # noqa: E731
        jax.random.fold_in(key, i), shape, config.param_dtype
    )
    x, positions = jnp.zeros((1, 1, config.width)), jnp.zeros((1, 1), jnp.int32)
    mask = jnp.ones((1, 1, 1), bool)
    turns = rotary(config, "none", positions)

    def init_layer(layer):
        inputs = (x, None, turns, (mask, None), None, None, 0)
        return Layer(config).init(jax.random.fold_in(jax.random.fold_in(key, 2), layer), *inputs)["params"]

    layers = jax.lax.map(init_layer, jnp.arange(config.num_layers))  # compiles in half the time of jax.vmap
    layers = jax.tree.map(lambda leaf: leaf.replace(names=("layers", *leaf.names)), layers, is_leaf=_is_box)
    params = {
        "embed": box(normal, ("vocab", "embed"), (config.vocab_size, config.width), 0),
        "layers": layers,
        "norm": box(scale_init(config), ("embed",), (config.width,), 1),
    }
    if not config.tie_embeddings:
        params["head"] = box(normal, ("vocab", "embed"), (config.vocab_size, config.width), 3)
    return params


@partial(jax.jit, static_argnames="config")
def init(config: PolicyConfig, key: Array) -> Params:
    """Random parameters: a pytree of plain arrays, those of the layers stacked along their first axis."""
    return nn.unbox(_init_boxed(config, key))


def shapes(config: PolicyConfig) -> Params:
    """Shape and dtype of every parameter, in the pytree of `init`."""
    return jax.tree.map(lambda box: box.value, _boxes(config), is_leaf=_is_box)


def logical_axes(config: PolicyConfig) -> Params:
    """The names of the axes of every parameter, as `PartitionSpec`s of logical names in the pytree of `init`."""
    return nn.get_partition_spec(_boxes(config))


def _boxes(config: PolicyConfig) -> Params:
    return _traced_boxes(replace(config, remat="none", head_chunk=0))  # what changes no parameter


@lru_cache(maxsize=32)
def _traced_boxes(config: PolicyConfig) -> Params:
    return jax.eval_shape(partial(_init_boxed, config), jax.random.key(0))


def _is_box(x: Any) -> bool:
    return isinstance(x, nn.LogicallyPartitioned)


def unstack(params: Params) -> Params:
    """The same parameters with a tuple of layers.

    For the decoding loop: slicing a layer out of stacked arrays would copy every weight for every token.
    """
    count = jax.tree.leaves(params["layers"])[0].shape[0]
    stacked = {name: params[name] for name in ("layers", ADAPTERS) if name in params}
    layers = [jax.tree.map(lambda x, i=i: x[i], stacked) for i in range(count)]
    return params | {name: tuple(layer[name] for layer in layers) for name in stacked}


def empty_key_values(
    config: PolicyConfig, params: Params, batch: int, length: int, one_by_one: bool = False
) -> KeyValues:
    """An empty KV segment for `length` tokens in each of `batch` rows, laid out like the layers of `params`.

    With `one_by_one`, every call of `forward` appends one token. On CPU the keys are then stored in blocks.
    """
    blocks = (-(-length // KEY_BLOCK),) if one_by_one and length > KEY_BLOCK and target_platform() == "cpu" else ()
    length = blocks[0] * KEY_BLOCK if blocks else length
    columns = KEY_BLOCK if blocks else length
    dtype = config.dtype if config.cache_dtype == "same" else config.cache_dtype
    keys = jnp.zeros((batch, config.num_kv_heads, *blocks, config.head_dim, columns), dtype)
    values = jnp.zeros((batch, config.num_kv_heads, length, config.head_dim), dtype)
    scales = jnp.zeros((batch, config.num_kv_heads, length), jnp.float32)
    pair = (keys, values) if config.cache_dtype == "same" else (keys, values, scales, scales)
    if isinstance(params["layers"], tuple):
        layers = tuple(pair for _ in params["layers"])
    else:
        layers = jax.tree.map(lambda x: jnp.zeros((config.num_layers, *x.shape), x.dtype), pair)
    zeros = jnp.zeros((batch, length), jnp.int32)
    return KeyValues(layers, zeros, zeros, jnp.zeros((), jnp.int32))


def cache_widths(length: int) -> tuple[int, ...]:
    """The lengths that a KV segment for up to `length` tokens takes, one after the other, while it fills.

    On CPU, where attention reads all columns, filled or not, a quarter, half and all of them, in whole blocks.
    """
    parts = (4, 2, 1) if target_platform() == "cpu" else (1,)
    return tuple(sorted({min(length, -(-length // (part * KEY_BLOCK)) * KEY_BLOCK) for part in parts}))


def widened(own: KeyValues, empty: KeyValues) -> KeyValues:
    """The tokens of a KV segment in a longer one, which was empty; both are for one token at a time."""

    def filled(new: Array, old: Array) -> Array:
        old = old[:, :, None] if old.ndim < new.ndim else old  # keys of one block
        return jax.lax.dynamic_update_slice(new, old, (0,) * new.ndim)

    return jax.tree.map(filled, empty, own)


def _may_read(window, positions, segment_ids, key_positions, key_segment_ids) -> Bool[Array, "batch time length"]:
    """A token attends to its own sequence up to its own position, or to the last `window` tokens of that."""
    same = segment_ids[:, :, None] == key_segment_ids[:, None, :]
    read = same & (key_positions[:, None, :] <= positions[:, :, None]) & (key_segment_ids[:, None, :] != 0)
    if window:
        read &= key_positions[:, None, :] > positions[:, :, None] - window
    return read


def _masks(positions, segment_ids, own: KeyValues, prefix: KeyValues | None, window: int):
    """The masks of a cache's two KV segments for the new tokens."""
    may_read = partial(_may_read, window, positions, segment_ids)
    if prefix is None:
        return may_read(own.positions, own.segment_ids), None
    group = positions.shape[0] // prefix.positions.shape[0]
    shared = (jnp.repeat(x, group, axis=0) for x in (prefix.positions, prefix.segment_ids))
    return may_read(own.positions, own.segment_ids), may_read(*shared)


def _append(own: KeyValues, positions, segment_ids) -> KeyValues:
    """The cache with the positions and ids of new tokens; the layers write their keys and values."""
    write = partial(jax.lax.dynamic_update_slice_in_dim, start_index=own.size, axis=1)
    return own.replace(
        positions=write(own.positions, positions),
        segment_ids=write(own.segment_ids, segment_ids),
        size=own.size + positions.shape[1],
    )


def _by_layer(pattern: Sequence[Any], num_layers: int, make: Callable[[Any], Any]) -> tuple[list[Any], list[int]]:
    """The result of `make` for each distinct entry of a pattern, and each layer's index into these."""
    entries = [pattern[i % len(pattern)] for i in range(num_layers)]
    distinct = sorted(set(entries))
    return [make(entry) for entry in distinct], [distinct.index(entry) for entry in entries]


def _remat(config: PolicyConfig, function: Callable, looped: bool) -> Callable:
    """The function of a layer, rematerialised as `config.remat` asks.

    Without a policy JAX would keep the results of every cheap operation, some of them several times: more memory than
    the matrix products, and slower than recomputing them.

    Args:
      config: with the policy of rematerialisation.
      function: of a layer.
      looped: True in a loop, whose backward pass XLA can't let read the forward pass's results instead.
    """
    remat = "none" if config.remat == "auto" else config.remat
    return jax.checkpoint(function, policy=_REMAT[remat], prevent_cse=not looped and remat != "none")


def _computed_once(tree: Any, size: Int[Array, ""]) -> Any:
    """The same arrays, which XLA's CPU back end would otherwise compute again in every operation that reads them.

    XLA doesn't look past a condition, and can't know that no size is negative.
    """
    if target_platform() != "cpu":
        return tree
    return jax.lax.cond(size >= 0, lambda tree: tree, partial(jax.tree.map, jnp.zeros_like), tree)


def _unrolled(config: PolicyConfig, layer: Callable, kinds, reads, x, inputs):
    """The layers one after the other; their inputs are tuples."""
    (kinds, kind_of), (reads, read_of), outputs = kinds, reads, []
    for i in range(config.num_layers):
        run = _remat(config, partial(layer, kinds[kind_of[i]], reads[read_of[i]]), looped=False)
        x, output = run(x, tuple(part and part[i] for part in inputs))
        outputs.append(output)
    return x, tuple(outputs)


def _scanned(config: PolicyConfig, layer: Callable, kinds, reads, x, inputs):
    """A scan over stacked layers, no loop if there are few. A scanned index selects layers of different kinds."""

    def stack(options, indices):
        if len(options) == 1:
            return options[0], None
        windows = [option.window for option in options if isinstance(option, Schedule) and option.window]
        if windows:  # windows are in the ids; only their presence must be known
            options = [option.replace(window=windows[0]) for option in options]
        return jax.tree.map(lambda *x: jnp.stack(x), *options), jnp.array(indices)

    def choose(options, index):
        return options if index is None else jax.tree.map(lambda x: x[index], options)

    (kinds, kind_of), (reads, read_of) = stack(*kinds), stack(*reads)

    def step(x, inputs):
        *inputs, kind, read = inputs  # selected inside the layer, so that the backward pass keeps only the indices
        return layer(choose(kinds, kind), choose(reads, read), x, tuple(inputs))

    loop = config.num_layers > _UNROLLED
    unroll = 1 if loop else config.num_layers
    return jax.lax.scan(_remat(config, step, looped=loop), x, (*inputs, kind_of, read_of), unroll=unroll)


def forward(
    config: PolicyConfig,
    params: Params,
    tokens: Int[Array, "batch time"],
    positions: Int[Array, "batch time"],
    segment_ids: Int[Array, "batch time"],
    cache: Cache | None = None,
    parents: Int[Array, "batch time"] | None = None,
    branches: tuple[int, int] | None = None,
) -> tuple[Float[Array, "batch time width"], Cache | None]:
    """Runs the decoder.

    Args:
      config: the architecture.
      params: from `init` or `unstack`.
      tokens: token ids.
      positions: of each token within its sequence, from 0.
      segment_ids: the sequence of each token, from 1; 0 is padding.
      cache: of earlier tokens; the new ones are appended to `cache.own`, which must have space for them.
      parents: the segment that a token's segment continues, and also attends to; 0 for none. A parent precedes its
        children in the row, and their positions continue its own. Without a cache only; a cache has `prefix` instead.
      branches: of rows with parents, see `make_schedule`.

    Returns:
      Final hidden states (after the last norm), and the cache with the new tokens in it (None without a cache).

    Raises:
      ValueError: parents with a cache, or an input that `config.attention` doesn't support.
    """
    own = prefix = None
    time = tokens.shape[1]
    if cache is None and time % row_parts():  # columns behind the branches, if there are any
        pad = partial(jnp.pad, pad_width=((0, 0), (0, -time % row_parts())))
        tokens, positions, segment_ids = pad(tokens), pad(positions), pad(segment_ids)
        parents = None if parents is None else pad(parents)
    group = config.num_heads // config.num_kv_heads
    schedule = partial(make_schedule, positions, segment_ids, parents, group=group, branches=branches)
    reads = lambda window: schedule(window=window or None)  # noqa: E731
    if cache is not None:
        if parents is not None:
            raise ValueError("parents are for rows without a cache; with one, use `cache.prefix` for the shared prompt")
        own, prefix = _append(cache.own, positions, segment_ids), cache.prefix
        if dense(tokens.shape[1]) or not cache.empty:
            reads = partial(_masks, positions, segment_ids, own, prefix)
    kinds = _by_layer(config.rope_pattern, config.num_layers, lambda kind: rotary(config, kind, positions))
    reads = _by_layer(config.window_pattern, config.num_layers, reads)

    def layer(turn, reads, x, inputs):
        layer_params, adapters, *segments = inputs
        attention_inputs = (turn, reads, *segments, cache and cache.own.size)
        return Layer(config).apply({"params": layer_params}, x, adapters, *attention_inputs)

    x = params["embed"].astype(config.dtype)[tokens]
    if config.scale_embeddings:
        x = x * jnp.asarray(config.width**0.5, x.dtype)
    x = nn.with_logical_constraint(x, ("batch", "length", None))
    inputs = (params["layers"], params.get(ADAPTERS), own and own.layers, prefix and prefix.layers)
    run = _unrolled if isinstance(params["layers"], tuple) else _scanned
    if cache is not None and run is _unrolled:
        kinds = _computed_once(kinds[0], cache.own.size), kinds[1]
    x, key_values = run(config, layer, kinds, reads, x, inputs)
    hidden = rms_norm(config, x, params["norm"])[:, :time]
    return hidden, cache and cache.replace(own=own.replace(layers=key_values), empty=False)
