"""The decoder: one function for training, prefill and decoding.

`forward` takes tokens with their positions and segment ids, and optionally a cache, and returns hidden states and the
cache. Whether a token may read another follows from positions and segment ids alone, so packing, padding and decoding
need no modes. `forward` with a tuple of layers instead of stacked ones (`unstack`) computes the same, unrolled.
"""

import math
from functools import partial
from typing import Any, no_type_check

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jaxtyping import Array, Bool, Float, Int

from rlvr_jax.kernels.attention import attention
from rlvr_jax.policy.config import PolicyConfig

Params = Any  # {"embed", "layers", "norm", optionally "head"}

_REMAT = {"dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable, "full": None}


@no_type_check  # as a pytree it may hold shapes or shardings, too
@struct.dataclass
class KeyValues:
    """Keys and values of every layer for some stretch of tokens.

    Attributes:
      layers: (keys `[batch, kv, dim, length]`, values `[batch, kv, length, dim]`) of each layer: a tuple of such
        pairs, or one pair of arrays stacked along a leading layer axis, whichever the layers' parameters are.
      positions: of each token within its sequence.
      segment_ids: which sequence a token belongs to; 0 marks an empty place or padding.
      size: how many places are filled; the next tokens are written from here.
    """

    layers: Any
    positions: Int[Array, "batch length"]
    segment_ids: Int[Array, "batch length"]
    size: Int[Array, ""]


@no_type_check  # as a pytree it may hold shapes or shardings, too
@struct.dataclass
class Cache:
    """What earlier calls left for later tokens.

    Attributes:
      own: one row for each row of the batch; new tokens are appended to it.
      prefix: read only, and its batch may be a divisor of the batch: each row serves a group of consecutive rows.
    """

    own: KeyValues
    prefix: KeyValues | None = None


def _param(
    module: nn.Module, name: str, shape: tuple[int, ...], axes: tuple[str, ...], init: nn.initializers.Initializer
):
    config: PolicyConfig = module.config
    init = nn.with_logical_partitioning(init, axes)
    return module.param(name, init, shape, config.param_dtype).astype(config.dtype)


def _weight_init(config: PolicyConfig, fan_in: int):
    return nn.initializers.normal(config.init_scale * (config.width / fan_in) ** 0.5)


def _product(x: Array, weight: Array, contract: int = 1) -> Array:
    """Contracts the last `contract` axes of x with the first of weight, as one product of two matrices.

    Written with more axes, the weight's gradient makes XLA's CPU back end transpose all activations (tiny model on
    2 cores: 6.3 s for a training step instead of 2.5).
    """
    kept, inner = x.shape[: x.ndim - contract], weight.shape[:contract]
    y = x.reshape(-1, math.prod(inner)) @ weight.reshape(math.prod(inner), -1)
    return y.reshape(*kept, *weight.shape[contract:])


def _rms_norm(x: Float[Array, "... dim"], scale: Float[Array, "dim"], eps: float) -> Float[Array, "... dim"]:
    """Zhang & Sennrich 2019 (arXiv:1910.07467), eq. 4; statistics in float32."""
    x32 = x.astype(jnp.float32)
    x32 = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=-1, keepdims=True) + eps)
    return (x32 * scale.astype(jnp.float32)).astype(x.dtype)


def _rotary(positions: Int[Array, "batch time"], dim: int, theta: float) -> tuple[Array, Array]:
    """Cosines and sines `[batch, time, 1, dim / 2]`; Su et al. 2021 (arXiv:2104.09864), eq. 34."""
    frequencies = theta ** (-jnp.arange(0, dim, 2, dtype=jnp.float32) / dim)
    angles = positions[:, :, None, None].astype(jnp.float32) * frequencies
    return jnp.cos(angles), jnp.sin(angles)


def _rotate(x: Float[Array, "batch time heads dim"], cos: Array, sin: Array) -> Float[Array, "batch time heads dim"]:
    """Rotates each pair (x[i], x[i + dim / 2]), the pairing that Llama-family checkpoints use."""
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


