"""System calls of Linux for isolation that Python lacks, through ctypes.

man pages: clone(2), unshare(2), mount(2), mount_setattr(2), pivot_root(2), capset(2), prctl(2), landlock(7). Functions
raise OSError like those of `os`.
"""

import contextlib
import ctypes
import os
import platform
from collections.abc import Mapping
from pathlib import Path

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 0x2, 0x4, 0x8, 0x1000, 0x4000, 0x40000
_MNT_DETACH = 2
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_MOUNT_ATTR_RDONLY, _MOUNT_ATTR_NOSUID, _MOUNT_ATTR_NODEV = 0x1, 0x2, 0x4
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 1, 4, 24, 38, 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522
_LANDLOCK_CREATE_RULESET_VERSION, _LANDLOCK_RULE_PATH_BENEATH = 1, 1

# name: (x86_64, aarch64), from asm/unistd_64.h and asm-generic/unistd.h
_NUMBERS = {
    "clone": (56, 220),
    "pivot_root": (155, 41),
    "capset": (126, 91),
    "mount_setattr": (442, 442),
    "landlock_create_ruleset": (444, 444),
    "landlock_add_rule": (445, 445),
    "landlock_restrict_self": (446, 446),
}
MACHINES = ("x86_64", "aarch64")

# Landlock's rights on files, by the bit of linux/landlock.h
READ = 1 << 2 | 1 << 3  # files, directories
_WRITE_FILE, _TRUNCATE = 1 << 1, 1 << 14
_REMOVE_AND_MAKE = 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8 | 1 << 12 | 1 << 13  # but no devices, sockets and pipes
WRITE = READ | _WRITE_FILE | _TRUNCATE | _REMOVE_AND_MAKE
READ_FILE, WRITE_FILE = 1 << 2, 1 << 2 | _WRITE_FILE | _TRUNCATE


def machine_index() -> int:
    """The column of this machine in tables of system calls. Raises OSError on a machine for which there is none."""
    machine = platform.machine()
    if machine not in MACHINES:
        raise OSError(f"the system calls of {machine} are not known here, only those of {' and '.join(MACHINES)}")
    return MACHINES.index(machine)


_libc = ctypes.PyDLL(None, use_errno=True)  # keeps the interpreter's lock: nothing may run between clone and its return


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def _syscall(name: str, *arguments: object) -> int:
    number = _NUMBERS[name][machine_index()]
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *wide), name)


def clone(namespaces: int) -> int:
    """`os.fork` into new namespaces; the child is process 1 of its pid namespace. Single-threaded callers only."""
    ctypes.pythonapi.PyOS_BeforeFork()
    try:
        pid = _syscall("clone", namespaces | 17, 0, 0, 0, 0)  # 17: SIGCHLD when it ends
    except OSError:
        ctypes.pythonapi.PyOS_AfterFork_Parent()
        raise
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
    else:
        ctypes.pythonapi.PyOS_AfterFork_Parent()
    return pid


def unshare(namespaces: int) -> None:
    _checked(_libc.unshare(ctypes.c_int(namespaces)), "unshare")


