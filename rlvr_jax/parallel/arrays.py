"""Arrays between host and devices, in one process or several."""

from functools import cache
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding

from rlvr_jax.parallel.mesh import replicated


def put(tree: Any, sharding: NamedSharding) -> Any:
    """Arrays of the host as arguments of a jitted function; several processes have the same, and copy their own shards.

    A single device takes arrays of the host from jit, which is faster.
    """
    if sharding.mesh.size == 1:
        return tree
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    # `device_put` would compare the arrays of all processes.
    place = lambda x: jax.make_array_from_callback(x.shape, sharding, np.asarray(x).__getitem__)  # noqa: E731
    return jax.tree.map(place, tree)


def readable(tree: Any) -> Any:
    """The arrays in a form that every process can copy to its host: unchanged in one process, replicated in several.

    The copy is queued on the devices at once, so call it right after the function that computes them.
    """
    arrays = jax.tree.leaves(tree)
    if all(x.is_fully_addressable or x.is_fully_replicated for x in arrays):
        return tree
    return _replicate(arrays[0].sharding.mesh)(tree)


@cache
def _replicate(mesh: Mesh) -> Any:
    return jax.jit(lambda tree: tree, out_shardings=replicated(mesh))
