"""Export of a policy as a Hugging Face checkpoint: config.json and sharded safetensors, one tensor at a time."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlvr_jax.errors import CheckpointError
from rlvr_jax.hf.families import (
    FAMILIES,
    check_same_shape,
    classifier_keys,
    policy_config,
    pretrained_dict,
    text_config,
)
from rlvr_jax.hf.layout import THREADS, Entry, entries, fused_entries, transposed
from rlvr_jax.hf.safetensors import DTYPES, INDEX, SINGLE, write_file
from rlvr_jax.hf.source import find_checkpoint, read_config
from rlvr_jax.policy.config import PolicyConfig
from rlvr_jax.policy.model import Params
from rlvr_jax.policy.value import VALUE


@dataclass(frozen=True)
class Lazy:
    """An array that is read when it is needed.

    Attributes:
      shape, dtype: of the array.
      read: returns it.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], jax.Array]


_STORED = {dtype: name for name, dtype in DTYPES.items()}


def save_pretrained(
    folder: str | Path,
    config: PolicyConfig,
    params: Params,
    source: str | Path | None = None,
    dtype: str | None = None,
    files: Sequence[Path] = (),
    extra: Mapping[str, Any] | None = None,
    file_bytes: int = 5_000_000_000,
) -> None:
    """Writes a checkpoint that `transformers` and inference engines load.

    The folder appears under its name once it is complete, so an interrupted export leaves no broken checkpoint. Host
    memory holds at most two tensors, and of `Lazy` parameters the one that they are layers of (of a family with fused
    modules those of a module).

    Args:
      folder: the output; must be absent or empty.
      config, params: the policy, layers stacked, without adapters; or a reward model, which `transformers` loads as
        `AutoModelForSequenceClassification` with one label. Parameters may be `Lazy` arrays.
      source: the checkpoint (folder or hub id) that the policy was loaded from. Its config.json is copied, except for
        the type of the weights and `extra`; of a multimodal checkpoint that of the text model.
      dtype: type of the weights, "float32", "bfloat16" or "float16"; None keeps that of each parameter.
      files: copied unchanged, see `companion_files` for a tokenizer's.
      extra: keys of config.json beyond the architecture, such as eos_token_id.
      file_bytes: maximum size of a file of tensors.

    Raises:
      CheckpointError: the folder is not empty, or the architecture differs from that of `source` or is of no family;
        before anything is written.
    """
    folder = Path(folder).expanduser()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise CheckpointError(f"{folder} is there already; choose another folder for the export, or remove it")
    if "adapters" in params:
        raise CheckpointError("these parameters have adapters; merge them before the export (`policy.merged`)")
    first = jnp.dtype(dtype or params["embed"].dtype).name
    text = _config_text(config, source, first, extra or {}, VALUE in params)
    fused, scalar = FAMILIES[json.loads(text)["model_type"]].fused, VALUE in params
    wanted = fused_entries(config, scalar) if fused else {entry.name: [entry] for entry in entries(config, scalar)}
    # All layers of a parameter one after the other: it is read once.
    order = {path: i for i, path in enumerate(dict.fromkeys(parts[0].path for parts in wanted.values()))}
    wanted = dict(sorted(wanted.items(), key=lambda item: order[item[1][0].path]))
    types = {name: jnp.dtype(dtype or _leaf(params, parts[0]).dtype) for name, parts in wanted.items()}

    partial_folder = folder.with_name(f".{folder.name}.incomplete")
    if partial_folder.exists():  # of a killed export
        shutil.rmtree(partial_folder)
    partial_folder.mkdir(parents=True)
    for file in files:
        shutil.copyfile(file, partial_folder / file.name)
    (partial_folder / "config.json").write_text(text, encoding="utf-8")
    _write_weights(partial_folder, params, wanted, types, file_bytes)
    for file in partial_folder.iterdir():
        with file.open("rb") as stream:
            os.fsync(stream.fileno())
    partial_folder.rename(folder)