class Attention(nn.Module):
    """Grouped-query attention with rotary positions."""

    config: PolicyConfig

    @nn.compact
    def __call__(self, x, rotary, own_mask, prefix_mask, own, prefix, size):
        """Returns the output, and this layer's (keys, values) with the new tokens in them."""
        c = self.config
        projections = []
        for name, heads, axis in [
            ("q", c.num_heads, "heads"),
            ("k", c.num_kv_heads, "kv"),
            ("v", c.num_kv_heads, "kv"),
        ]:
            shape, axes = (c.width, heads, c.head_dim), ("embed", axis, "head_dim")
            weight = _param(self, name, shape, axes, _weight_init(c, c.width))
            y = _product(x, weight)
            if c.qkv_bias:
                y = y + _param(self, f"{name}_bias", shape[1:], axes[1:], nn.initializers.zeros)
            projections.append(y)
        query, key, value = projections
        if c.qk_norm:
            query = _rms_norm(
                query, _param(self, "q_norm", (c.head_dim,), ("head_dim",), nn.initializers.ones), c.norm_eps
            )
            key = _rms_norm(key, _param(self, "k_norm", (c.head_dim,), ("head_dim",), nn.initializers.ones), c.norm_eps)
        query, key = _rotate(query, *rotary) * c.head_dim**-0.5, _rotate(key, *rotary)
        keys, values = key.transpose(0, 2, 3, 1), value.transpose(0, 2, 1, 3)
        if own is not None:
            keys = jax.lax.dynamic_update_slice_in_dim(own[0], keys.astype(own[0].dtype), size, axis=3)
            values = jax.lax.dynamic_update_slice_in_dim(own[1], values.astype(own[1].dtype), size, axis=2)
        parts = ((keys, values, own_mask),)
        if prefix is not None:
            parts = ((*prefix, prefix_mask), *parts)
        y = attention(query, parts)
        axes = ("heads", "head_dim", "embed")
        out = _param(self, "out", (c.num_heads, c.head_dim, c.width), axes, _weight_init(c, c.num_heads * c.head_dim))
        return _product(y, out, contract=2), (keys, values)


class Mlp(nn.Module):
    """SwiGLU; Shazeer 2020 (arXiv:2002.05202), eq. 6."""

    config: PolicyConfig

    @nn.compact
    def __call__(self, x):
        c = self.config
        gate = _param(self, "gate", (c.width, c.mlp_width), ("embed", "mlp"), _weight_init(c, c.width))
        up = _param(self, "up", (c.width, c.mlp_width), ("embed", "mlp"), _weight_init(c, c.width))
        down = _param(self, "down", (c.mlp_width, c.width), ("mlp", "embed"), _weight_init(c, c.mlp_width))
        return _product(nn.silu(_product(x, gate)) * _product(x, up), down)


class Layer(nn.Module):
    """Pre-norm transformer layer."""

    config: PolicyConfig

    @nn.compact
    def __call__(self, x, *attention_inputs):
        c = self.config
        norm = partial(_param, self, shape=(c.width,), axes=("embed",), init=nn.initializers.ones)
        y, key_values = Attention(c, name="attention")(
            _rms_norm(x, norm("attention_norm"), c.norm_eps), *attention_inputs
        )
        x = x + y
        x = x + Mlp(c, name="mlp")(_rms_norm(x, norm("mlp_norm"), c.norm_eps))
        return nn.with_logical_constraint(x, ("batch", "length", None)), key_values


def _init_boxed(config: PolicyConfig, key: Array) -> Params:
    """Parameters, each in a box that carries the names of its axes."""
    normal, ones = nn.initializers.normal(config.init_scale), nn.initializers.ones
    box = lambda init, axes, shape, i: nn.with_logical_partitioning(init, axes)(  # noqa: E731
        jax.random.fold_in(key, i), shape, config.param_dtype
    )
    x, positions = jnp.zeros((1, 1, config.width)), jnp.zeros((1, 1), jnp.int32)
    mask = jnp.ones((1, 1, 1), bool)
    rotary = _rotary(positions, config.head_dim, config.rope_theta)

    def init_layer(layer):
        inputs = (x, rotary, mask, None, None, None, 0)
        return Layer(config).init(jax.random.fold_in(jax.random.fold_in(key, 2), layer), *inputs)["params"]

    layers = jax.lax.map(init_layer, jnp.arange(config.num_layers))  # compiles in half the time of jax.vmap
    is_box = lambda leaf: isinstance(leaf, nn.LogicallyPartitioned)  # noqa: E731
    layers = jax.tree.map(lambda leaf: leaf.replace(names=("layers", *leaf.names)), layers, is_leaf=is_box)
    params = {
        "embed": box(normal, ("vocab", "embed"), (config.vocab_size, config.width), 0),
        "layers": layers,
        "norm": box(ones, ("embed",), (config.width,), 1),
    }
    if not config.tie_embeddings:
        params["head"] = box(normal, ("vocab", "embed"), (config.vocab_size, config.width), 3)
    return params


@partial(jax.jit, static_argnames="config")
def init(config: PolicyConfig, key: Array) -> Params:
    """Random parameters: a pytree of plain arrays, those of the layers stacked along their first axis."""
    return nn.unbox(_init_boxed(config, key))


