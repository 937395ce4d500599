"""Published data sets, verified record by record.

`checksums.json` lists, for each file, the first 8 hex digits of the SHA-256 of each record's text, in order, and the
SHA-256 of all full digests. A record's text is canonical JSON, so files that differ only in JSON formatting pass. The
checksum identifies the record's index, so lines may be in any order: the problem with index n is the same for every
copy of the data set.
"""

import functools
import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr_jax.text.keys import RepeatedKeyError

Record = dict[str, Any]

CHECKSUMS = Path(__file__).with_name("checksums.json")
_DIGITS = 8  # of a record's checksum


def json_records(
    content: bytes, make_object: Callable[[Sequence[tuple[str, Any]]], Any] | None = None
) -> Iterator[tuple[str, Any]]:
    """(place, value) of each line of JSON Lines, or of each element if the content is one JSON array.

    Args:
      content: of a file.
      make_object: keys and values -> an object; None for `dict`, in which the last of equal keys counts.

    Raises:
      ValueError: a line or the content is not JSON, or not in UTF-8.
    """
    if content.startswith(b"["):
        try:
            values = json.loads(content, object_pairs_hook=make_object)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"not JSON: {error}") from error  # its message names line and column
        yield from ((f"record {number}", value) for number, value in enumerate(values, start=1))
        return
    for number, line in enumerate(io.BytesIO(content), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line, object_pairs_hook=make_object)
        except RepeatedKeyError as error:
            raise ValueError(f"line {number}: {error}") from error
        except (ValueError, RecursionError) as error:
            what = "UTF-8" if isinstance(error, UnicodeDecodeError) else "JSON"
            raise ValueError(f"line {number}: not {what}") from error
        yield f"line {number}", value


def json_text(record: Record) -> Iterator[str]:
    """The record as JSON, its fields in their order."""
    yield json.dumps(record)


@dataclass(frozen=True)
class PublishedFile:
    """One file of a data set, at its public home.

    Attributes:
      name: of the TFDS data set, and the key in `checksums.json`.
      title: for messages.
      license: its license.
      url: of the download.
      folder: the subfolder of `manual_dir` that may contain it.
      local_names: possible names of a local copy, each optionally with `.gz`.
      fields: the required fields of a record; others are dropped.
      read: the file's content -> (place in the file, record).
      texts: a record -> the texts of which one must match the record's checksum.
      sha256: of the published file, if the checksums of its records were not made from itself. A file with this digest
        passes regardless of them; its records are then sorted by `key`, as those in `checksums.json` are.
      key: the field that such a file is sorted by.
    """

    name: str
    title: str
    license: str
    url: str
    folder: str
    local_names: tuple[str, ...]
    fields: tuple[str, ...]
    read: Callable[[bytes], Iterable[tuple[str, Any]]] = json_records
    texts: Callable[[Record], Iterable[str]] = json_text
    sha256: str = ""
    key: str = ""


def checked_records(file: PublishedFile, content: bytes, where: str) -> list[Record]:
    """The records of `file` in their published order, verified.

    Args:
      file: the published file.
      content: its bytes, optionally gzipped.
      where: the path or address, for messages.

    Raises:
      ValueError: something differs; the message names the line.
    """
    again = f"Take the file again from {file.url}"
    content = unzipped(content, where, again)
    if hashlib.sha256(content).hexdigest() == file.sha256:
        records = (_record(file, value, place) for place, value in file.read(content))
        return sorted(records, key=lambda record: record[file.key])

    expected, whole = checksums(file.name)
    found: dict[int, tuple[str, bytes, Record]] = {}  # index -> place in the file, digest, record
    place = ""
    try:
        for place, value in file.read(content):
            record = _record(file, value, place)
            index, digest = _find(file, record, expected)
            if index is None:
                raise ValueError(f"{place}: not a record of {file.title} as published; it was edited")
            if index in found:
                raise ValueError(f"{place}: the same record as {found[index][0]}")
            found[index] = place, digest, record
    except ValueError as error:
        raise ValueError(f"{where}, {error}. {again}") from error
    if len(found) < len(expected):
        missing = next(index for index in range(len(expected)) if index not in found)
        raise ValueError(
            f"{where} {f'ends after {place}' if place else 'is empty'}, {file.title} has {len(expected)} records; "
            f"number {missing + 1} is missing. {again}"
        )
    in_order = [found[index] for index in range(len(expected))]
    if hashlib.sha256(b"".join(digest for _, digest, _ in in_order)).hexdigest() != whole:
        raise ValueError(f"{where}: the content is not that of {file.title} as published. {again}")
    return [record for _, _, record in in_order]


@functools.cache
def checksums(name: str) -> tuple[dict[str, int], str]:
    """Checksum of a record -> its index, and the checksum of the file."""
    entry = json.loads(CHECKSUMS.read_text())[name]
    digits = entry["records"]
    starts = range(0, len(digits), _DIGITS)
    return {digits[start : start + _DIGITS]: index for index, start in enumerate(starts)}, entry["sha256"]


def unzipped(content: bytes, where: str, again: str = "") -> bytes:
    """The content of a file, which may be gzipped.

    Args:
      content: of the file.
      where: its path or address, for messages.
      again: the end of messages, which says what to do.

    Raises:
      ValueError: it is cut or damaged; the message names the last line before that.
    """
    if not content.startswith(b"\x1f\x8b"):
        return content
    lines = []
    try:
        with gzip.open(io.BytesIO(content)) as file:
            for line in file:
                lines.append(line)  # noqa: PERF402 - the message below counts those before the damage
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{where} can't be read after line {len(lines)}: {error}. {again}".rstrip()) from error
    return b"".join(lines)


def _record(file: PublishedFile, value: Any, place: str) -> Record:
    try:
        return {field: value[field] for field in file.fields}
    except (TypeError, KeyError) as error:
        raise ValueError(f"{place}: not a JSON record with {', '.join(file.fields)}") from error


def _find(file: PublishedFile, record: Record, expected: dict[str, int]) -> tuple[int | None, bytes]:
    """The index of the record, None if it was not published, and its digest."""
    for text in file.texts(record):
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass"))
        index = expected.get(digest.hexdigest()[:_DIGITS])
        if index is not None:
            return index, digest.digest()
    return None, b""
