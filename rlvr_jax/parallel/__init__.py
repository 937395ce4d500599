"""Meshes and shardings."""

from rlvr_jax.parallel.arrays import put, readable
from rlvr_jax.parallel.mesh import (
    AXES,
    HOST,
    RULES,
    AnyDevice,
    AnyMesh,
    MeshConfig,
    batch_sharding,
    bytes_on_device,
    device_memory,
    devices_of,
    make_mesh,
    mesh_shape,
    moved_to,
    param_shardings,
    received_bytes,
    replicated,
    rollout_mesh,
    use_mesh,
)
from rlvr_jax.parallel.processes import Processes, connected

__all__ = [
    "AXES",
    "HOST",
    "RULES",
    "AnyDevice",
    "AnyMesh",
    "MeshConfig",
    "Processes",
    "batch_sharding",
    "bytes_on_device",
    "connected",
    "device_memory",
    "devices_of",
    "make_mesh",
    "mesh_shape",
    "moved_to",
    "param_shardings",
    "put",
    "readable",
    "received_bytes",
    "replicated",
    "rollout_mesh",
    "use_mesh",
]
