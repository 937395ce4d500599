"""One layer of the decoder: attention and MLP, each with its norms."""

import math
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from rlvr_jax.kernels.attention import attention
from rlvr_jax.kernels.decode import decode_attention
from rlvr_jax.kernels.platform import product_precision, target_platform
from rlvr_jax.kernels.quantized import dequantized, quantized, rotated, rounded
from rlvr_jax.kernels.schedule import Schedule
from rlvr_jax.kernels.training import training_attention
from rlvr_jax.policy.config import PolicyConfig, lora_scale
from rlvr_jax.policy.rotary import rotate

DENSE_LENGTH = 256


def dense(length: int) -> bool:
    """True if attention of rows of this length keeps all scores in memory: on CPU, short ones; it is faster."""
    return target_platform() == "cpu" and length <= DENSE_LENGTH


def _param(
    module: nn.Module, name: str, shape: tuple[int, ...], axes: tuple[str, ...], init: nn.initializers.Initializer
):
    config: PolicyConfig = module.config
    init = nn.with_logical_partitioning(init, axes)
    return module.param(name, init, shape, config.param_dtype).astype(config.dtype)


def _weight_init(config: PolicyConfig, fan_in: int):
    return nn.initializers.normal(config.init_scale * (config.width / fan_in) ** 0.5)


def _product(x: Array, weight: Array, contract: int = 1) -> Array:
    """Contracts the last `contract` axes of x with the first of weight, as one matrix product.

    With more axes, the weight's gradient makes XLA's CPU back end transpose all activations (tiny model on
    2 cores: 6.3 s for a training step instead of 2.5). Rows that are shared by devices can't be joined into one axis.
    """
    if row_parts() > 1:
        return jnp.tensordot(x, weight, contract, precision=product_precision(x.dtype))
    kept, inner = x.shape[: x.ndim - contract], weight.shape[:contract]
    y = _matmul(x.reshape(-1, math.prod(inner)), weight.reshape(math.prod(inner), -1))
    return y.reshape(*kept, *weight.shape[contract:])


def _dot(x: Float[Array, "n inner"], y: Float[Array, "inner outer"]) -> Float[Array, "n outer"]:
    return jnp.matmul(x, y, precision=product_precision(x.dtype))


@jax.custom_vjp
def _matmul(x: Float[Array, "n inner"], weight: Float[Array, "inner outer"]) -> Float[Array, "n outer"]:
    """`x @ weight`, whose weight gradient is computed with the narrower matrix on the left.

    Both have one row per token. XLA's CPU back end packs the left one across its rows, and takes 1.4 times as long if
    that is the wider one.
    """
    return _dot(x, weight)


def _matmul_forward(x, weight):
    return _dot(x, weight), (x, weight)


def _matmul_backward(kept, gradient):
    x, weight = kept
    if x.shape[1] <= gradient.shape[1]:
        weight_gradient = _dot(x.T, gradient)
    else:  # the barrier keeps the compiler from swapping them back
        weight_gradient = jax.lax.optimization_barrier(_dot(gradient.T, x)).T
    return _dot(gradient, weight.T), weight_gradient


_matmul.defvjp(_matmul_forward, _matmul_backward)


def _adapted(config: PolicyConfig, x: Array, weight: Array, adapter: Any, contract: int = 1) -> Array:
    """`_product`, with a low-rank adapter (see `lora.py`) if there is one for this weight."""
    y = _product(x, weight, contract)
    if adapter is None:
        return y
    inner = _product(x, adapter["a"].astype(config.dtype), contract)
    return y + lora_scale(config) * _product(inner, adapter["b"].astype(config.dtype))


def scale_init(config: PolicyConfig) -> nn.initializers.Initializer:
    """Of the scale parameters of norms, which then multiply by 1."""
    return nn.initializers.constant(1 - config.norm_offset) if config.norm_offset else nn.initializers.ones


def rms_norm(config: PolicyConfig, x: Float[Array, "*n"], scale: Float[Array, "*m"]) -> Float[Array, "*n"]:
    """Over the last axes, those of `scale`; Zhang & Sennrich 2019 (arXiv:1910.07467), eq. 4; computed in float32."""
    x32, axes = x.astype(jnp.float32), tuple(range(-scale.ndim, 0))
    x32 = x32 * jax.lax.rsqrt(jnp.mean(jnp.square(x32), axis=axes, keepdims=True) + config.norm_eps)
    scale = scale.astype(jnp.float32)
    if config.norm_offset:
        scale = scale + config.norm_offset
    return (x32 * scale).astype(x.dtype)


