"""Attention kernels of other libraries behind our interface, as baselines."""

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as masks
from jaxtyping import Array, Float

from rlvr_jax.kernels.schedule import KEY_SEGMENT, Schedule


def cudnn_attention(
    query: Float[Array, "batch time heads dim"],
    keys: Float[Array, "batch time kv dim"],
    values: Float[Array, "batch time kv dim"],
    schedule: Schedule,
    *,
    scale: float = 1.0,
    soft_cap: float | None = None,
) -> Float[Array, "batch time heads dim"]:
    """cuDNN's attention, through `jax.nn.dot_product_attention`.

    Raises:
      ValueError: packed rows or a soft cap, which it doesn't have.
    """
    if schedule.packed or soft_cap is not None:
        raise ValueError(
            "attention 'cudnn' is causal attention over whole rows: it takes no segment ids, no parents and no soft "
            "cap; use 'pallas'"
        )
    window = None if schedule.window is None else (schedule.window - 1, 0)
    return jax.nn.dot_product_attention(
        query, keys, values, scale=scale, is_causal=True, local_window_size=window, implementation="cudnn"
    )


def splash_attention(
    query: Float[Array, "batch time heads dim"],
    keys: Float[Array, "batch time kv dim"],
    values: Float[Array, "batch time kv dim"],
    schedule: Schedule,
    *,
    scale: float = 1.0,
    soft_cap: float | None = None,
    interpret: bool = False,
) -> Float[Array, "batch time heads dim"]:
    """JAX's splash attention, for TPU.

    Raises:
      ValueError: rows with parents, which it doesn't have.
    """
    if schedule.tree:
        raise ValueError("attention 'splash' has no shared prefixes: it takes no parents; use 'pallas'")
    time, heads = query.shape[1:3]
    padded = time + -time % 128
    pad = [(0, 0), (0, padded - time), (0, 0), (0, 0)]
    query = (query.astype(jnp.float32) * scale).astype(query.dtype)
    query, keys, values = (jnp.pad(x, pad).transpose(0, 2, 1, 3) for x in (query, keys, values))
    shape = (padded, padded)
    window = None if schedule.window is None else (schedule.window - 1, 0)
    mask = masks.CausalMask(shape) if window is None else masks.LocalMask(shape, window, 0)
    block = next(size for size in (512, 256, 128) if padded % size == 0)
    sizes = splash.BlockSizes(
        block_q=block,
        block_kv=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        use_fused_bwd_kernel=True,
    )
    attend = splash.make_splash_mha(
        masks.MultiHeadMask([mask] * heads),
        block_sizes=sizes,
        head_shards=1,
        q_seq_shards=1,
        attn_logits_soft_cap=soft_cap,
        interpret=interpret,
    )
    segments = jnp.pad(schedule.ids[:, KEY_SEGMENT, :time], pad[:2])
    output = jax.vmap(attend)(query, keys, values, splash.SegmentIds(segments, segments))
    return output.transpose(0, 2, 1, 3)[:, :time]