def logical_axes(config: PolicyConfig) -> Params:
    """The names of the axes of every parameter, as `PartitionSpec`s of logical names in the pytree of `init`."""
    return nn.get_partition_spec(jax.eval_shape(partial(_init_boxed, config), jax.random.key(0)))


def unstack(params: Params) -> Params:
    """The same parameters with a tuple of layers.

    The decoding loop runs on these: slicing a layer out of stacked arrays would copy every weight for every token.
    """
    count = jax.tree.leaves(params["layers"])[0].shape[0]
    return params | {"layers": tuple(jax.tree.map(lambda x, i=i: x[i], params["layers"]) for i in range(count))}


def empty_key_values(config: PolicyConfig, params: Params, batch: int, length: int) -> KeyValues:
    """Room for `length` tokens in each of `batch` rows, laid out like the layers of `params`."""
    keys = jnp.zeros((batch, config.num_kv_heads, config.head_dim, length), config.dtype)
    pair = (keys, keys.swapaxes(2, 3))
    if isinstance(params["layers"], tuple):
        layers = tuple(pair for _ in params["layers"])
    else:
        layers = jax.tree.map(lambda x: jnp.zeros((config.num_layers, *x.shape), x.dtype), pair)
    zeros = jnp.zeros((batch, length), jnp.int32)
    return KeyValues(layers, zeros, zeros, jnp.zeros((), jnp.int32))


def _may_read(positions, segment_ids, key_positions, key_segment_ids) -> Bool[Array, "batch time length"]:
    """A token reads tokens of its own sequence up to its own position."""
    same = segment_ids[:, :, None] == key_segment_ids[:, None, :]
    return same & (key_positions[:, None, :] <= positions[:, :, None]) & (key_segment_ids[:, None, :] != 0)


def forward(
    config: PolicyConfig,
    params: Params,
    tokens: Int[Array, "batch time"],
    positions: Int[Array, "batch time"],
    segment_ids: Int[Array, "batch time"],
    cache: Cache | None = None,
) -> tuple[Float[Array, "batch time width"], Cache | None]:
    """Runs the decoder.

    Args:
      config: the policy's shape.
      params: from `init` or `unstack`.
      tokens: token ids.
      positions: of each token within its sequence, from 0.
      segment_ids: the sequence that each token belongs to, from 1; 0 is padding.
      cache: earlier tokens; the new ones are appended to `cache.own`, which must have room for them.

    Returns:
      Final hidden states (after the last norm), and the cache with the new tokens in it (None without a cache).
    """
    own = prefix = own_mask = prefix_mask = size = None
    if cache is None:
        own_mask = _may_read(positions, segment_ids, positions, segment_ids)
    else:
        own, prefix, size = cache.own, cache.prefix, cache.own.size
        own = own.replace(
            positions=jax.lax.dynamic_update_slice_in_dim(own.positions, positions, size, axis=1),
            segment_ids=jax.lax.dynamic_update_slice_in_dim(own.segment_ids, segment_ids, size, axis=1),
            size=size + tokens.shape[1],
        )
        own_mask = _may_read(positions, segment_ids, own.positions, own.segment_ids)
        if prefix is not None:
            group = tokens.shape[0] // prefix.positions.shape[0]
            spread = lambda x: jnp.repeat(x, group, axis=0)  # noqa: E731
            prefix_mask = _may_read(positions, segment_ids, spread(prefix.positions), spread(prefix.segment_ids))
    rotary = _rotary(positions, config.head_dim, config.rope_theta)

    def layer(x, inputs):
        layer_params, layer_own, layer_prefix = inputs
        attention_inputs = (rotary, own_mask, prefix_mask, layer_own, layer_prefix, size)
        x, key_values = Layer(config).apply({"params": layer_params}, x, *attention_inputs)
        return x, None if cache is None else key_values

    if config.remat != "none":
        layer = jax.checkpoint(layer, policy=_REMAT[config.remat], prevent_cse=isinstance(params["layers"], tuple))
    x = params["embed"].astype(config.dtype)[tokens]
    x = nn.with_logical_constraint(x, ("batch", "length", None))
    inputs = (params["layers"], own and own.layers, prefix and prefix.layers)
    if isinstance(params["layers"], tuple):
        key_values = []
        for i in range(len(params["layers"])):
            x, layer_key_values = layer(x, tuple(part and part[i] for part in inputs))
            key_values.append(layer_key_values)
        key_values = tuple(key_values)
    else:
        x, key_values = jax.lax.scan(layer, x, inputs)
    hidden = _rms_norm(x, params["norm"], config.norm_eps)
    return hidden, cache and cache.replace(own=own.replace(layers=key_values))
