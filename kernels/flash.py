"""Flash attention for training: packed, windowed and shared-prefix rows by one schedule, forward and backward.

The kernels are in `flash_tpu` and `flash_gpu`; this module has their common checks, layout and gradient rule.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

from rlvr_jax.kernels import flash_gpu, flash_tpu, flash_tpu_backward
from rlvr_jax.kernels.online_softmax import LOG2_E
from rlvr_jax.kernels.platform import GPU_SIZES, gpu_head_sizes
from rlvr_jax.kernels.schedule import Schedule
from rlvr_jax.kernels.tiles import LANES


class Options(NamedTuple):
    """Options shared by the forward and backward kernels."""

    soft_cap: float | None
    interpret: Any


def flash_attention(
    query: Float[Array, "batch time heads dim"],
    keys: Float[Array, "batch time kv dim"],
    values: Float[Array, "batch time kv dim"],
    schedule: Schedule,
    *,
    scale: float = 1.0,
    soft_cap: float | None = None,
    interpret=False,
) -> Float[Array, "batch time heads dim"]:
    """Attention by the rule of `schedule.visible`, with gradients. Queries without visible keys give 0.

    Args:
      query: rotated; head h attends to key/value head h // (heads // kv).
      keys, values: rotated keys, and values.
      schedule: of these rows, from `make_schedule`; its platform is that of the kernels.
      scale: of the scores; leave it at 1 for queries that are scaled already.
      soft_cap: scores become soft_cap * tanh(scores / soft_cap).
      interpret: for tests without that platform, as in `pl.pallas_call`.

    Returns:
      The output in the query's dtype.

    Raises:
      ValueError: shapes or dtypes that the kernel doesn't support, or blocks that don't fit the chip's memory.
    """
    check(query, keys, values, schedule, compiled=not interpret)
    batch, time, heads, dim = query.shape
    kv, padded = keys.shape[2], schedule.ids.shape[-1]
    # One more rounding of the query, and one less multiplication per score.
    query = (query.astype(jnp.float32) * (scale * LOG2_E)).astype(query.dtype)
    pad = [(0, 0), (0, padded - time), (0, 0), (0, 0)]
    query, keys, values = (jnp.pad(x, pad) for x in (query, keys, values))
    query = query.reshape(batch, padded, kv, heads // kv, dim).transpose(0, 2, 3, 1, 4)
    keys, values = keys.transpose(0, 2, 1, 3), values.transpose(0, 2, 1, 3)
    output = _attend(query, keys, values, schedule, Options(soft_cap, interpret))
    return output.transpose(0, 3, 1, 2, 4).reshape(batch, padded, heads, dim)[:, :time]


def check(query: jax.Array, keys: jax.Array, values: jax.Array, schedule: Schedule, *, compiled: bool) -> None:
    """Raises ValueError, naming what is supported, for arrays and blocks that the kernels can't take.

    Args:
      compiled: False for interpret mode, which takes head sizes and blocks of any size.
    """
    dtypes = {x.dtype.name for x in (query, keys, values)}
    if len(dtypes) > 1 or not dtypes <= {"bfloat16", "float32"}:
        raise ValueError(f"attention kernels take bfloat16 or float32, alike, not {', '.join(sorted(dtypes))}")
    shape, kv = query.shape, keys.shape[2]
    if keys.shape != values.shape or keys.shape[:2] != shape[:2] or keys.shape[3] != shape[3] or shape[2] % kv:
        raise ValueError(
            f"attention kernels take keys and values of the query's batch, time and head size, and a number of heads "
            f"that divides the query's: query {shape}, keys {keys.shape}, values {values.shape}"
        )
    if schedule.ids.shape[0] != shape[0] or schedule.time != shape[1]:
        raise ValueError(
            f"the schedule is of {schedule.ids.shape[0]} rows of {schedule.time} tokens, the query of {shape[:2]}"
        )
    if not compiled:
        return
    blocks = f"not block_q={schedule.block_q} and block_k={schedule.block_k}"
    if schedule.platform == "tpu":
        if shape[3] % 64:
            raise ValueError(f"attention kernels on TPU take head sizes that are multiples of 64, not {shape[3]}")
        if schedule.block_q % LANES or schedule.block_k % LANES:
            raise ValueError(f"attention kernels on TPU take blocks that are multiples of {LANES}, {blocks}")
    else:
        if shape[3] not in gpu_head_sizes(query.dtype):
            sizes = ", ".join(map(str, gpu_head_sizes(query.dtype)))
            raise ValueError(f"attention kernels on GPU take {query.dtype} heads of {sizes}, not {shape[3]}")
        if not {schedule.block_q, schedule.block_k} <= set(GPU_SIZES):
            raise ValueError(f"attention kernels on GPU take blocks of {', '.join(map(str, GPU_SIZES))}, {blocks}")


@partial(jax.custom_vjp, nondiff_argnums=(4,))
def _attend(query, keys, values, schedule, options):
    """In the kernels' layout: [batch, kv, group, time, dim], [batch, kv, time, dim]. Products are scores in base 2."""
    return _attend_forward(query, keys, values, schedule, options)[0]


def _attend_forward(query, keys, values, schedule, options):
    kernels = flash_tpu if schedule.platform == "tpu" else flash_gpu
    results = kernels.forward(query, keys, values, schedule, options.soft_cap, options.interpret)
    # By this name a rematerialisation policy can keep them, so that the forward kernel runs once.
    output, log_sum = (checkpoint_name(x, "attention") for x in results)
    return output, (query, keys, values, schedule, output, log_sum)


def _attend_backward(options, saved, gradient):
    query, keys, values, schedule, output, log_sum = saved
    kernels = flash_tpu_backward if schedule.platform == "tpu" else flash_gpu
    # The softmax normaliser's term in the gradient of the scores, one number per query.
    delta = jnp.sum(gradient.astype(jnp.float32) * output.astype(jnp.float32), axis=-1)
    inputs = (query, keys, values, gradient, log_sum, delta)
    return *kernels.gradients(*inputs, schedule, options.soft_cap, options.interpret), None


_attend.defvjp(_attend_forward, _attend_backward)
