"""Verdicts for JSON Lines: the records of `rlvr verify`, described in docs/verifiers.md.

One output line per input line, in order: an invalid line gets a verdict with an error that names its number. Only a
batch of lines is in memory at a time, so a file may have any size.
"""

import dataclasses
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlvr_jax.verifiers import failure
from rlvr_jax.verifiers.pool import Job, Pool
from rlvr_jax.verifiers.verdict import Verdict

MAX_LINE_BYTES = 64 << 20  # a longer line is not read into memory
BATCH_BYTES = 1 << 20  # read at a time; less from a pipe, which is not waited for
BATCH_LINES = 1024  # judged at a time, so that slow verdicts are written early

_Id = str | int | float | None


@dataclass(frozen=True)
class Record:
    """A valid line: a completion, its gold answer, and the id of the verdict."""

    completion: str
    reference: Any
    id: _Id = None


class LineError(ValueError):
    """An invalid line. `id` is that of the line, if it could be parsed."""

    def __init__(self, message: str, id: _Id = None):
        super().__init__(message)
        self.id = id


def line_batches(file: io.BufferedIOBase) -> Iterator[list[bytes | None]]:
    """The lines of a binary file without newlines, in batches of one read and at most `BATCH_LINES`.

    None stands for a line of more than `MAX_LINE_BYTES`. The last line needs no newline.

    Raises:
      OSError: the file can't be read any further.
    """
    pieces: list[bytes] = []  # of an incomplete line
    size = 0

    def take(piece: bytes) -> None:
        nonlocal size
        size += len(piece)
        if size <= MAX_LINE_BYTES:
            pieces.append(piece)
        else:
            pieces.clear()

    def finish() -> bytes | None:
        nonlocal size
        line = b"".join(pieces) if size <= MAX_LINE_BYTES else None
        pieces.clear()
        size = 0
        return line

    while block := file.read1(BATCH_BYTES):
        *ends, rest = block.split(b"\n")
        for start in range(0, len(ends), BATCH_LINES):
            batch = []
            for end in ends[start : start + BATCH_LINES]:
                take(end)
                batch.append(finish())
            yield batch
        take(rest)
    if size:
        yield [finish()]


def parse(line: bytes | None) -> Record:
    """The record of one line of `line_batches`.

    Raises:
      LineError: the line is no strict JSON object in UTF-8, a field is missing or has another type, or the line is
        None.
    """
    if line is None:
        raise LineError(f"longer than {MAX_LINE_BYTES} bytes")
    if not line.strip():
        raise LineError("empty")
    try:
        fields = json.loads(line.decode("utf-8-sig"), parse_constant=_finite, parse_float=_finite)
    except UnicodeDecodeError as error:
        raise LineError(f"not UTF-8: byte {line[error.start]:#04x} at position {error.start}") from None
    except RecursionError:
        raise LineError("nested too deeply") from None
    except ValueError as error:
        raise LineError(f"not valid JSON: {error}") from None
    if not isinstance(fields, dict):
        raise LineError(f"not a JSON object but a {type(fields).__name__}")
    id = fields.get("id")
    if isinstance(id, bool) or not isinstance(id, _Id):
        raise LineError(f"id is a {type(id).__name__}, not a string or a number")
    for name in ("completion", "reference"):
        if name not in fields:
            raise LineError(f"field {name!r} is missing", id)
    if not isinstance(fields["completion"], str):
        raise LineError(f"completion is a {type(fields['completion']).__name__}, not a string", id)
    return Record(fields["completion"], fields["reference"], id)


def judge_lines(
    pool: Pool, kind: str, lines: Sequence[bytes | None], options: Mapping[str, Any] | None = None, first: int = 1
) -> list[dict[str, Any]]:
    """The output record of each line, in order: `{"id", "score", "parts", "answer", "reason", "error"}`.

    Args:
      pool: of verifier processes.
      kind: a key of `VERIFIERS`.
      lines: of `line_batches`.
      options: further keyword arguments of the verifier.
      first: number of the first line, for errors.

    Raises:
      ValueError: there is no such kind.
      RuntimeError: the pool is closed, or its workers do not start.
    """
    ids: list[_Id] = []
    verdicts: dict[int, Verdict] = {}
    jobs: dict[int, Job] = {}
    for place, line in enumerate(lines):
        try:
            record = parse(line)
        except LineError as error:
            ids.append(error.id)
            verdicts[place] = failure(f"line {first + place}: {error}")
        else:
            ids.append(record.id)
            jobs[place] = Job(kind, record.completion, record.reference, options or {})
    verdicts |= zip(jobs, pool.judge(list(jobs.values())), strict=True)
    return [{"id": id, **dataclasses.asdict(verdicts[place])} for place, id in enumerate(ids)]


def encode(record: Mapping[str, Any]) -> bytes:
    """One line of strict JSON in ASCII, newline included; lone surrogates are kept."""
    return json.dumps(record, allow_nan=False).encode() + b"\n"


def _finite(number: str) -> float:
    value = float(number)
    if not math.isfinite(value):
        raise ValueError(f"{number} is not a finite number")
    return value