def _gelu_tanh(x: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Hendrycks & Gimpel 2016 (arXiv:1606.08415), section 2, the tanh approximation; in float32, for its cube."""
    return nn.gelu(x.astype(jnp.float32), approximate=True).astype(x.dtype)


_ACTIVATIONS = {"silu": nn.silu, "gelu_tanh": _gelu_tanh}


def _partition(rows: int, heads: int) -> jax.sharding.PartitionSpec | None:
    """Sharding of queries over the mesh in use: rows and heads by the rules of the logical axes, where they divide."""
    mesh = jax.sharding.get_abstract_mesh()
    axes = nn.logical_to_mesh_axes(("batch", "attention_heads"))
    sizes = [math.prod(mesh.shape.get(name, 1) for name in jax.tree.leaves(axis)) for axis in axes]
    rows_axis, heads_axis = (
        axis if size > 1 and count % size == 0 else None
        for axis, size, count in zip(axes, sizes, (rows, heads), strict=True)
    )
    return jax.sharding.PartitionSpec(rows_axis, None, heads_axis) if rows_axis or heads_axis else None


def _self_attention(
    config: PolicyConfig,
    query: Float[Array, "batch time heads dim"],
    keys: Float[Array, "batch time kv dim"],
    values: Float[Array, "batch time kv dim"],
    schedule: Schedule,
) -> Float[Array, "batch time heads dim"]:
    """Self-attention of new tokens. On a mesh each device computes its own rows and heads.

    Where rows are sharded over the axis `context`, devices exchange parts of them for heads and back, as in Jacobs et
    al. 2023 (arXiv:2309.14509), section 3.1. So every device has whole rows of the ids that masks derive from.
    """
    implementation = config.attention
    if implementation == "auto" and dense(schedule.longest):
        implementation = "reference"
    partition = _partition(query.shape[0], query.shape[2])
    if partition and partition[2]:
        shape = jax.sharding.get_abstract_mesh().shape
        devices = math.prod(shape[name] for name in jax.tree.leaves(partition[2]))
        copies = math.lcm(keys.shape[2], devices) // keys.shape[2]
        if copies > 1:  # fewer key/value heads than devices: each has a copy of those that its queries attend to
            keys, values = (jnp.repeat(x, copies, axis=2) for x in (keys, values))
    y = training_attention(query, keys, values, schedule, implementation=implementation, partition=partition)
    return nn.with_logical_constraint(y, ("batch", "length", "heads", None)) if row_parts() > 1 else y


def row_parts() -> int:
    """The number of devices that share each row, on the mesh in use."""
    return jax.sharding.get_abstract_mesh().shape.get("context", 1)


def _append_keys(held, keys, size):
    """The cached keys, whole or in blocks of columns, with new ones written after the first `size`."""
    if held.ndim == 4:
        return jax.lax.dynamic_update_slice_in_dim(held, keys, size, axis=3)
    if keys.shape[3] > 1:
        raise ValueError(f"keys in blocks take one token at a time, not {keys.shape[3]}")
    block, column = jnp.divmod(size, held.shape[4])
    return jax.lax.dynamic_update_slice(held, keys[:, :, None], (0, 0, block, 0, column))


def _appended(own, key, value, size):
    """A layer's cache with new keys and values written after the first `size`; without a cache the new ones."""
    append = partial(jax.lax.dynamic_update_slice_in_dim, start_index=size, axis=2)
    scales = []
    if own is not None and len(own) > 2:
        (key, of_key), (value, of_value) = quantized(key), quantized(value)
        scales = [append(held, x.swapaxes(1, 2)) for held, x in zip(own[2:], (of_key, of_value), strict=True)]
    keys, values = key.transpose(0, 2, 3, 1), value.transpose(0, 2, 1, 3)
    if own is None:
        return keys, values
    keys = _append_keys(own[0], keys.astype(own[0].dtype), size)
    return keys, append(own[1], values.astype(own[1].dtype)), *scales


def _cached_attention(config, query, masks, own, prefix):
    """Attention of new tokens to the cache, which they are already part of."""
    own_mask, prefix_mask = masks
    parts = ((*own[:2], own_mask, *own[2:]),)
    if prefix is not None:
        parts = ((*prefix[:2], prefix_mask, *prefix[2:]), *parts)
    if query.shape[1] > 1 or target_platform() == "cpu":
        return attention(query, tuple(dequantized(part, query.dtype) for part in parts))
    split = _partition(min(part[0].shape[0] for part in parts), own[0].shape[1])  # which have to divide, too
    y = decode_attention(
        query[:, 0],
        tuple((part_keys, part_values, mask[:, 0], *scales) for part_keys, part_values, mask, *scales in parts),
        implementation="reference" if config.attention == "reference" else "auto",
        partition=split and jax.sharding.PartitionSpec(split[0], split[2]),
    )
    return y[:, None]


class Attention(nn.Module):
    """Grouped-query attention with rotary positions."""

    config: PolicyConfig

    @nn.compact
    def __call__(self, x, rotary, reads, own, prefix, size, adapters):
        """Returns the output, and with a cache this layer's arrays with the new tokens in them.

        `reads` gives the visible tokens: a schedule of the new ones, or the masks of both KV segments.
        """
        c = self.config
        projections = []
        for name, heads, axis in [
            ("q", c.num_heads, "heads"),
            ("k", c.num_kv_heads, "kv"),
            ("v", c.num_kv_heads, "kv"),
        ]:
            shape, axes = (c.width, heads, c.head_dim), ("embed", axis, "head_dim")
            weight = _param(self, name, shape, axes, _weight_init(c, c.width))
            y = _adapted(c, x, weight, adapters.get(name))
            if c.qkv_bias:
                y = y + _param(self, f"{name}_bias", shape[1:], axes[1:], nn.initializers.zeros)
            projections.append(y)
        query, key, value = projections
        if c.qk_norm != "none":
            query = rms_norm(c, query, self.qk_scale("q_norm", c.num_heads, "heads"))
            key = rms_norm(c, key, self.qk_scale("k_norm", c.num_kv_heads, "kv"))
        query, key = rotate(query, *rotary) * (c.score_dim or c.head_dim) ** -0.5, rotate(key, *rotary)
        in_8_bits = own is not None and len(own) > 2
        if in_8_bits:
            query, key = rotated(query), rotated(key)
        if isinstance(reads, Schedule):
            key_values = own and _appended(own, key, value, size)
            if in_8_bits:  # what later tokens will attend to
                key, value = rounded(key), rounded(value)
            y = _self_attention(c, query, key, value, reads)
        else:
            key_values = _appended(own, key, value, size)
            y = _cached_attention(c, query, reads, key_values, prefix)
        axes = ("heads", "head_dim", "embed")
        out = _param(self, "out", (c.num_heads, c.head_dim, c.width), axes, _weight_init(c, c.num_heads * c.head_dim))
        return _adapted(c, y, out, adapters.get("out"), contract=2), key_values

    def qk_scale(self, name: str, heads: int, axis: str) -> Array:
        """The scale parameter of the norm of queries or keys: shared by the heads, or over all of them."""
        shape, axes = (heads, self.config.head_dim), (axis, "head_dim")
        if self.config.qk_norm == "head":
            shape, axes = shape[1:], axes[1:]
        return _param(self, name, shape, axes, scale_init(self.config))


class Mlp(nn.Module):
    """SwiGLU or GeGLU; Shazeer 2020 (arXiv:2002.05202), eq. 6."""

    config: PolicyConfig

    @nn.compact
    def __call__(self, x, adapters):
        c = self.config
        gate = _param(self, "gate", (c.width, c.mlp_width), ("embed", "mlp"), _weight_init(c, c.width))
        up = _param(self, "up", (c.width, c.mlp_width), ("embed", "mlp"), _weight_init(c, c.width))
        down = _param(self, "down", (c.mlp_width, c.width), ("mlp", "embed"), _weight_init(c, c.mlp_width))
        gate = _ACTIVATIONS[c.activation](_adapted(c, x, gate, adapters.get("gate")))
        gated = gate * _adapted(c, x, up, adapters.get("up"))
        return _adapted(c, gated, down, adapters.get("down"))


class Layer(nn.Module):
    """Attention and MLP, each added to the residual stream, with norms before them, after them or both."""

    config: PolicyConfig

    @nn.compact
    def __call__(self, x, adapters, *attention_inputs):
        c, adapters = self.config, adapters or {}
        scale = partial(_param, self, shape=(c.width,), axes=("embed",), init=scale_init(c))
        norm = lambda name: partial(rms_norm, c, scale=scale(name))  # noqa: E731
        attention_norm, mlp_norm = norm("attention_norm"), norm("mlp_norm")
        attention = partial(Attention(c, name="attention"), adapters=adapters.get("attention", {}))
        mlp = partial(Mlp(c, name="mlp"), adapters=adapters.get("mlp", {}))
        if c.norm_placement == "post":
            y, key_values = attention(x, *attention_inputs)
            x = x + attention_norm(y)
            x = x + mlp_norm(mlp(x))
        else:
            after = norm if c.norm_placement == "both" else lambda _: lambda y: y
            y, key_values = attention(attention_norm(x), *attention_inputs)
            x = x + after("attention_output_norm")(y)
            x = x + after("mlp_output_norm")(mlp(mlp_norm(x)))
        return nn.with_logical_constraint(x, ("batch", "length", None)), key_values
