"""The platform that code being traced will run on, and the precision of its matrix products."""

import jax
import numpy as np
from jax.typing import DTypeLike

GPU_SIZES = (16, 32, 64, 128, 256)  # of heads and of blocks
_GPU_BYTES = 512  # of a head: its blocks of queries, keys, values and gradients share 227 KiB


def target_platform() -> str:
    """The platform ("tpu", "gpu" or "cpu") of the mesh in use, whose devices may be absent; else of this process."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    platform = jax.default_backend() if device is None else device.platform
    return "gpu" if platform in ("cuda", "rocm") else platform


def product_precision(dtype: DTypeLike) -> jax.lax.Precision:
    """Of matrix products: float32 operands keep all their bits, of which GPUs and TPUs use some by default."""
    return jax.lax.Precision.HIGHEST if dtype == "float32" else jax.lax.Precision.DEFAULT


def kernels_take(platform: str, dim: int, dtype: np.dtype) -> bool:
    """True if there are attention kernels for heads of this size and dtype on a platform."""
    return {"tpu": dim % 64 == 0, "gpu": dim in gpu_head_sizes(dtype)}.get(platform, False)


def gpu_head_sizes(dtype: np.dtype) -> tuple[int, ...]:
    """The head sizes that the kernels on GPU take."""
    return tuple(size for size in GPU_SIZES if size * dtype.itemsize <= _GPU_BYTES)
