"""The platform that code being traced will run on."""

import jax

GPU_SIZES = (16, 32, 64, 128, 256)  # of heads and of blocks


def target_platform() -> str:
    """The platform ("tpu", "gpu" or "cpu") of the mesh in use, whose devices may be absent; else of this process."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    platform = jax.default_backend() if device is None else device.platform
    return "gpu" if platform in ("cuda", "rocm") else platform


def kernels_take(platform: str, dim: int) -> bool:
    """True if there are attention kernels for heads of this size on a platform."""
    return {"tpu": dim % 64 == 0, "gpu": dim in GPU_SIZES}.get(platform, False)
