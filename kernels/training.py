"""Attention of the training step: one entry point for all kernels."""

from functools import partial
from typing import Any, Literal

import jax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float

from rlvr_jax.kernels.flash import flash_attention
from rlvr_jax.kernels.library import cudnn_attention, splash_attention
from rlvr_jax.kernels.platform import kernels_take, target_platform
from rlvr_jax.kernels.reference import by_branch, chunked_attention, masked_attention
from rlvr_jax.kernels.schedule import Schedule

Implementation = Literal["auto", "pallas", "xla", "splash", "cudnn", "reference"]


def check_platform(implementation: Implementation, platform: str) -> None:
    """Raises ValueError if an implementation of training attention doesn't run on a platform."""
    places = {"pallas": ("tpu", "gpu"), "splash": ("tpu",), "cudnn": ("gpu",)}.get(implementation, (platform,))
    if platform not in places:
        raise ValueError(
            f"attention {implementation!r} runs on {' and '.join(x.upper() for x in places)}, not on "
            f"{platform.upper()}: use 'auto'"
        )


def training_attention(
    query: Float[Array, "batch time heads dim"],
    keys: Float[Array, "batch time kv dim"],
    values: Float[Array, "batch time kv dim"],
    schedule: Schedule,
    *,
    scale: float = 1.0,
    soft_cap: float | None = None,
    implementation: Implementation = "auto",
    partition: PartitionSpec | None = None,
    interpret: Any = False,
) -> Float[Array, "batch time heads dim"]:
    """Causal attention of packed rows, differentiable; queries without visible keys give 0.

    Args:
      query: rotated; head h attends to key/value head h // (heads // kv).
      keys, values: rotated keys, and values.
      schedule: of these rows, from `make_schedule`.
      scale: of the scores; leave it at 1 for queries that are scaled already.
      soft_cap: scores become soft_cap * tanh(scores / soft_cap).
      implementation:
        "pallas": our kernels, on TPU and NVIDIA GPU.
        "xla": plain JAX, a chunk of queries at a time.
        "reference": plain JAX, all scores at once.
        "splash": JAX's, on TPU; no parents.
        "cudnn": on NVIDIA GPU; whole rows only.
        "auto": "pallas" on TPU and GPU if it takes heads of this size, else "xla"; by the devices of the mesh that is
          traced for.
      partition: sharding of the query over the mesh in use, such as P(("data", "fsdp"), None, "tensor"); keys and
        values are sharded alike, the schedule along the batch. Each device then runs the kernel on its own rows and
        heads. None: one device, or left to the compiler, which can shard "xla" and "reference" only.
      interpret: run "pallas" and "splash" without their platform, for tests.

    Raises:
      ValueError: what the implementation doesn't support; the message names what it does.
    """
    platform = target_platform()
    if implementation == "auto":
        implementation = "pallas" if kernels_take(platform, query.shape[3], query.dtype) else "xla"
    if not interpret:
        check_platform(implementation, platform)
    attend = {
        "pallas": partial(flash_attention, interpret=interpret),
        "xla": partial(by_branch, chunked_attention),
        "splash": partial(splash_attention, interpret=bool(interpret)),
        "cudnn": cudnn_attention,
        "reference": partial(by_branch, masked_attention),
    }.get(implementation)
    if attend is None:
        names = ", ".join(Implementation.__args__)
        raise ValueError(f"attention {implementation!r} is not one of {names}")
    attend = partial(attend, scale=scale, soft_cap=soft_cap)
    if partition is None:
        return attend(query, keys, values, schedule)
    rows = PartitionSpec(*partition[:1])
    return jax.shard_map(
        attend, in_specs=(partition, partition, partition, rows), out_specs=partition, check_vma=False
    )(query, keys, values, schedule)
