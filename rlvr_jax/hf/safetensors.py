"""The safetensors format: 8 bytes with the length of a JSON header, the header, then the tensors' bytes end to end.

Implemented here, because a tensor's rows can then be read into a buffer of their own and sent to a device, bfloat16
included, with nothing else in memory. Format: github.com/huggingface/safetensors.
"""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np

from rlvr_jax.errors import CheckpointError

DTYPES = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(jnp.bfloat16),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
INDEX = "model.safetensors.index.json"
SINGLE = "model.safetensors"
_LONGEST_HEADER = 100 << 20  # bytes; the format's own limit
_POINTER = int.from_bytes(b"version ", "little")  # of a git-lfs text in place of the file


@dataclass(frozen=True)
class StoredTensor:
    """The location of a tensor.

    Attributes:
      file: the file.
      dtype: the format's name of its type, such as "F32".
      shape: of the tensor.
      start: its first byte in the file.
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int


def read_header(file: Path) -> dict[str, StoredTensor]:
    """The tensors of one file by name; reads the header only.

    Raises:
      CheckpointError: not a complete safetensors file.
    """
    broken = lambda what: CheckpointError(f"{file} is not a whole safetensors file: {what}; copy it again")  # noqa: E731
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if length == _POINTER:
            raise broken("it is a pointer of git-lfs, which `git lfs pull` replaces by the file")
        if size < 8 or length > min(size - 8, _LONGEST_HEADER):
            raise broken(f"its header should have {length} bytes, and the file has {size}")
        text = stream.read(length)
    try:
        header = json.loads(text)
        header.pop("__metadata__", None)
        tensors = {
            name: (str(entry["dtype"]), tuple(map(int, entry["shape"])), *map(int, entry["data_offsets"]))
            for name, entry in header.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise broken(f"its header can't be read ({type(error).__name__}: {error})") from error
    end = 0
    for name, (dtype, shape, start, stop) in sorted(tensors.items(), key=lambda item: item[1][2:]):
        wanted = stop - start if dtype not in DTYPES else math.prod(shape) * DTYPES[dtype].itemsize
        if start != end or stop - start != wanted:
            raise broken(f"{name} ({dtype}{list(shape)}) can't take bytes {start} to {stop} after {end}")
        end = stop
    if 8 + length + end != size:
        raise broken(f"it should have {8 + length + end} bytes, and has {size}")
    return {
        name: StoredTensor(file, dtype, shape, 8 + length + start) for name, (dtype, shape, start, _) in tensors.items()
    }


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Memory aligned to 64 bytes, which JAX adopts on CPU without a copy."""
    size = math.prod(shape) * dtype.itemsize
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(dtype).reshape(shape)


def rows_of(tensor: StoredTensor, start: int, stop: int) -> StoredTensor:
    """Rows `start` to `stop` of a stored tensor of a type that is read."""
    row_bytes = math.prod(tensor.shape[1:]) * DTYPES[tensor.dtype].itemsize
    return replace(tensor, shape=(stop - start, *tensor.shape[1:]), start=tensor.start + start * row_bytes)


def read_rows(tensor: StoredTensor, start: int, stop: int) -> np.ndarray:
    """Rows `start` to `stop` along the first axis of a tensor with at least one axis, in a new buffer."""
    wanted = rows_of(tensor, start, stop)
    rows = aligned_empty(wanted.shape, DTYPES[tensor.dtype])
    view, done = memoryview(rows.reshape(-1).view(np.uint8)), 0
    with tensor.file.open("rb", buffering=0) as stream:
        stream.seek(wanted.start)
        while done < len(view):
            count = stream.readinto(view[done:])
            if not count:
                raise CheckpointError(f"{tensor.file} ended while it was read; was it changed?")
            done += count
    return rows


def checkpoint_files(folder: Path) -> list[Path]:
    """The files of a checkpoint: those of its index, or the only one.

    Raises:
      CheckpointError: there are none, or some are missing.
    """
    index = folder / INDEX
    if not index.is_file():
        if (folder / SINGLE).is_file():
            return [folder / SINGLE]
        raise CheckpointError(
            f"{folder} has no weights: neither {SINGLE} nor {INDEX}, and other formats are not read"
            + _interrupted(folder)
        )
    try:
        names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} can't be read ({type(error).__name__}: {error}); copy it again") from error
    absent = [name for name in names if not (folder / name).is_file()]
    if absent:
        raise CheckpointError(
            f"{folder} lacks {', '.join(absent)}, which {INDEX} names{_interrupted(folder)}; copy them again"
        )
    if (folder / SINGLE).is_file() and SINGLE not in names:
        raise CheckpointError(f"{folder} has both {SINGLE} and {INDEX}, which names other files; remove one of them")
    return [folder / name for name in names]


def _interrupted(folder: Path) -> str:
    """A hint for an error message if the folder holds partial downloads of the hub's tools."""
    return "; its download was interrupted" if any(folder.rglob("*.incomplete")) else ""


def read_headers(folder: Path) -> dict[str, StoredTensor]:
    """All tensors of a checkpoint by name; reads headers only.

    Raises:
      CheckpointError: a file is missing or broken, or two files have a tensor of the same name.
    """
    tensors: dict[str, StoredTensor] = {}
    for file in checkpoint_files(folder):
        for name, tensor in read_header(file).items():
            if name in tensors:
                raise CheckpointError(f"both {tensors[name].file} and {file} have a tensor {name}")
            tensors[name] = tensor
    return tensors


def write_file(file: Path, shapes: Mapping[str, tuple[str, tuple[int, ...]]], tensors: Iterable[np.ndarray]) -> None:
    """Writes one file from an iterator of tensors.

    Args:
      file: the file.
      shapes: dtype (the format's name) and shape of each tensor, by name.
      tensors: in the order of `shapes`.
    """
    header, end = {"__metadata__": {"format": "pt"}}, 0  # transformers refuses files that don't say "pt"
    for name, (dtype, shape) in shapes.items():
        start, end = end, end + math.prod(shape) * DTYPES[dtype].itemsize
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that tensors begin at multiples of 8 bytes
    with file.open("wb") as stream:
        stream.write(len(text).to_bytes(8, "little") + text)
        for (name, (dtype, shape)), tensor in zip(shapes.items(), tensors, strict=True):
            if (_NAMES[tensor.dtype], tensor.shape) != (dtype, tuple(shape)):
                raise ValueError(f"{name} is {tensor.dtype}{list(tensor.shape)}, not {dtype}{list(shape)}")
            stream.write(memoryview(np.ascontiguousarray(tensor).reshape(-1).view(np.uint8)))