def _config_text(
    config: PolicyConfig, source: str | Path | None, dtype: str, extra: Mapping[str, Any], scalar: bool
) -> str:
    """The text of config.json."""
    if source is None:
        raw = pretrained_dict(config) | {"torch_dtype": dtype} | extra
        raw |= classifier_keys(raw["model_type"]) if scalar else {}
        return json.dumps(raw, indent=2) + "\n"
    found = find_checkpoint(source, weights=False)
    whole = read_config(found)
    raw = text_config(whole, str(found / "config.json"))
    check_same_shape(config, policy_config(raw, str(found / "config.json")), str(found))
    keys = [key for key in ("dtype", "torch_dtype") if key in raw] or ["dtype"]  # some have both
    extra = {**extra, **classifier_keys(raw["model_type"])} if scalar else extra
    changed = raw | extra | (dict.fromkeys(keys, dtype) if any(raw.get(key, dtype) != dtype for key in keys) else {})
    if changed == whole:
        return (found / "config.json").read_text(encoding="utf-8")
    return json.dumps(changed, indent=2, ensure_ascii=False) + "\n"


def _write_weights(
    folder: Path,
    params: Params,
    wanted: Mapping[str, Sequence[Entry]],
    types: Mapping[str, np.dtype],
    file_bytes: int,
) -> None:
    """Writes tensors by name, each the rows of its entries one after the other."""
    shapes = {name: (sum(part.shape[0] for part in parts), *parts[0].shape[1:]) for name, parts in wanted.items()}
    size = lambda name: int(np.prod(shapes[name])) * types[name].itemsize  # noqa: E731
    groups, room = [], 0
    for name in wanted:
        if not groups or size(name) > room:
            groups.append([])
            room = file_bytes
        groups[-1].append(name)
        room -= size(name)
    names = [f"model-{i + 1:05}-of-{len(groups):05}.safetensors" for i in range(len(groups))]
    if len(groups) == 1:
        names = [SINGLE]
    for file, group in zip(names, groups, strict=True):
        stored = {name: (_STORED[types[name]], shapes[name]) for name in group}
        parts = [(entry, types[name].name) for name in group for entry in wanted[name]]
        pieces = _pieces(params, parts)
        joined = ([next(pieces) for _ in wanted[name]] for name in group)
        write_file(folder / file, stored, (x[0] if len(x) == 1 else np.concatenate(x) for x in joined))
    if len(groups) > 1:
        places = {name: file for file, group in zip(names, groups, strict=True) for name in group}
        index = {"metadata": {"total_size": sum(map(size, wanted))}, "weight_map": places}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _pieces(params: Params, group: Sequence[tuple[Entry, str]]) -> Iterator[np.ndarray]:
    """Entries as the checkpoint has them, in given types, on the host, while the devices prepare the next one."""

    opened: dict[tuple[str, ...], jax.Array] = {}
    last = {entry.path: i for i, (entry, _) in enumerate(group)}

    def start(number: int) -> jax.Array:
        entry, dtype = group[number]
        if entry.path not in opened:
            leaf = _leaf(params, entry)
            opened[entry.path] = leaf.read() if isinstance(leaf, Lazy) else leaf
        piece = _piece(opened[entry.path], entry.layer, dtype)
        if last[entry.path] == number:
            del opened[entry.path]
        piece.copy_to_host_async()
        return piece

    with ThreadPoolExecutor(THREADS) as threads:
        upcoming = start(0)
        for i, (entry, _) in enumerate(group):
            piece, upcoming = upcoming, start(i + 1) if i + 1 < len(group) else None
            tensor = np.asarray(piece)
            yield (
                transposed(tensor.reshape(entry.shape[::-1]), threads)
                if entry.row_axis
                else tensor.reshape(entry.shape)
            )


def _leaf(params: Params, entry: Entry) -> Any:
    for key in entry.path:
        params = params[key]
    return params


@partial(jax.jit, static_argnames="dtype")
def _piece(leaf: jax.Array, layer: int | jax.Array | None, dtype: str) -> jax.Array:
    """One layer's parameter, in the output type."""
    return (leaf if layer is None else jax.lax.dynamic_index_in_dim(leaf, layer, keepdims=False)).astype(dtype)
