"""TensorBoard events of a run: `tensorboard --logdir <workdir>` shows them.

tensorboardX provides the event messages and the checksum; the file is written here. Its `SummaryWriter` writes from a
background thread, which dies silently when the disk is full and then blocks the run forever; it also renames
metrics (`eval/pass@8` to `eval/pass_8`), and two writers opened in the same second overwrite each other's file.
"""

import contextlib
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from rlvr_jax.reporting import files


@dataclass(frozen=True)
class Writer:
    """An open event file."""

    path: Path
    file: IO[bytes]


@contextlib.contextmanager
def events(workdir: Path | str, purge_step: int | None = None) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A function that writes a row of metrics to a new event file; see `open_writer` and `write`."""
    writer = open_writer(workdir, purge_step)
    try:
        yield lambda row: write(writer, row)
    finally:
        close(writer)


def open_writer(workdir: Path | str, purge_step: int | None = None) -> Writer:
    """Opens a new event file in `workdir/tensorboard/`.

    Args:
      workdir: of the run.
      purge_step: the first step that will be written by a resumed run. TensorBoard hides this step and later ones of
        earlier event files in the folder. None for a new run.

    Raises:
      OSError: the folder is not writable.
    """
    from tensorboardX.proto import event_pb2  # imported late: a quarter of a second

    seconds, nanoseconds = divmod(time.time_ns(), 10**9)
    # TensorBoard reads the files of a folder in the order of their names.
    name = f"events.out.tfevents.{seconds:010d}.{nanoseconds:09d}.{socket.gethostname()}"
    path = Path(workdir).absolute() / "tensorboard" / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = Writer(path, path.open("xb", buffering=0))
    except OSError as error:
        raise files.unwritable(error, path) from error
    _write(writer, event_pb2.Event(wall_time=time.time(), file_version="brain.Event:2"))
    if purge_step is not None:
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        _write(writer, event_pb2.Event(wall_time=time.time(), step=purge_step, session_log=start))
    return writer


def write(writer: Writer, row: Mapping[str, Any]) -> None:
    """Writes every number of a row of metrics as a scalar under its own name, at step `row["step"]`.

    Other values are in `metrics.jsonl` only. TensorBoard stores float32, so only `metrics.jsonl` has the metrics to the
    bit.

    Raises:
      OSError: the disk is full. The message names the file and says what to do.
    """
    from tensorboardX.proto import event_pb2, summary_pb2

    scalars = [
        summary_pb2.Summary.Value(tag=name, simple_value=float(value))
        for name, value in row.items()
        if name != "step" and isinstance(value, int | float)
    ]
    summary = summary_pb2.Summary(value=scalars)
    _write(writer, event_pb2.Event(wall_time=time.time(), step=row["step"], summary=summary))


def close(writer: Writer) -> None:
    """Closes the event file."""
    writer.file.close()


def _write(writer: Writer, event: Any) -> None:
    """Appends one record in TFRecord framing: length, its checksum, content, its checksum."""
    from tensorboardX.record_writer import masked_crc32c

    content = event.SerializeToString()
    length = struct.pack("<Q", len(content))
    record = length + struct.pack("<I", masked_crc32c(length)) + content + struct.pack("<I", masked_crc32c(content))
    start = os.fstat(writer.file.fileno()).st_size
    try:
        written = 0
        while written < len(record):
            written += writer.file.write(record[written:])
    except OSError as error:
        with contextlib.suppress(OSError):
            writer.file.truncate(start)  # readers stop at a torn record
            writer.file.seek(start)
        raise files.unwritable(error, writer.path) from error
