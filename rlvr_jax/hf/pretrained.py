"""Import of Hugging Face checkpoints: each tensor is read from its file directly into its shards."""

import os
import re
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec, Sharding

from rlvr_jax.errors import CheckpointError
from rlvr_jax.hf.families import TEXT_MODELS, policy_config
from rlvr_jax.hf.layout import SCORE, THREADS, Entry, entries, split_fused, text_tensors, transposed
from rlvr_jax.hf.safetensors import DTYPES, StoredTensor, checkpoint_files, read_headers, read_rows
from rlvr_jax.hf.source import find_checkpoint, read_config
from rlvr_jax.policy.config import PolicyConfig
from rlvr_jax.policy.model import Params, logical_axes, shapes
from rlvr_jax.policy.value import critic_shapes

# Tensors of older exporters that are ignored: frequencies are given by the config.
_HEAD = "lm_head.weight"
_HARMLESS = re.compile(r"(^|\.)rotary_emb\.inv_freq$")


def pretrained_config(source: str | Path) -> PolicyConfig:
    """The architecture of a checkpoint, from its config.json alone; it does not set `RUN_FIELDS` of families.py.

    Raises:
      CheckpointError: it was not found, or has an unsupported value, naming its key.
    """
    folder = find_checkpoint(source, weights=False)
    return policy_config(read_config(folder), str(folder / "config.json"))


def load_pretrained(
    source: str | Path, mesh: Mesh | None = None, dtype: str | None = None
) -> tuple[PolicyConfig, Params]:
    """A checkpoint's architecture and parameters.

    Args:
      source: a folder, or a repository on the hub.
      mesh: the parameters are sharded over it by `parallel.RULES`; None puts them on the first device.
      dtype: storage type of the parameters, "float32" or "bfloat16"; None keeps the file's ("float32" for float16 and
        for mixtures). The config's compute type is the same; change it with `dataclasses.replace`.

    Raises:
      CheckpointError: see `pretrained_config` and `load_params`.
    """
    config = pretrained_config(source)
    folder = find_checkpoint(source)
    dtype = dtype or stored_dtype(folder)
    config = replace(config, dtype=dtype, param_dtype=dtype)
    shardings = None
    if mesh is not None:
        from rlvr_jax.parallel import param_shardings  # here: a later room, which this one needs for the mesh only

        shardings = param_shardings(mesh, logical_axes(config), shapes(config))
    return config, load_params(folder, config, shardings)


def stored_dtype(folder: Path) -> str:
    """The parameter type that holds all of a checkpoint's tensors: "bfloat16" if all are, else "float32"."""
    types = {tensor.dtype for tensor in text_tensors(read_headers(folder)).values()}
    return "bfloat16" if types == {"BF16"} else "float32"


def load_params(folder: Path, config: PolicyConfig, shardings: Any = None, scalar: bool = False) -> Params:
    """The parameters of a checkpoint, as `init` lays them out, in `config.param_dtype`.

    Only a few tensors are in host memory at a time: one being read, one being transposed, one on its way to the
    devices. Each process reads the rows of its own devices. Of a multimodal checkpoint only the text model is read.

    Args:
      folder: with model.safetensors, or several files and their index.
      config: the architecture.
      shardings: of every parameter (`NamedSharding`); None puts all on the first device.
      scalar: whether it is a reward model (`AutoModelForSequenceClassification` with one label).

    Raises:
      CheckpointError: files are missing or broken, or tensors are missing, unknown, or of another shape or type; all
        are listed.
    """
    stored, wanted = check_weights(folder, config, scalar), entries(config, scalar)
    if read_config(folder).get("model_type") in TEXT_MODELS:
        print(f"note: only the text model of {folder} is loaded, and exports are text models", file=sys.stderr)
    found = critic_shapes(config) if scalar else shapes(config)
    if shardings is None:
        device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        shardings = jax.tree.map(lambda _: device, found)
    paths = {tuple(key.key for key in path): i for i, (path, _) in enumerate(jax.tree.leaves_with_path(found))}
    leaves, tree = jax.tree.flatten(found)
    leaf_shardings = tree.flatten_up_to(shardings)
    stacked = [i for path, i in paths.items() if path[0] == "layers"]
    zeros = jax.jit(
        lambda: [jnp.zeros(leaves[i].shape, leaves[i].dtype) for i in stacked],
        out_shardings=[leaf_shardings[i] for i in stacked],
    )()
    for i, leaf in zip(stacked, zeros, strict=True):
        leaves[i] = leaf
    wanted = sorted(wanted, key=lambda entry: (stored[entry.name].file, stored[entry.name].start))  # the disk's order
    jobs = [(entry, stored[entry.name], leaf_shardings[paths[entry.path]]) for entry in wanted]
    previous = None
    for entry, piece in _pieces(jobs):
        i = paths[entry.path]
        jax.block_until_ready(previous)  # reading must not run ahead of the devices and fill the memory
        if entry.layer is not None:
            leaves[i] = _place(leaves[i], piece, entry.layer, leaf_shardings[i])
        elif piece.dtype == config.param_dtype:
            leaves[i] = piece
        else:
            leaves[i] = jax.jit(lambda x: x.astype(config.param_dtype), out_shardings=leaf_shardings[i])(piece)
        previous = leaves[i]
    return tree.unflatten(leaves)


