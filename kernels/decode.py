"""Decode attention: one new token of each sequence attends to the KV cache.

The same function as `attention` for a single query per row, by kernels that fetch only the visible blocks. The cache
comes in KV segments: a prompt shared by a group is one row of a segment, read once for all its samples. A mask gives
the visible columns of each query, and with them the blocks to visit; so a cache may be filled from its start, after
padding, or as a ring buffer.

Every implementation except "reference" goes through the columns in blocks, segment by segment, with the online softmax
of the training kernels. A query therefore gets the training kernel's result to the bit (if a product of matrices
doesn't depend on its number of rows), if the blocks are the same: equal in size, and each segment but the last a whole
number of them.
"""

from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Int8

from rlvr_jax.kernels import decode_gpu, decode_tpu
from rlvr_jax.kernels import online_softmax as softmax
from rlvr_jax.kernels.attention import attention
from rlvr_jax.kernels.online_softmax import LOG2_E
from rlvr_jax.kernels.platform import GPU_SIZES, gpu_head_sizes, kernels_take, target_platform
from rlvr_jax.kernels.quantized import dequantized
from rlvr_jax.kernels.schedule import BlockPairs, block_pairs
from rlvr_jax.kernels.tiles import LANES

Implementation = Literal["auto", "pallas", "xla", "reference"]

# Segments differ in batch and length, which `_` leaves unchecked: jaxtyping binds a name once for all parts.
Part = (
    tuple[
        Float[Array, "_part_batch kv dim _length"],  # keys, transposed: see `attention`
        Float[Array, "_part_batch kv _length dim"],  # values
        Bool[Array, "batch _length"],  # True where a query may attend to a key
    ]
    | tuple[
        Int8[Array, "_part_batch kv dim _length"],
        Int8[Array, "_part_batch kv _length dim"],
        Bool[Array, "batch _length"],
        Float[Array, "_part_batch kv _length"],  # scales of the keys
        Float[Array, "_part_batch kv _length"],  # scales of the values
    ]
)


def decode_attention(
    query: Float[Array, "batch heads dim"],
    parts: tuple[Part, ...],
    *,
    scale: float = 1.0,
    soft_cap: float | None = None,
    implementation: Implementation = "auto",
    block: int | None = None,
    partition: PartitionSpec | None = None,
    interpret: Any = False,
) -> Float[Array, "batch heads dim"]:
    """Softmax attention of one query per row over the keys of all KV segments together. No gradients.

    Args:
      query: rotated; head h attends to key/value head h // (heads // kv).
      parts: (keys, values, mask) of each KV segment, in the order of their tokens; quantised ones are followed by the
        scales of keys and of values (see `quantized`). A segment's batch may be a divisor of the query's: row r then
        attends to segment row r // (batch // part_batch).
      scale: of the scores; leave it at 1 for queries that are scaled already.
      soft_cap: scores become soft_cap * tanh(scores / soft_cap).
      implementation:
        "pallas": our kernels, on TPU and NVIDIA GPU.
        "xla": plain JAX, a block of columns at a time, from the first to the last visible one.
        "reference": plain JAX, all columns at once (`attention`); no soft cap.
        "auto": "pallas" on TPU and GPU if it takes heads of this size, else "reference" ("xla" with a soft cap); by
          the devices of the mesh that is traced for.
      block: maximum number of columns in a block; None: that of the training kernels' keys.
      partition: sharding of the query over the mesh in use, such as P(("data", "fsdp"), "tensor"), and of the segments.
        Each device then runs the kernel on its own rows and heads. None: one device, or left to the compiler, which
        can shard "xla" and "reference" only.
      interpret: run "pallas" without its platform, for tests.

    Returns:
      The output in the query's dtype. A row without visible keys is finite and meaningless.

    Raises:
      ValueError: what the implementation doesn't support; the message names what it does.
    """
    platform = target_platform()
    if implementation == "auto":
        plain = "reference" if soft_cap is None else "xla"
        implementation = "pallas" if kernels_take(platform, query.shape[2], query.dtype) else plain
    if implementation not in Implementation.__args__:
        raise ValueError(f"attention {implementation!r} is not one of {', '.join(Implementation.__args__)}")
    if implementation == "pallas" and platform == "cpu" and not interpret:
        raise ValueError("attention 'pallas' runs on TPU and GPU, not on CPU: use 'auto'")
    check(query, parts)
    attend = {
        "pallas": partial(
            flash_decode, block=block, platform="gpu" if platform == "gpu" else "tpu", interpret=interpret
        ),
        "xla": partial(blockwise, block=block or 512),
        "reference": reference,
    }[implementation]
    attend = partial(attend, scale=scale, soft_cap=soft_cap)
    if partition is None:
        return attend(query, parts)
    rows = PartitionSpec(*partition[:1])
    specs = tuple((partition, partition, rows, *[partition] * len(scales)) for *_, scales in map(_split, parts))
    return jax.shard_map(attend, in_specs=(partition, specs), out_specs=partition, check_vma=False)(query, parts)


