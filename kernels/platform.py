"""The platform that code being traced will run on."""

import jax


def target_platform() -> str:
    """ "tpu", "gpu" or "cpu": of the mesh in use, which may be of devices that aren't here; else of this process."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    platform = jax.default_backend() if device is None else device.platform
    return "gpu" if platform in ("cuda", "rocm") else platform
