"""Checksums of what a checkpoint holds, because the file format does not detect a flipped bit."""

import json
import zlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, UInt32


def checksum_of_json(host: Mapping[str, Any]) -> int:
    """32 bits of JSON data."""
    return zlib.crc32(json.dumps(host, sort_keys=True).encode())


def checksums_of(arrays: Mapping[str, Any]) -> dict[str, int]:
    """Of each array 32 bits that change with any single flipped bit of it."""
    return {name: int(x) for name, x in jax.device_get({name: _checksum(x) for name, x in arrays.items()}).items()}


@jax.jit  # compiled once per shape, shared by parameters and optimizer moments
def _checksum(x: Array) -> UInt32[Array, ""]:
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
