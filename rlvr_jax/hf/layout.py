"""The mapping of the tensors of a Hugging Face checkpoint to the policy's parameters."""

import os
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np

from rlvr_jax.hf.safetensors import aligned_empty
from rlvr_jax.policy.config import PolicyConfig

THREADS = min(8, os.cpu_count() or 1)  # for `transposed`
_BLOCK = 16  # rows of 4 bytes that fill a cache line


@dataclass(frozen=True)
class Entry:
    """One tensor of a checkpoint.

    Attributes:
      name, shape: in the checkpoint.
      path: of its parameter.
      layer: its index in the stacked parameter; None for one that is not stacked.
      ours: its shape there.
      row_axis: the axis of `ours` that holds the checkpoint's rows. If it is not the first, the tensor is transposed:
        the checkpoint stores linear maps as [outputs, inputs].
    """

    name: str
    shape: tuple[int, ...]
    path: tuple[str, ...]
    layer: int | None
    ours: tuple[int, ...]
    row_axis: int = 0


def entries(config: PolicyConfig) -> list[Entry]:
    """Every tensor of a checkpoint of this architecture."""
    table, width = (config.vocab_size, config.width), (config.width,)
    found = [
        Entry("model.embed_tokens.weight", table, ("embed",), None, table),
        Entry("model.norm.weight", width, ("norm",), None, width),
    ]
    for layer in range(config.num_layers):
        prefix = f"model.layers.{layer}."
        found += [
            Entry(prefix + name, shape, ("layers", *path), layer, ours, row_axis)
            for name, shape, path, ours, row_axis in _in_layer(config)
        ]
    if not config.tie_embeddings:
        found.append(Entry("lm_head.weight", table, ("head",), None, table))
    return found


def _in_layer(c: PolicyConfig) -> Iterator[tuple]:
    """(name, shape, path, our shape, row axis) of the tensors of a layer."""
    for name, heads in (("q", c.num_heads), ("k", c.num_kv_heads), ("v", c.num_kv_heads)):
        rows = heads * c.head_dim
        path = ("attention", name)
        yield f"self_attn.{name}_proj.weight", (rows, c.width), path, (c.width, heads, c.head_dim), 1
        if c.qkv_bias:
            yield f"self_attn.{name}_proj.bias", (rows,), ("attention", f"{name}_bias"), (heads, c.head_dim), 0
        if c.qk_norm != "none" and name != "v":
            ours = (c.head_dim,) if c.qk_norm == "head" else (heads, c.head_dim)
            yield f"self_attn.{name}_norm.weight", (int(np.prod(ours)),), ("attention", f"{name}_norm"), ours, 0
    inner = c.num_heads * c.head_dim
    yield "self_attn.o_proj.weight", (c.width, inner), ("attention", "out"), (c.num_heads, c.head_dim, c.width), 2
    for name in ("gate", "up"):
        yield f"mlp.{name}_proj.weight", (c.mlp_width, c.width), ("mlp", name), (c.width, c.mlp_width), 1
    yield "mlp.down_proj.weight", (c.width, c.mlp_width), ("mlp", "down"), (c.mlp_width, c.width), 1
    norms = ("input_layernorm", "post_attention_layernorm")
    if c.norm_placement == "post":
        norms = ("post_attention_layernorm", "post_feedforward_layernorm")
    for name, ours in zip(norms, ("attention_norm", "mlp_norm"), strict=True):
        yield f"{name}.weight", (c.width,), (ours,), (c.width,), 0


def transposed(x: np.ndarray, threads: Executor) -> np.ndarray:
    """A contiguous copy of the transposed matrix.

    In blocks of few rows, so that writes fill cache lines: NumPy and XLA on CPU take four to ten times as long for a
    large matrix.
    """
    result = aligned_empty(x.shape[::-1], x.dtype)
    unsigned = np.dtype(f"u{x.dtype.itemsize}")  # NumPy copies custom types slowly
    source, target = x.view(unsigned), result.view(unsigned)
    step = max(_BLOCK, -(-len(x) // THREADS // _BLOCK) * _BLOCK)

    def copy(start: int) -> None:
        for i in range(start, min(start + step, len(x)), _BLOCK):
            target[:, i : i + _BLOCK] = source[i : i + _BLOCK].T

    list(threads.map(copy, range(0, len(x), step)))
    return result
