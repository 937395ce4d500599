"""Records of a file: JSON Lines, JSON, CSV or Parquet, or a folder of a Hugging Face data set. Text may be gzipped.

Each record comes with its location, `train.jsonl, line 17`, for messages.
"""

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rlvr_jax.tasks.published import json_records, unzipped
from rlvr_jax.text.keys import no_key_twice

Records = list[tuple[str, dict[str, Any]]]  # (place, record)

_SUFFIXES = (".jsonl", ".json", ".csv", ".parquet", ".arrow")
HELDOUT_SPLITS = ("test", "validation", "valid", "dev", "heldout")


def splits_of(path: Path) -> dict[str, list[Path]]:
    """The files of each split of a folder, by the split's name.

    A folder is written by `datasets.save_to_disk` or copied from the hub: its files or their folders are named after a
    split (`data/train-00000-of-00002.parquet`, `test.jsonl`). If no file is, the only split is "train".

    Raises:
      ValueError: the folder has no readable file, or files of different kinds.
    """
    files = sorted(
        file
        for file in path.rglob("*")
        if _kind(file) in _SUFFIXES and file.is_file() and file.name not in ("dataset_info.json", "state.json")
        and file.name != "dataset_dict.json" and not any(part.startswith(".") for part in file.relative_to(path).parts)
    )  # fmt: skip
    if not files:
        raise ValueError(f"{path} holds no file that ends with {', '.join(_SUFFIXES)}")
    kinds = sorted({_kind(file) for file in files})
    if len(kinds) > 1:
        raise ValueError(f"{path} holds files of different kinds, {', '.join(kinds)}; name one file instead")
    known = ("train", *HELDOUT_SPLITS)
    found: dict[str, list[Path]] = {}
    for file in files:
        words = re.split(r"[^A-Za-z]+", str(file.relative_to(path).with_suffix("")))
        found.setdefault(next((word for word in words if word in known), "train"), []).append(file)
    return found


def read(files: Sequence[Path]) -> Records:
    """The records of files, one file after the other.

    Raises:
      ValueError: a file can't be read or parsed; the message names file and line.
      OSError: there is no such file.
    """
    return [record for file in files for record in _read(file)]


def _read(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    readers = {".jsonl": _json, ".json": _json, ".csv": _csv, ".parquet": _columns, ".arrow": _columns}
    if _kind(path) not in readers:
        raise ValueError(f"{path}: files of records end with {', '.join(_SUFFIXES)}, or are a folder of such files")
    for place, record in readers[_kind(path)](path):
        if not isinstance(record, dict):
            raise ValueError(f"{path}, {place}: not an object with fields, but {type(record).__name__}")
        yield f"{path}, {place}", record


def _kind(path: Path) -> str:
    """The end of a file's name, without that of gzip."""
    return path.with_suffix("").suffix if path.suffix == ".gz" else path.suffix


def _json(path: Path) -> Iterator[tuple[str, Any]]:
    content = unzipped(path.read_bytes(), str(path))
    try:
        yield from json_records(content, no_key_twice)
    except ValueError as error:
        raise ValueError(f"{path}, {error}") from None


def _csv(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    try:
        lines = csv.reader(
            io.StringIO(unzipped(path.read_bytes(), str(path)).decode("utf-8-sig"), newline=""), strict=True
        )
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text: {error}") from None
    try:
        header = next(lines, None)
        if header is None or len(set(header)) < len(header):
            raise ValueError(f"{path}, line 1: the names of the columns must stand there, each once")
        for fields in lines:
            if not fields:  # an empty line
                continue
            if len(fields) != len(header):
                raise ValueError(f"{path}, line {lines.line_num}: {len(fields)} fields, the header has {len(header)}")
            yield f"line {lines.line_num}", dict(zip(header, fields, strict=True))
    except csv.Error as error:
        raise ValueError(f"{path}, line {lines.line_num}: {error}") from None


def _columns(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    import pyarrow
    import pyarrow.parquet

    try:
        if path.suffix == ".parquet":
            table = pyarrow.parquet.read_table(path)
        else:
            with pyarrow.memory_map(str(path)) as source:
                table = pyarrow.ipc.open_stream(source).read_all()
        records = table.to_pylist()
    except pyarrow.ArrowException as error:
        raise ValueError(f"{path} can't be read: {' '.join(str(error).split())}") from None
    yield from ((f"row {number}", record) for number, record in enumerate(records, start=1))
