"""The system calls that a sandboxed program may make, as a seccomp filter.

All others fail with EPERM: no sockets, no processes or threads, no programs started, no signals, no
tracing, no mounts, no namespaces, no memory outside the address space, no kernel facilities that Python does not need.
A filter is a program for the kernel's classic BPF machine, see seccomp(2) and linux/filter.h.
"""

import errno
import struct

from rlvr_jax.sandbox.kernel import machine_index

# name: (x86_64, aarch64), None where the machine has no such call
_ALLOWED: dict[str, tuple[int | None, int | None]] = {
    # open files
    "read": (0, 63), "write": (1, 64), "readv": (19, 65), "writev": (20, 66), "pread64": (17, 67),
    "pwrite64": (18, 68), "close": (3, 57), "close_range": (436, 436), "lseek": (8, 62), "fstat": (5, 80),
    "dup": (32, 23), "dup2": (33, None), "dup3": (292, 24), "pipe": (22, None), "pipe2": (293, 59),
    "select": (23, None), "pselect6": (270, 72), "poll": (7, None), "ppoll": (271, 73), "flock": (73, 32),
    "fsync": (74, 82), "fdatasync": (75, 83), "getdents64": (217, 61), "sendfile": (40, 71),
    # paths; Landlock says which
    "open": (2, None), "openat": (257, 56), "stat": (4, None), "lstat": (6, None), "newfstatat": (262, 79),
    "statx": (332, 291), "access": (21, None), "faccessat": (269, 48), "faccessat2": (439, 439), "statfs": (137, 43),
    "fstatfs": (138, 44), "readlink": (89, None), "readlinkat": (267, 78), "getcwd": (79, 17), "chdir": (80, 49),
    "fchdir": (81, 50), "umask": (95, 166),
    # memory
    "mmap": (9, 222), "mprotect": (10, 226), "munmap": (11, 215), "mremap": (25, 216), "madvise": (28, 233),
    "brk": (12, 214),
    # time
    "time": (201, None), "gettimeofday": (96, 169), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "nanosleep": (35, 101), "clock_nanosleep": (230, 115), "times": (100, 153), "getitimer": (36, 102),
    "setitimer": (38, 103), "alarm": (37, None),
    # itself
    "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "rt_sigpending": (127, 136),
    "sigaltstack": (131, 132), "restart_syscall": (219, 128), "getpid": (39, 172), "getppid": (110, 173),
    "gettid": (186, 178), "getuid": (102, 174), "getgid": (104, 176), "geteuid": (107, 175), "getegid": (108, 177),
    "getgroups": (115, 158), "getrusage": (98, 165), "getrlimit": (97, 163), "setrlimit": (160, 164),
    "sched_yield": (24, 124), "sched_getaffinity": (204, 123), "futex": (202, 98), "set_robust_list": (273, 99),
    "rseq": (334, 293), "getrandom": (318, 278), "uname": (63, 160), "sysinfo": (99, 179), "exit": (60, 93),
    "exit_group": (231, 94),
}  # fmt: skip
# Only with a writable folder: Landlock does not control mode and times of files.
_WRITING: dict[str, tuple[int | None, int | None]] = {
    "creat": (85, None), "truncate": (76, 45), "ftruncate": (77, 46), "rename": (82, None), "renameat": (264, 38),
    "renameat2": (316, 276), "mkdir": (83, None), "mkdirat": (258, 34), "rmdir": (84, None), "link": (86, None),
    "linkat": (265, 37), "unlink": (87, None), "unlinkat": (263, 35), "symlink": (88, None), "symlinkat": (266, 36),
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "utimensat": (280, 88),
}  # fmt: skip
# With conditions: call, index of the argument, its allowed values.
_CONDITIONAL: tuple[tuple[tuple[int, int], int, tuple[int, ...]], ...] = (
    # fcntl: duplicate, flags, locks. Not whom a file signals.
    ((72, 25), 1, (0, 1, 2, 3, 4, 5, 6, 7, 1030)),
    ((302, 261), 0, (0,)),  # prlimit64: of itself
)
# Calls for which another error tells the C library to do without: ioctl (nothing is a terminal), clone3, openat2.
_ERRORS = (((16, 29), errno.ENOTTY), ((435, 435), errno.ENOSYS), ((437, 437), errno.ENOSYS))

_ARCHITECTURES = (0xC000003E, 0xC00000B7)  # AUDIT_ARCH_X86_64, AUDIT_ARCH_AARCH64
_X32 = 0x40000000  # numbers from here on are those of another ABI of x86_64
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)


def job_filter(writing: bool = True) -> bytes:
    """The filter's instructions for this machine. Raises OSError if its system calls are not known.

    Args:
      writing: allow calls that change files and folders.
    """
    machine = machine_index()
    program = [
        _instruction(_LOAD, _ARCHITECTURE),
        _instruction(_EQUAL, _ARCHITECTURES[machine], 1, 0),
        _instruction(_RETURN, _KILL),
        _instruction(_LOAD, _NUMBER),
        _instruction(_AT_LEAST, _X32, 0, 1),
        _instruction(_RETURN, _KILL),
    ]
    for numbers in [*_ALLOWED.values(), *(_WRITING.values() if writing else ())]:
        if numbers[machine] is not None:
            program += [_instruction(_EQUAL, numbers[machine], 0, 1), _instruction(_RETURN, _ALLOW)]
    for numbers, error in _ERRORS:
        program += [_instruction(_EQUAL, numbers[machine], 0, 1), _instruction(_RETURN, _ERRNO | error)]
    for numbers, argument, values in _CONDITIONAL:
        length = 2 + 2 * len(values)  # the instructions to skip for any other call
        program += [_instruction(_EQUAL, numbers[machine], 0, length)]
        program += [_instruction(_LOAD, _ARGUMENTS + 8 * argument)]  # the lower half; both arguments are ints
        for value in values:
            program += [_instruction(_EQUAL, value, 0, 1), _instruction(_RETURN, _ALLOW)]
        program += [_instruction(_RETURN, _ERRNO | errno.EPERM)]
    program += [_instruction(_RETURN, _ERRNO | errno.EPERM)]
    return b"".join(program)
