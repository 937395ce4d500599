"""Export of a policy as a Hugging Face checkpoint: config.json and sharded safetensors, one tensor at a time."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlvr_jax.errors import CheckpointError
from rlvr_jax.hf.families import check_same_shape, policy_config, pretrained_dict
from rlvr_jax.hf.layout import THREADS, Entry, entries, transposed
from rlvr_jax.hf.safetensors import DTYPES, INDEX, SINGLE, write_file
from rlvr_jax.hf.source import find_checkpoint, read_config
from rlvr_jax.policy.config import PolicyConfig
from rlvr_jax.policy.model import Params

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
    memory holds at most two tensors.

    Args:
      folder: the output; must be absent or empty.
      config, params: the policy, layers stacked, without adapters.
      source: the checkpoint (folder or hub id) that the policy was loaded from. Its config.json is copied, except for
        the type of the weights and `extra`.
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
    wanted = entries(config)
    types = {entry.name: jnp.dtype(dtype or _leaf(params, entry).dtype) for entry in wanted}
    text = _config_text(config, source, types[wanted[0].name].name, extra or {})

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


def _config_text(config: PolicyConfig, source: str | Path | None, dtype: str, extra: Mapping[str, Any]) -> str:
    """The text of config.json."""
    if source is None:
        raw = pretrained_dict(config) | {"torch_dtype": dtype} | extra
        return json.dumps(raw, indent=2) + "\n"
    found = find_checkpoint(source, weights=False)
    raw = read_config(found)
    check_same_shape(config, policy_config(raw, str(found / "config.json")), str(found))
    keys = [key for key in ("dtype", "torch_dtype") if key in raw] or ["dtype"]  # some have both
    changed = raw | extra | (dict.fromkeys(keys, dtype) if any(raw.get(key, dtype) != dtype for key in keys) else {})
    if changed == raw:
        return (found / "config.json").read_text(encoding="utf-8")
    return json.dumps(changed, indent=2, ensure_ascii=False) + "\n"


def _write_weights(
    folder: Path, params: Params, wanted: Sequence[Entry], types: Mapping[str, np.dtype], file_bytes: int
) -> None:
    size = lambda entry: int(np.prod(entry.shape)) * types[entry.name].itemsize  # noqa: E731
    groups, room = [], 0
    for entry in wanted:
        if not groups or size(entry) > room:
            groups.append([])
            room = file_bytes
        groups[-1].append(entry)
        room -= size(entry)
    names = [f"model-{i + 1:05}-of-{len(groups):05}.safetensors" for i in range(len(groups))]
    if len(groups) == 1:
        names = [SINGLE]
    for name, group in zip(names, groups, strict=True):
        shapes = {entry.name: (_STORED[types[entry.name]], entry.shape) for entry in group}
        write_file(folder / name, shapes, _tensors(params, group, types))
    if len(groups) > 1:
        places = {entry.name: name for name, group in zip(names, groups, strict=True) for entry in group}
        index = {"metadata": {"total_size": sum(map(size, wanted))}, "weight_map": places}
        (folder / INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _tensors(params: Params, group: Sequence[Entry], types: Mapping[str, np.dtype]) -> Iterator[np.ndarray]:
    """The checkpoint's tensors on the host, while the devices prepare the next one."""

    def start(entry: Entry) -> jax.Array:
        piece = _piece(_leaf(params, entry), entry.layer, types[entry.name].name)
        piece.copy_to_host_async()
        return piece

    with ThreadPoolExecutor(THREADS) as threads:
        upcoming = start(group[0])
        for i, entry in enumerate(group):
            piece, upcoming = upcoming, start(group[i + 1]) if i + 1 < len(group) else None
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