def mount(source: str | None, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    texts = [text if text is None else os.fsencode(text) for text in (source, target, kind, options)]
    _checked(_libc.mount(*texts[:3], ctypes.c_ulong(flags), texts[3]), f"mount {kind or source} on {target}")


def make_read_only(path: str, devices: bool = False) -> None:
    """Makes a mount and its submounts read-only, without set-uid, and without devices unless requested."""
    attributes = _MOUNT_ATTR_RDONLY | _MOUNT_ATTR_NOSUID | (0 if devices else _MOUNT_ATTR_NODEV)
    change = (ctypes.c_uint64 * 4)(attributes, 0, 0, 0)
    flags = _AT_RECURSIVE
    _syscall("mount_setattr", _AT_FDCWD, os.fsencode(path), flags, ctypes.byref(change), ctypes.sizeof(change))


def pivot_root(path: str) -> None:
    """Makes the mount at `path` the root, and unmounts the old root."""
    os.chdir(path)
    _syscall("pivot_root", b".", b".")
    _checked(_libc.umount2(b".", _MNT_DETACH), "umount2")
    os.chdir("/")


def _prctl(option: int, *arguments: int) -> None:
    padded = [ctypes.c_ulong(a) for a in (*arguments, 0, 0, 0, 0)[:4]]
    _checked(_libc.prctl(ctypes.c_int(option), *padded), f"prctl {option}")


def die_with_parent() -> None:
    _prctl(_PR_SET_PDEATHSIG, 9)


def set_dumpable(yes: bool) -> None:
    """Lets processes of the same user inspect this one, or not; also determines the owner of its files in /proc."""
    _prctl(_PR_SET_DUMPABLE, int(yes))


def drop_bounding_capabilities() -> None:
    """Prevents programs started by this process from gaining capabilities."""
    with contextlib.suppress(OSError):  # EINVAL after the last capability that this kernel knows
        for capability in range(64):
            _prctl(_PR_CAPBSET_DROP, capability)


def drop_capabilities() -> None:
    """Gives up all capabilities, and any way to gain privileges again."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    _syscall("capset", ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)()))
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def landlock_version() -> int:
    """The ABI of Landlock here. Raises OSError where the kernel has none."""
    return _syscall("landlock_create_ruleset", None, 0, _LANDLOCK_CREATE_RULESET_VERSION)


def restrict_files(rights: Mapping[str, int]) -> None:
    """Landlock: from now on only these paths, with these rights; and no TCP, and where the kernel can, no signals
    and abstract sockets to outside. Paths that do not exist are left out. Needs `drop_capabilities` first."""
    version = landlock_version()
    handled = (1 << 13) - 1
    for since, bit in ((2, 13), (3, 14), (5, 15)):
        handled |= (version >= since) << bit
    attributes = (ctypes.c_uint64 * 3)(handled, 0b11, 0b11)
    size = 8 if version < 4 else 16 if version < 6 else 24
    rules = _syscall("landlock_create_ruleset", ctypes.byref(attributes), size, 0)
    for path, right in rights.items():
        try:
            file = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except (FileNotFoundError, PermissionError):
            continue
        right &= handled if Path(path).is_dir() else handled & WRITE_FILE
        rule = right.to_bytes(8, "little") + file.to_bytes(4, "little")
        _syscall("landlock_add_rule", rules, _LANDLOCK_RULE_PATH_BENEATH, rule, 0)
        os.close(file)
    _syscall("landlock_restrict_self", rules, 0)
    os.close(rules)


def set_filter(program: bytes) -> None:
    """Installs a seccomp filter, given as its instructions. Needs `drop_capabilities` first."""

    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))

    held = Program(len(program) // 8, program)
    _checked(_libc.prctl(ctypes.c_int(22), ctypes.c_ulong(2), ctypes.byref(held), 0, 0), "seccomp")


def map_users(proc: int, uid: int, gid: int) -> None:
    """In a fresh user namespace: the user and group stay who they are. `proc` is an open directory, /proc."""
    for name, text in (("setgroups", "deny"), ("gid_map", f"{gid} {gid} 1"), ("uid_map", f"{uid} {uid} 1")):
        file = os.open(f"self/{name}", os.O_WRONLY, dir_fd=proc)
        try:
            os.write(file, text.encode())
        finally:
            os.close(file)


def bind(source: str, root: str) -> None:
    """The file or directory `source` at the same place below `root`, read only. A link is copied as a link."""
    target = Path(root + source)
    target.parent.mkdir(parents=True, exist_ok=True)
    if Path(source).is_symlink():
        target.symlink_to(Path(source).readlink())
        return
    is_directory = Path(source).is_dir()
    if is_directory:
        target.mkdir(exist_ok=True)
    else:
        target.touch()
    mount(source, str(target), None, MS_BIND | MS_REC)
    make_read_only(str(target), devices=source.startswith("/dev/"))
