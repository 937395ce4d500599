"""Memory of sampling on one device: weights, KV cache and temporaries; the layout and the batch that fit.

Estimates by arithmetic on the sizes of the policy. `memory` is always in bytes on one device, and `tensor` the number
of devices that share the parameters.
"""

import math
from collections.abc import Callable
from functools import partial

from rlvr_jax.kernels.tiles import LANES
from rlvr_jax.policy.config import PolicyConfig

USABLE = 0.9  # of a device's memory; the rest is for the compiler's own temporaries and fragmentation
_LOGITS = 4  # float32 arrays of logits in a decode step: raw, scaled, their exponentials, cumulative sums


def tensor_sizes(config: PolicyConfig, devices: int, rows: int) -> list[int]:
    """The tensor parallelisms of sampling that divide the devices, heads and MLP, and whose groups divide the rows.

    Args:
      config: the policy's architecture.
      devices: that sample.
      rows: prompts of a batch, or slots.
    """
    divides = lambda tensor: not (devices % tensor or config.num_heads % tensor or config.mlp_width % tensor)  # noqa: E731
    return [x for x in range(1, devices + 1) if divides(x) and rows % (devices // x) == 0]


def weight_bytes(config: PolicyConfig, tensor: int = 1) -> int:
    """The sampler's copy of the parameters."""
    c, split = config, lambda size: size if size % tensor else size // tensor
    heads, kv = split(c.num_heads) * c.head_dim, _own_heads(c, tensor) * c.head_dim
    layer = c.width * (2 * heads + 2 * kv + 3 * split(c.mlp_width) + 2) + (heads + 2 * kv) * c.qkv_bias
    tables = (1 if c.tie_embeddings else 2) * split(c.vocab_size) * c.width
    return (c.num_layers * layer + tables) * _itemsize(config)


def cache_bytes(config: PolicyConfig, rows: int, length: int, tensor: int = 1, platform: str = "cpu") -> int:
    """Bytes of the keys and values of all layers for `length` tokens in each of `rows` rows, on one device.

    TPUs pad the last axes: tokens of the keys and of the scales of 8 bits, head size of the values.
    """
    heads = _own_heads(config, tensor)
    pad = LANES if platform == "tpu" else 1
    columns, dim = (-(-size // pad) * pad for size in (length, config.head_dim))
    numbers = config.head_dim * columns + length * dim
    vectors = numbers + 2 * 4 * columns if config.cache_dtype == "int8" else numbers * _itemsize(config)
    return config.num_layers * rows * heads * vectors


def prompt_bytes(
    config: PolicyConfig, prompt: int, response: int, group: int, tensor: int = 1, platform: str = "cpu"
) -> int:
    """One prompt and its samples in a static batch: the larger of prefill and decoding.

    Prefill holds the activations of one layer; decoding the KV cache of all samples, masks, and logits.

    Args:
      config: the policy's architecture.
      prompt, response: lengths that memory is allocated for.
      group: samples of the prompt.
      tensor: see above.
      platform: of the devices.
    """
    c, cache = config, partial(cache_bytes, config, tensor=tensor, platform=platform)
    wide = 2 * c.mlp_width + 2 * (c.num_heads + c.num_kv_heads) * c.head_dim
    layer = (3 * c.width + wide // tensor) * _itemsize(config)
    masks = (prompt + response) * (1 + c.num_heads // c.num_kv_heads)
    samples = cache(group, response) + group * (masks + _LOGITS * 4 * c.vocab_size)
    return cache(1, prompt) + max(prompt * layer, samples)


def slot_bytes(
    config: PolicyConfig, prompt: int, window: int, group: int, tensor: int = 1, platform: str = "cpu"
) -> int:
    """One slot: its columns of the ring, a kept row, and its share of the rows that are prefilled and put.

    Args:
      config: the policy's architecture.
      prompt: maximum tokens of a prompt.
      window: maximum tokens of an episode.
      group: slots that share a prompt.
      tensor: see above.
      platform: of the devices.
    """
    columns = 2 * window + -(-(3 * prompt + 2 * window) // group)
    masks = window * (1 + config.num_heads // config.num_kv_heads)
    return cache_bytes(config, 1, columns, tensor, platform) + masks + _LOGITS * 4 * config.vocab_size


def smallest_tensor(
    config: PolicyConfig, devices: int, rows: int, each: Callable[[int], int], memory: int | None
) -> int:
    """The smallest of `tensor_sizes` at which weights and cache fit; the largest if none does.

    It is enough if a cache as large as the weights fits: the rows are then decoded in parts, and reading the weights
    takes at most half of the time.

    Args:
      config: the policy's architecture.
      devices: that sample.
      rows: prompts of a batch, or slots.
      each: `tensor` -> bytes of one of these.
      memory: left on a device; None if unknown: everything fits.
    """
    sizes = tensor_sizes(config, devices, rows)
    for tensor in sizes if memory is not None else sizes[:1]:
        weights = weight_bytes(config, tensor)
        if memory is None or weights + min(weights, rows * tensor // devices * each(tensor)) <= memory:
            return tensor
    return sizes[-1]


def fitting(number: int, each: int, memory: int, shards: int) -> int:
    """A batch size for `number` items of `each` bytes: a multiple of `shards`, in as few equal batches as fit.

    At least one item per shard, whatever the memory.
    """
    most = max(1, memory // each) * shards
    batches = math.ceil(number / most)
    return math.ceil(number / (batches * shards)) * shards


def _own_heads(config: PolicyConfig, tensor: int) -> int:
    """Key/value heads of a device, see `rlvr_jax.rollout.layout.decoded`."""
    return math.lcm(config.num_kv_heads, tensor) // tensor


def _itemsize(config: PolicyConfig) -> int:
    return 2 if config.dtype == "bfloat16" else 4
