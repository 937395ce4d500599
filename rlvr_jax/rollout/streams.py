"""The random streams of episodes, computed on the host: the device may be busy."""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Key, UInt32

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))  # bits, of even and odd rounds of four
_PARITY = 0x1BD11BDA

Stream = UInt32[np.ndarray, "words"]  # raw key data, see `jax.random.key_data`


def stream_of(key: Key[Array, ""] | Stream) -> Stream:
    """The raw data of a key."""
    return key if isinstance(key, np.ndarray) else np.asarray(jax.random.key_data(key))


def fold_in(stream: Stream, *numbers: int) -> Stream:
    """`jax.random.fold_in` of integers, one after the other."""
    for number in numbers:
        stream = episode_keys(stream, [number])[0]
    return stream


def episode_keys(key: Key[Array, ""] | Stream, numbers: Sequence[int]) -> UInt32[np.ndarray, "episodes words"]:
    """The key of each episode's random stream, `jax.random.fold_in(key, number)`, in the form of `Request.key`.

    Source: Threefry-2x32 with 20 rounds, Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", section
    3.3; JAX folds a number into each pair of words of a key of its kinds "threefry2x32", the default, and "rbg" by
    enciphering (0, number).
    """
    pairs = stream_of(key).reshape(-1, 2, 1)
    keys = np.stack([pairs[:, 0], pairs[:, 1], pairs[:, 0] ^ pairs[:, 1] ^ np.uint32(_PARITY)])
    a = np.broadcast_to(keys[0], (len(pairs), len(numbers)))
    b = keys[1] + np.asarray(numbers, np.uint32)
    for i in range(5):
        for bits in _ROTATIONS[i % 2]:
            a = a + b
            b = a ^ (b << np.uint32(bits) | b >> np.uint32(32 - bits))
        a, b = a + keys[(i + 1) % 3], b + keys[(i + 2) % 3] + np.uint32(i + 1)
    return np.stack([a, b]).transpose(2, 1, 0).reshape(len(numbers), 2 * len(pairs))
