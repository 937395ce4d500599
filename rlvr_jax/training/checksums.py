"""Checksums of what a checkpoint holds, because the file format does not detect a flipped bit."""

import json
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped, UInt32

_SMALL = 1 << 16  # elements: to sum them on the host takes less than to compile their sum, once per shape


def checksum_of_json(host: Mapping[str, Any]) -> int:
    """32 bits of JSON data."""
    return zlib.crc32(json.dumps(host, sort_keys=True).encode())


def checksums_of(arrays: Mapping[str, Any]) -> dict[str, int]:
    """Of each array 32 bits that change with any single flipped bit of it."""
    small = {name for name, x in arrays.items() if isinstance(x, Array) and x.size <= _SMALL and x.is_fully_addressable}
    found = jax.device_get({name: x if name in small else on_devices(x) for name, x in arrays.items()})
    return {name: on_host(x) if name in small else int(x) for name, x in found.items()}


def on_host(x: Shaped[np.ndarray, "..."]) -> int:
    """The sum of `on_devices`."""
    words = np.ascontiguousarray(x).reshape(-1).view(f"uint{8 * x.dtype.itemsize}").astype(np.uint32)
    return int(np.sum(words * (2 * np.arange(x.size, dtype=np.uint32) + 1), dtype=np.uint32))


@jax.jit  # compiled once per shape, shared by parameters and optimizer moments
def on_devices(x: Shaped[Array, "..."]) -> UInt32[Array, ""]:
    """A sum over the words of an array with distinct odd weights.

    Integer arithmetic is exact, so it is the same on every device mesh.
    """
    x = jax.device_put(x, jax.memory.Space.Device)  # what is offloaded lies in the host's memory
    x = x.astype(jnp.uint8) if x.dtype == jnp.bool_ else x
    words = jax.lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}").astype(jnp.uint32)
    place = jnp.uint32(0)
    for axis, size in enumerate(x.shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
    return jnp.sum(words * (2 * place + 1), dtype=jnp.uint32)
