"""Atomic writes of files in a workdir, and clear errors for a full disk."""

import contextlib
import os
from pathlib import Path


def unwritable(error: OSError, path: Path) -> OSError:
    """The same error with the file that could not be written and advice."""
    return OSError(
        error.errno,
        f"cannot write {path.name}: {error.strerror or error}. Free space on the disk or make the folder writable, "
        "then run the same command again: it continues from the last checkpoint",
        str(path),
    )


def replace(path: Path, data: bytes) -> None:
    """Writes `data` to `path` atomically: readers see the complete old or the complete new content.

    A symbolic link is followed, not replaced; what is no file, such as /dev/stdout, is written to.

    Raises:
      OSError: the disk is full or the folder not writable; the old content is untouched. The message names the file.
    """
    target = Path(os.path.realpath(path))
    if target.exists() and not target.is_file():
        target.write_bytes(data)
        return
    temporary = target.with_name(f"{target.name}.tmp")
    try:
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except OSError:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        folder = os.open(target.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # the rename survives a power loss only once the folder is on disk
        finally:
            os.close(folder)
    except OSError as error:
        raise unwritable(error, path) from error