@partial(jax.jit, static_argnames="sharding", donate_argnums=0)
def _place(leaf, piece, layer, sharding: Sharding):
    """Writes one layer's tensor into the stacked parameter, in place."""
    dtype, bits = leaf.dtype, jnp.dtype(f"u{leaf.dtype.itemsize}")
    # As integers: XLA's CPU back end copies bfloat16 through float32, which takes seven times as long.
    leaf, piece = (jax.lax.bitcast_convert_type(x, bits) for x in (leaf, piece.astype(dtype)))
    leaf = jax.lax.dynamic_update_index_in_dim(leaf, piece, layer, axis=0)
    return jax.lax.with_sharding_constraint(jax.lax.bitcast_convert_type(leaf, dtype), sharding)


def _pieces(jobs: Sequence[tuple[Entry, StoredTensor, Sharding]]) -> Iterator[tuple[Entry, jax.Array]]:
    """Each tensor on its devices, while the next one is read and transposed."""
    shardings = [sharding if entry.layer is None else _of_layer(sharding) for entry, _, sharding in jobs]

    def read(i: int) -> tuple[int, np.ndarray]:
        """The rows of this process, and the index of the first along `row_axis`."""
        entry, tensor, _ = jobs[i]
        length = entry.ours[entry.row_axis]
        indices = shardings[i].addressable_devices_indices_map(entry.ours).values()
        spans = [index[entry.row_axis].indices(length)[:2] for index in indices]
        start, stop = min(first for first, _ in spans), max(last for _, last in spans)
        each = entry.shape[0] // length if entry.shape[0] > 1 else 1
        rows = read_rows(tensor, start * each, stop * each)
        if entry.row_axis:
            rows = transposed(rows, threads)
        shape = (*entry.ours[: entry.row_axis], stop - start, *entry.ours[entry.row_axis + 1 :])
        return start, rows.reshape(shape)

    with ThreadPoolExecutor(THREADS) as threads, ThreadPoolExecutor(1) as reader:
        upcoming = reader.submit(read, 0)
        for i, (entry, _, _) in enumerate(jobs):
            start, rows = upcoming.result()
            if i + 1 < len(jobs):
                upcoming = reader.submit(read, i + 1)

            def cut(index, start=start, rows=rows, axis=entry.row_axis, length=entry.ours[entry.row_axis]):
                first, last, _ = index[axis].indices(length)
                return rows[(*index[:axis], slice(first - start, last - start), *index[axis + 1 :])]

            yield entry, jax.make_array_from_callback(entry.ours, shardings[i], cut)


def _of_layer(sharding: Sharding) -> Sharding:
    """The sharding of one layer of a stacked parameter."""
    if not isinstance(sharding, NamedSharding):
        return sharding
    return NamedSharding(sharding.mesh, PartitionSpec(*sharding.spec[1:]))


