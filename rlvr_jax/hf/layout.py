"""The mapping of the tensors of a Hugging Face checkpoint to the policy's parameters."""

import os
import re
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from rlvr_jax.hf.safetensors import StoredTensor, aligned_empty, rows_of
from rlvr_jax.policy.config import PolicyConfig

THREADS = min(8, os.cpu_count() or 1)  # for `transposed`
_BLOCK = 16  # rows of 4 bytes that fill a cache line

SCORE = "score.weight"  # of `AutoModelForSequenceClassification` with one label

_NORMS = {  # of a layer, by `PolicyConfig.norm_placement`: ours -> theirs
    "pre": {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"},
    "post": {"attention_norm": "post_attention_layernorm", "mlp_norm": "post_feedforward_layernorm"},
    "both": {
        "attention_norm": "input_layernorm",
        "attention_output_norm": "post_attention_layernorm",
        "mlp_norm": "pre_feedforward_layernorm",
        "mlp_output_norm": "post_feedforward_layernorm",
    },
}


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


def entries(config: PolicyConfig, scalar: bool = False) -> list[Entry]:
    """Every tensor of a checkpoint of this architecture; `scalar` for a reward model, which has a score for a head."""
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
    if scalar:
        found.append(Entry(SCORE, (1, config.width), ("value",), None, width))
    elif not config.tie_embeddings:
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
    for ours, name in _NORMS[c.norm_placement].items():
        yield f"{name}.weight", (c.width,), (ours,), (c.width,), 0


_FUSED = {"self_attn.qkv_proj.": ("self_attn.q_proj.", "self_attn.k_proj.", "self_attn.v_proj.")}
_FUSED |= {"mlp.gate_up_proj.": ("mlp.gate_proj.", "mlp.up_proj.")}
_WHOLE = {part: whole for whole, parts in _FUSED.items() for part in parts}
_PART = re.compile("|".join(map(re.escape, _WHOLE)))


def fused_entries(config: PolicyConfig, scalar: bool = False) -> dict[str, list[Entry]]:
    """The tensors of a checkpoint of a fused family, by name: the entries whose rows each holds, in their order."""
    found: dict[str, list[Entry]] = {}
    for entry in entries(config, scalar):
        found.setdefault(_PART.sub(lambda part: _WHOLE[part[0]], entry.name), []).append(entry)
    return found


def split_fused(config: PolicyConfig, stored: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The tensors of a checkpoint with the parts of fused ones in place of these."""
    found = dict(stored)
    for name, parts in fused_entries(config).items():
        shape = (sum(part.shape[0] for part in parts), *parts[0].shape[1:])
        if len(parts) == 1 or name not in stored or stored[name].shape != shape:
            continue
        whole, start = found.pop(name), 0
        for part in parts:
            found[part.name] = rows_of(whole, start, start + part.shape[0])
            start += part.shape[0]
    return found


_Tensor = TypeVar("_Tensor")
# Names in multimodal checkpoints: of the text model, as exporters of two kinds write them, and of the other parts.
_TEXT = re.compile(r"^language_model\.(?=model\.|lm_head\.)|^(model\.)language_model\.")
_NOT_TEXT = re.compile(r"(model\.)?(vision_tower|multi_modal_projector)\.")


def text_tensors(stored: Mapping[str, _Tensor]) -> dict[str, _Tensor]:
    """The tensors of a multimodal checkpoint's text model, named as it has them alone; of any other checkpoint all."""
    if not any(map(_TEXT.match, stored)):
        return dict(stored)
    return {_TEXT.sub(r"\1", name, count=1): tensor for name, tensor in stored.items() if not _NOT_TEXT.match(name)}


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
