"""From hidden states to logits, log-probabilities and entropies, in float32."""

import math
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Int

from rlvr_jax.kernels.platform import product_precision
from rlvr_jax.policy.config import PolicyConfig
from rlvr_jax.policy.model import Params, forward


def head_logits(config: PolicyConfig, params: Params, hidden: Float[Array, "*n width"]) -> Float[Array, "*n vocab"]:
    """Float32 logits of final hidden states."""
    table = params.get("head", params["embed"]).astype(config.dtype)
    return (_products if config.dtype == "float32" else _mixed_products)(hidden, table)


def _products(hidden: Float[Array, "*n width"], table: Float[Array, "vocab width"]) -> Float[Array, "*n vocab"]:
    options = {"precision": product_precision(hidden.dtype), "preferred_element_type": jnp.float32}
    return jnp.einsum("...w,vw->...v", hidden, table, **options)


@jax.custom_vjp
def _mixed_products(hidden: Float[Array, "*n width"], table: Float[Array, "vocab width"]) -> Float[Array, "*n vocab"]:
    """`_products` in bfloat16, also for the gradients, like all other products (Micikevicius et al. 2017,
    arXiv:1710.03740): JAX would multiply by the logits' gradient in float32, at half the speed on GPU."""
    return _products(hidden, table)


def _mixed_products_backward(kept, gradient):
    hidden, table = kept
    rows = gradient.reshape(-1, gradient.shape[-1]).astype(hidden.dtype)
    multiply = partial(jnp.matmul, preferred_element_type=jnp.float32)
    d_hidden, d_table = multiply(rows, table), multiply(rows.T, hidden.reshape(-1, hidden.shape[-1]))
    return d_hidden.reshape(hidden.shape).astype(hidden.dtype), d_table.astype(table.dtype)


_mixed_products.defvjp(lambda *operands: (_products(*operands), operands), _mixed_products_backward)


def logits(config: PolicyConfig, params: Params, tokens: Int[Array, "batch time"]) -> Float[Array, "batch time vocab"]:
    """Float32 logits of whole sequences without padding: the plain entry for notebooks and tests."""
    positions = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
    hidden, _ = forward(config, params, tokens, positions, jnp.ones_like(tokens))
    return head_logits(config, params, hidden)


def logprobs_and_entropy(
    config: PolicyConfig,
    params: Params,
    hidden: Float[Array, "batch time width"],
    targets: Int[Array, "batch time"],
    temperature: float = 1.0,
) -> tuple[Float[Array, "batch time"], Float[Array, "batch time"]]:
    """Log-probability of each target and entropy of its distribution softmax(logits / temperature), in nats.

    With `config.head_chunk` set, the logits of only that many tokens per device are in memory at a time, also in the
    backward pass. On a mesh each device computes its own rows of the batch and shard of the vocabulary; the shards are
    combined as in Shoeybi et al. 2019 (arXiv:1909.08053), section 3: devices exchange four numbers per token.
    """
    table = params.get("head", params["embed"])
    rows, time, vocab = map(_partition, ("batch", "length", "vocab"), (*hidden.shape[:2], table.shape[0]))
    if not rows and not time and not vocab:
        return _in_chunks(config, (), table, hidden, targets, temperature)
    # Sharded by hand: the compiler would shard the axis of the loop, and all-reduce logits.
    width = tuple(name for name in _partition("embed", table.shape[1]) if name in (*rows, *time))
    tokens = PartitionSpec(rows, time)
    local = jax.shard_map(
        partial(_on_device, config, (*rows, *time), vocab, width),
        in_specs=(PartitionSpec(vocab, width), tokens, tokens, PartitionSpec()),
        out_specs=tokens,
    )
    return local(table.astype(config.dtype), hidden, targets, jnp.float32(temperature))


def _partition(axis: str, size: int) -> tuple[str, ...]:
    """The mesh axes over which a logical axis of this size is sharded."""
    mesh = jax.sharding.get_abstract_mesh()
    names = nn.logical_to_mesh_axes((axis,))[0]
    if mesh.empty or names is None:
        return ()
    names = (names,) if isinstance(names, str) else names
    parts = math.prod(mesh.shape[name] for name in names)
    return names if parts > 1 and size % parts == 0 else ()


def rows_per_device(rows: int) -> int:
    """The rows of a batch that each device of the mesh in use has."""
    mesh = jax.sharding.get_abstract_mesh()
    return rows // math.prod(mesh.shape[name] for name in _partition("batch", rows))


def _on_device(config: PolicyConfig, tokens: tuple[str, ...], vocab: tuple[str, ...], width, table, hidden, *inputs):
    """`_in_chunks` of this device's tokens and its shard of the table, which is also sharded over the axes `width`."""
    if width:
        table = jax.lax.all_gather(table, width, axis=1, tiled=True)
    # Each device accumulates a local gradient of the shared table; one sum over devices follows the loop.
    table = jax.lax.pcast(table, tuple(name for name in tokens if name not in width), to="varying")
    hidden = jax.lax.pcast(hidden, vocab, to="varying")
    return _in_chunks(config, vocab, table.astype(config.param_dtype), hidden, *inputs)


def _in_chunks(config: PolicyConfig, vocab: tuple[str, ...], table, hidden, targets, temperature):
    """Log-probabilities and entropies, from a table that is sharded over the axes `vocab`."""

    def chunk(inputs):
        return _merged(head_logits(config, {"embed": table}, inputs[0]) / temperature, inputs[1], vocab)

    shape, count = targets.shape, targets.size
    hidden, targets = hidden.reshape(count, -1), targets.reshape(count)
    size = config.head_chunk
    if size <= 0 or count <= size:
        logprobs, entropy = chunk((hidden, targets))
    else:
        chunks = -(-count // size)
        pad = chunks * size - count
        hidden = jnp.pad(hidden, ((0, pad), (0, 0))).reshape(chunks, size, -1)
        targets = jnp.pad(targets, (0, pad)).reshape(chunks, size)
        logprobs, entropy = (x.reshape(-1)[:count] for x in jax.lax.map(jax.checkpoint(chunk), (hidden, targets)))
    return logprobs.reshape(shape), entropy.reshape(shape)


def _merged(
    scaled: Float[Array, "n part"], targets: Int[Array, "n"], vocab: tuple[str, ...]
) -> tuple[Float[Array, "n"], Float[Array, "n"]]:
    """Log-probabilities and entropies from logits of a shard of the vocabulary, or of all of it."""
    size = scaled.shape[1]
    # Shifted by the largest logit, so that small entropies are computed from small numbers: they keep their precision
    # and are never negative. The results don't depend on the shift.
    top = jax.lax.stop_gradient(jnp.max(scaled, axis=-1))
    place = targets
    if vocab:
        top = jax.lax.pmax(top, vocab)
        place = targets - jax.lax.axis_index(vocab) * size
    scaled -= top[:, None]
    weights = jnp.exp(scaled)
    chosen = jnp.take_along_axis(scaled, jnp.clip(place, 0, size - 1)[:, None], axis=-1)[:, 0]
    sums = jnp.sum(weights, axis=-1), jnp.sum(weights * scaled, axis=-1), chosen
    if vocab:
        sums = jax.lax.psum((*sums[:2], jnp.where((place >= 0) & (place < size), chosen, 0)), vocab)
    normalizer, product, chosen = sums
    log_normalizer = jnp.log(normalizer)
    return chosen - log_normalizer, log_normalizer - product / normalizer