def check_weights(folder: Path, config: PolicyConfig, scalar: bool = False) -> dict[str, StoredTensor]:
    """The tensors of a checkpoint by name, checked to be exactly those of its architecture.

    Reads the headers of the files, and an output head that should equal the embedding table.

    Raises:
      CheckpointError: see `load_params`.
    """
    stored, wanted = split_fused(config, text_tensors(read_headers(folder))), entries(config, scalar)
    names = {entry.name for entry in wanted}
    second = stored.get(_HEAD) if config.tie_embeddings and not scalar else None
    harmless = lambda name: _HARMLESS.search(name) or ((second or scalar) and name == _HEAD)  # noqa: E731
    missing = [entry.name for entry in wanted if entry.name not in stored]
    extra = [name for name in stored if name not in names and not harmless(name)]
    lines = [f"missing: {name}" for name in _grouped(missing)] + [f"unknown: {name}" for name in _grouped(extra)]
    wrong = defaultdict(list)
    for entry in wanted:
        tensor = stored.get(entry.name)
        if tensor and tensor.shape != entry.shape:
            wrong[f" is {list(tensor.shape)}, should be {list(entry.shape)}"].append(entry.name)
        if tensor and tensor.dtype not in DTYPES:
            wrong[f" has type {tensor.dtype}; {', '.join(DTYPES)} are read"].append(entry.name)
    lines += [name + what for what, group in wrong.items() for name in _grouped(group)]
    if lines:
        raise CheckpointError(
            f"the tensors in {folder} are not those of its config.json:\n" + "\n".join(f"  {line}" for line in lines)
        )
    if second and not _equal(second, stored["model.embed_tokens.weight"]):
        raise CheckpointError(
            f"{folder} has a {_HEAD} that is not the embedding table, while its config.json has tie_word_embeddings "
            "true, by which it would be ignored; set that false to use it"
        )
    if scalar:
        stored[SCORE] = replace(stored[SCORE], shape=(config.width,))  # one row, and the parameter is a vector
    return stored


def _equal(a: StoredTensor, b: StoredTensor, rows: int = 4096) -> bool:
    """True if two stored tensors have the same values."""
    return a.shape == b.shape and all(
        np.array_equal(*(read_rows(x, start, min(start + rows, a.shape[0])) for x in (a, b)))
        for start in range(0, a.shape[0], rows)
    )


def _grouped(names: Sequence[str]) -> list[str]:
    """Names that differ only in the layer, combined: "model.layers.{0-3,7}.mlp.up_proj.weight"."""
    groups: dict[str, list[int]] = {}
    for name in names:
        match = re.search(r"\.(\d+)\.", name)
        groups.setdefault(name[: match.start(1)] + "{}" + name[match.end(1) :] if match else name, []).extend(
            [int(match[1])] if match else []
        )
    return [name.replace("{}", _ranges(sorted(numbers)), 1) if numbers else name for name, numbers in groups.items()]


def _ranges(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return str(numbers[0])
    starts = [n for n in numbers if n - 1 not in numbers]
    ends = [n for n in numbers if n + 1 not in numbers]
    spans = [str(first) if first == last else f"{first}-{last}" for first, last in zip(starts, ends, strict=True)]
    return "{" + ",".join(spans) + "}"


@dataclass(frozen=True)
class LoadingSpeed:
    """Bytes of a checkpoint's files, and the seconds of reading them and of loading them onto devices."""

    size: int
    read_seconds: float
    load_seconds: float


def loading_speed(folder: Path, config: PolicyConfig, shardings: Any = None, cold: bool = False) -> LoadingSpeed:
    """The time of loading a checkpoint, and of reading the same files.

    Args:
      folder, config, shardings: as of `load_params`.
      cold: drop the files from the page cache first, so that they come from disk (Linux).
    """

    def timed(call) -> float:
        for file in files if cold else ():
            with file.open("rb") as stream:
                os.fsync(stream.fileno())
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        start = time.perf_counter()
        jax.block_until_ready(call())
        return time.perf_counter() - start

    files, buffer = checkpoint_files(folder), bytearray(16 << 20)

    def read() -> None:
        for file in files:
            with file.open("rb", buffering=0) as stream:
                while stream.readinto(buffer):
                    pass

    load = partial(load_params, folder, config, shardings)
    load()  # compiles, and without `cold` caches the files
    return LoadingSpeed(sum(file.stat().st_size for file in files), timed(read), timed(load))
