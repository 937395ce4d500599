"""The machine's processes, without the program `ps`, which small images lack."""

import contextlib
import os

import psutil


def children(parent: int, recursive: bool = False) -> list[int]:
    """Process ids of the children of a process, with `recursive` also of theirs; none if it has ended."""
    try:
        return [child.pid for child in psutil.Process(parent).children(recursive)]
    except psutil.NoSuchProcess:
        return []


def is_alive(process: int) -> bool:
    """True of a process that runs; a dead one that nobody has waited for does not."""
    try:
        return psutil.Process(process).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def sessions() -> set[int]:
    """Ids of the sessions that have a process."""
    found = set()
    for process in psutil.pids():
        with contextlib.suppress(ProcessLookupError):
            found.add(os.getsid(process))
    return found
