"""Meshes and shardings."""

from rlvr_jax.parallel.arrays import put, readable
from rlvr_jax.parallel.mesh import (
    AXES,
    RULES,
    MeshConfig,
    batch_sharding,
    make_mesh,
    mesh_shape,
    param_shardings,
    replicated,
    use_mesh,
)
from rlvr_jax.parallel.processes import Processes, connected

__all__ = [
    "AXES",
    "RULES",
    "MeshConfig",
    "Processes",
    "batch_sharding",
    "connected",
    "make_mesh",
    "mesh_shape",
    "param_shardings",
    "put",
    "readable",
    "replicated",
    "use_mesh",
]