def check(query: jax.Array, parts: tuple[Part, ...]) -> None:
    """Raises ValueError for shapes that don't go together."""
    batch, heads, dim = query.shape
    if not parts:
        raise ValueError("decode attention takes at least one KV segment")
    for keys, values, mask, _ in map(_split, parts):
        rows, kv, _, length = keys.shape
        wanted = (rows, kv, dim, length), (rows, kv, length, dim), (batch, length)
        if (keys.shape, values.shape, mask.shape) != wanted or heads % kv or batch % rows:
            raise ValueError(
                f"decode attention takes keys [part, kv, dim, length], values [part, kv, length, dim] and a mask "
                f"[batch, length], where part divides batch and kv divides heads: query {query.shape}, keys "
                f"{keys.shape}, values {values.shape}, mask {mask.shape}"
            )


def reference(query, parts: tuple[Part, ...], *, scale: float = 1.0, soft_cap: float | None = None):
    """`attention` for one query per row: all columns at once.

    Raises:
      ValueError: a soft cap, which it doesn't have.
    """
    if soft_cap is not None:
        raise ValueError("attention 'reference' has no soft cap in decoding: use 'xla' or 'pallas'")
    query = query if scale == 1.0 else (query.astype(jnp.float32) * scale).astype(query.dtype)
    parts = (dequantized(part, query.dtype) for part in parts)
    return attention(query[:, None], tuple((*vectors, mask[:, None]) for *vectors, mask in parts))[:, 0]


