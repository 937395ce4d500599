"""A lock that allows one writer per workdir and is released when its process dies."""

import contextlib
import errno
import fcntl
import os
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from rlvr_jax.errors import InUseError
from rlvr_jax.reporting import files

_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)  # some network file systems


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Holds the lock of an existing folder. The file `lock` names the holder, and is empty without one.

    The kernel ties the lock to the open file, so it is released however the process ends. On a file system without
    locks a warning is printed, and nothing is locked.

    Raises:
      InUseError: another process holds it; the message names it and its machine.
      OSError: the file can't be written.
    """
    path = workdir / "lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise files.unwritable(error, path) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 1000, 0).decode(errors="replace").strip() or "another process"
            message = f"{workdir} is in use by {holder}. Wait for it, stop it, or use another --workdir"
            raise InUseError(message) from None
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise files.unwritable(error, path) from error
            print(f"note: the file system of {workdir} has no locks: start no second run there", file=sys.stderr)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()} since {time.ctime()}\n".encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)
