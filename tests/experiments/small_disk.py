"""Runs a command on a disk that is too small for it, and again when the disk has become larger. Needs no rights.

    python -m tests.experiments.small_disk FOLDER MODULE FLAGS...

The folder becomes the disk, for this process alone; at the end what it holds is copied to FOLDER-after.
"""

import ctypes
import os
import shutil
import sys
from pathlib import Path

from tests.experiments import runs
from tests.experiments.calls import run_here

SMALL, LARGE = "300k", "8m"  # a checkpoint fits in the first one
_NEW_USER, _NEW_MOUNTS, _REMOUNT = 0x10000000, 0x00020000, 32  # sched.h, sys/mount.h


def main() -> None:
    folder, module, *arguments = sys.argv[1:]
    files = [os.devnull, *(str(Path(f"/proc/self/fd/{i}").readlink()) for i in (1, 2))]
    user, group = os.getuid(), os.getgid()
    _call("unshare", _NEW_USER | _NEW_MOUNTS)
    for file, text in (("setgroups", "deny"), ("gid_map", f"{group} {group} 1"), ("uid_map", f"{user} {user} 1")):
        Path(f"/proc/self/{file}").write_text(text)
    for flags, size, expected in ((0, SMALL, 1), (_REMOUNT, LARGE, 0)):
        _call("mount", b"none", folder.encode(), b"tmpfs", flags, f"size={size}".encode())
        status = run_here(module, arguments, str(Path(folder).parent), dict(os.environ), files, [])
        runs.take_files(files)
        assert status == expected, (size, status)
    shutil.copytree(folder, f"{folder}-after")


def _call(name: str, *arguments: int | bytes) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    main()