def blockwise(query, parts: tuple[Part, ...], *, scale: float = 1.0, soft_cap: float | None = None, block: int = 512):
    """A block of columns at a time, from the first to the last that is visible to any row."""
    batch, _, dim = query.shape
    rows = _by_kv_head(_in_base_2(query, scale), parts)
    kv, repeat = rows.shape[1:3]
    carry = jax.tree.map(lambda x: jnp.broadcast_to(x, (batch, kv, *x.shape)), softmax.start(repeat, dim))
    step = partial(softmax.step, soft_cap=soft_cap)
    step = jax.vmap(jax.vmap(step, (0, 0, 0, 0, None)))  # rows of the segment, key/value heads
    for keys, values, mask in (dequantized(part, query.dtype) for part in parts):
        part, length = keys.shape[0], keys.shape[3]
        size = min(block, length)
        used = jnp.pad(mask.any(0), (0, -length % size)).reshape(-1, size).any(1)
        first, stop = jnp.argmax(used), used.shape[0] - jnp.argmax(used[::-1])
        tile = _share(rows, part)

        def body(number, carry, keys=keys, values=values, mask=mask, tile=tile, size=size, part=part, length=length):
            at = jnp.minimum(number * size, length - size)  # the last block overlaps with the one before
            cut = partial(jax.lax.dynamic_slice_in_dim, start_index=at, slice_size=size)
            new = cut(mask, axis=1) & (at + jnp.arange(size) >= number * size)
            reads = jnp.repeat(new.reshape(part, batch // part, size), repeat, axis=1)
            return step(carry, tile, cut(keys, axis=3).swapaxes(2, 3), cut(values, axis=2), reads)

        carry = jax.tree.map(partial(_share, part=part), carry)
        carry = jax.lax.fori_loop(first, stop, body, carry)
        carry = jax.tree.map(partial(_unshare, batch=batch), carry)
    output, _ = jax.vmap(jax.vmap(softmax.finish))(carry)
    return output.reshape(query.shape).astype(query.dtype)


def flash_decode(
    query,
    parts: tuple[Part, ...],
    *,
    scale: float = 1.0,
    soft_cap: float | None = None,
    block: int | None = None,
    platform: Literal["tpu", "gpu"] = "tpu",
    interpret: Any = False,
):
    """The kernels. On TPU the segments are processed one after the other; on GPU concurrently, and then merged.

    Raises:
      ValueError: sizes or dtypes that the kernel doesn't support, or blocks that don't fit the chip's memory.
    """
    block = block or (64 if platform == "gpu" else 512)
    _check_kernel(query, parts, block, platform, compiled=not interpret)
    batch = query.shape[0]
    rows = _by_kv_head(_in_base_2(query, scale), parts)
    carry = None
    for number, (keys, values, mask, scales) in enumerate(map(_split, parts)):
        part, size = keys.shape[0], _block_of(keys.shape[3], block, platform)
        reads, steps = _blocks(mask, part, rows.shape[2], size)
        inputs = _share(rows, part), keys, values, reads, steps, size
        if platform == "tpu":
            last = number + 1 == len(parts)
            before = None if carry is None else jax.tree.map(partial(_share, part=part), carry)
            result = decode_tpu.attend(
                *inputs, before, scales=scales, last=last, soft_cap=soft_cap, interpret=interpret
            )
            carry = jax.tree.map(partial(_unshare, batch=batch), result)
        else:
            result = decode_gpu.attend(*inputs, scales=scales, soft_cap=soft_cap, interpret=interpret)
            result = jax.tree.map(lambda x: _unshare(x, batch).reshape(-1, x.shape[-1]), result)
            carry = result if carry is None else softmax.merge(carry, result)
    output = carry if platform == "tpu" else softmax.finish(carry)[0].reshape(rows.shape)
    return output.reshape(query.shape).astype(query.dtype)


def _check_kernel(query, parts, block: int, platform: str, *, compiled: bool) -> None:
    floats = (x for keys, values, _, scales in map(_split, parts) if not scales for x in (keys, values))
    dtypes = {x.dtype.name for x in (query, *floats)}
    if len(dtypes) > 1 or not dtypes <= {"bfloat16", "float32"}:
        raise ValueError(
            f"decode kernels take bfloat16 or float32, alike, and 8 bits with scales, not {', '.join(sorted(dtypes))}"
        )
    if not compiled:
        return
    dim = query.shape[2]
    if platform == "tpu":
        if dim % 64:
            raise ValueError(f"decode kernels on TPU take head sizes that are multiples of 64, not {dim}")
        if block % LANES:
            raise ValueError(f"decode kernels on TPU take blocks that are multiples of {LANES}, not {block}")
    elif dim not in gpu_head_sizes(query.dtype) or block not in GPU_SIZES:
        heads, blocks = (", ".join(map(str, sizes)) for sizes in (gpu_head_sizes(query.dtype), GPU_SIZES))
        raise ValueError(
            f"decode kernels on GPU take {query.dtype} heads of {heads} and blocks of {blocks}, not {dim} and {block}"
        )


def _split(part) -> tuple[jax.Array, jax.Array, jax.Array, tuple[jax.Array, ...]]:
    """(keys, values, mask, scales) of a KV segment; no scales if it is not quantised."""
    keys, values, mask, *scales = part
    return keys, values, mask, tuple(scales)


def _block_of(columns: int, block: int, platform: str) -> int:
    """The block size for few columns. On TPU no wider than these: a whole number of registers, or all columns."""
    return block if platform == "gpu" else min(block, columns // LANES * LANES or columns)


def _blocks(mask: Bool[Array, "batch columns"], part: int, repeat: int, block: int) -> tuple[Array, BlockPairs]:
    """Visibility of keys to queries [part, group * repeat, blocks * block], and the blocks that each row visits."""
    batch, columns = mask.shape
    mask = jnp.pad(mask, ((0, 0), (0, -columns % block))).reshape(part, batch // part, -1)
    by_block = mask.reshape(*mask.shape[:2], -1, block)
    active, full = by_block.any((1, 3)), by_block.all((1, 3))
    active = active.at[:, 0].set(active[:, 0] | ~active.any(1))  # every row of the output must be written
    return jnp.repeat(mask.astype(jnp.int8), repeat, axis=1), block_pairs(
        active[None], full[None], capacity=active.size
    )


def _in_base_2(query, scale: float):
    """The query whose products are scores in base 2, rounded as in the training kernels."""
    return (query.astype(jnp.float32) * (scale * LOG2_E)).astype(query.dtype)


def _by_kv_head(query, parts):
    """[batch, heads, dim] to [batch, kv, heads of each, dim]."""
    return query.reshape(query.shape[0], parts[0][0].shape[1], -1, query.shape[2])


def _share(x, part: int):
    """[batch, kv, rows, n] to [part, kv, rows that share a row of the segment, n]."""
    batch, kv, _, n = x.shape
    if part == batch:
        return x
    return x.reshape(part, batch // part, *x.shape[1:]).swapaxes(1, 2).reshape(part, kv, -1, n)


def _unshare(x, batch: int):
    """The inverse of `_share`."""
    part, kv, _, n = x.shape
    if part == batch:
        return x
    return x.reshape(part, kv, batch // part, -1, n).swapaxes(1, 2).reshape(batch, kv, -1, n)
