"""Meshes and shardings."""

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

__all__ = [
    "AXES",
    "RULES",
    "MeshConfig",
    "batch_sharding",
    "make_mesh",
    "mesh_shape",
    "param_shardings",
    "replicated",
    "use_mesh",
]
