"""Files of one JSON object per line, appended to during a run and truncated when it is resumed.

The writer may be killed in the middle of a line and the disk may fill up, so a last line without its newline is
expected: readers ignore it and the next `append` removes it. Everything else that does not parse is an error.

JSON has no NaN and no infinities. They are written as the strings "NaN", "Infinity" and "-Infinity", and `read` turns
these back into floats, except in `TEXT_FIELDS`, where a model may have written them.
"""

import contextlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rlvr_jax.reporting import files

TEXT_FIELDS = frozenset(
    {
        "answer",
        "completion",
        "error",
        "example",
        "finish_reason",
        "gold",
        "prompt",
        "reason",
        "reference",
        "split",
        "task",
    }
)
_NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}


def append(path: Path | str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Appends each row as one line of JSON, flushed to the operating system.

    A torn last line is removed first. If the write fails, its partial output is removed.

    Raises:
      OSError: the disk is full or the file not writable. The message names the file and says what to do.
      TypeError: a value is not plain JSON data (scalars of NumPy and JAX are).
    """
    path = Path(path)
    data = b"".join(encode(row) for row in rows)
    if not data:
        return
    try:
        with path.open("ab", buffering=0) as file:  # unbuffered: closing must not write again after a failure
            end = _cut_torn_line(path, file.fileno())
            try:
                written = 0
                while written < len(data):
                    written += file.write(data[written:])
            except OSError:
                with contextlib.suppress(OSError):
                    os.ftruncate(file.fileno(), end)
                raise
    except OSError as error:
        raise files.unwritable(error, path) from error


def read(path: Path | str) -> list[dict[str, Any]]:
    """All rows of a file. A torn last line (of a killed process) is ignored.

    Raises:
      ValueError: any other line is not a JSON object; the message names the file and the line.
      FileNotFoundError: there is no such file.
    """
    return [row for _, row in _parse(Path(path))]


def truncate_after(path: Path | str, step: int) -> None:
    """Keeps only the rows whose `step` is at most `step`; a missing file is fine. Atomic.

    Call it when a run is resumed from the checkpoint of `step`: the steps after it will be written again.

    Raises:
      ValueError: a line is not a JSON object, or has no integer `step`.
      OSError: the file cannot be written; it is then unchanged.
    """
    path = Path(path)
    if not path.exists():
        return
    kept = []
    for number, (line, row) in enumerate(_parse(path), start=1):
        if not isinstance(row.get("step"), int):
            raise ValueError(f"{path}: row {number} has no integer `step`; repair or remove the file")
        if row["step"] <= step:
            kept.append(line + b"\n")
    data = b"".join(kept)
    if path.stat().st_size != len(data):
        files.replace(path, data)


def encode(row: Mapping[str, Any]) -> bytes:
    """One line, newline included."""
    return json.dumps(_plain(row), allow_nan=False, separators=(", ", ": ")).encode() + b"\n"


def _plain(value: Any) -> Any:
    """`value` as data that strict JSON can hold."""
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if getattr(value, "ndim", None) == 0:  # a scalar of NumPy or JAX
        return _plain(value.item())
    return value


def _parse(path: Path) -> list[tuple[bytes, dict[str, Any]]]:
    """The lines of a file without their newlines, and the rows that they hold."""
    *lines, last = path.read_bytes().split(b"\n")
    parsed = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            parsed.append((line, _decode(line)))
        except ValueError as error:
            raise ValueError(
                f"{path}, line {number}: not a JSON object ({error}); repair or remove the line"
            ) from error
    if last.strip():
        with contextlib.suppress(ValueError):
            parsed.append((last, _decode(last)))
    return parsed


def _decode(line: bytes) -> dict[str, Any]:
    row = json.loads(line)
    if not isinstance(row, dict):
        raise ValueError(f"it is a {type(row).__name__}")
    return {
        key: _NON_FINITE.get(value, value) if isinstance(value, str) and key not in TEXT_FIELDS else value
        for key, value in row.items()
    }


def _cut_torn_line(path: Path, descriptor: int) -> int:
    """Removes the text after the last newline, unless it is a complete row without newline. Returns the size."""
    size = os.fstat(descriptor).st_size
    if size == 0:
        return 0
    with path.open("rb") as file:
        file.seek(size - 1)
        if file.read(1) == b"\n":
            return size
        file.seek(0)
        content = file.read()
    start = content.rfind(b"\n") + 1
    try:
        _decode(content[start:])
    except ValueError:
        os.ftruncate(descriptor, start)
        return start
    os.write(descriptor, b"\n")
    return size + 1
