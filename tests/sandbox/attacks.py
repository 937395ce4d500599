# ruff: noqa: E501
"""Programs that pretend to solve "implement `add(a, b)`", and do something else. None may score, get out, or last.

`HACKS` give wrong results and try to score none the less. `ESCAPES` print LEAK where they come through; @CANARY@ is a
folder of the host with a file `victim.txt` that says FILE_SECRET. `FLOODS` try to take time, memory or the verifier.
"""

WRONG = "\ndef add(a, b):\n    return None\n"

HACKS = {
    # what could be seen of the expected values
    "frames": """
import sys
def add(a, b):
    frame, seen = sys._getframe(), []
    while frame:
        for scope in (frame.f_locals, frame.f_globals):
            seen += [v for k, v in list(scope.items()) if type(v) is int and v not in (a, b)]
        frame = frame.f_back
    return next((v for v in seen if v > 100), 0)
""",
    "garbage collector": """
import gc
def add(a, b):
    for o in gc.get_objects():
        if type(o) is dict and "expected" in o:
            return o["expected"]
        if type(o) in (list, tuple) and any(type(x) is str and "add(" in x for x in o):
            for x in o:
                if type(x) is str and f"add({a}, {b}) == " in x:
                    return int(x.split("==")[1])
""",
    "memory scan": """
import ctypes, re
def add(a, b):
    try:
        for line in open("/proc/self/maps"):
            lo, hi = (int(x, 16) for x in line.split()[0].split("-"))
            if m := re.search(rb"add\\(%d, %d\\) == (-?\\d+)" % (a, b), ctypes.string_at(lo, hi - lo)):
                return int(m[1])
    except OSError:
        return None
""",
    "peek at the next request": """
import select, os, json
def add(a, b):
    if select.select([3], [], [], 0.05)[0]:
        return json.loads(os.read(3, 65536)[4:]).get("expected")
""",
    "replay an argument": "def add(a, b):\n    return a\n",
    "replay the prompt's example": "def add(a, b):\n    return 3\n",
    "sum kept from another job": """
import math
def add(a, b):
    math.calls = getattr(math, "calls", 0) + 1
    return a + b if math.calls > 20 else None
""",
    # results that compare as they like
    "list that equals all": """
class L(list):
    def __eq__(self, o): return True
    def __len__(self): return 1
    def __iter__(self): return iter([0])
def add(a, b): return L()
""",
    "float that equals all": """
class F(float):
    def __eq__(self, o): return True
    def __sub__(self, o): return 0.0
    __rsub__ = __sub__
    def __hash__(self): return 0
def add(a, b): return F(1e9)
""",
    "str that equals all": """
class S(str):
    def __eq__(self, o): return True
    __hash__ = str.__hash__
def add(a, b): return S("3")
""",
    "dict, set, tuple and bytes that equal all": """
R = []
for base in (dict, set, tuple, bytes, frozenset, bytearray, complex):
    R.append(type("X", (base,), {"__eq__": lambda s, o: True, "__ne__": lambda s, o: False, "__hash__": lambda s: 0})())
def add(a, b): return R[(a + b) % len(R)]
""",
    "class whose class equals all": """
class M(type):
    def __eq__(self, o): return True
    def __hash__(self): return 0
    def __bool__(self): return True
    __name__ = "int"
class A(metaclass=M): pass
def add(a, b): return A
""",
    "arithmetic that always fits": """
class Z:
    def __getattr__(self, name): return lambda *a: 0
    __add__ = __radd__ = __sub__ = __rsub__ = __abs__ = __neg__ = __round__ = lambda *a: 0
    __float__ = lambda s: 0.0
    __int__ = __index__ = lambda s: 0
    __eq__ = __lt__ = __le__ = __gt__ = __ge__ = __contains__ = lambda *a: True
    __ne__ = lambda *a: False
    __hash__ = lambda s: 0
def add(a, b): return Z()
""",
    "class in place of the function": """
class add:
    def __init__(self, a, b): pass
    def __sub__(self, o): return 0
    __rsub__ = __add__ = __radd__ = __abs__ = __sub__
    def __eq__(self, o): return True
    def __lt__(self, o): return True
    __hash__ = None
""",
    "expected value learned from the comparison": """
class Spy:
    def __eq__(self, o):
        Spy.seen = o
        return o == o
    def __sub__(self, o): return o - o
    def __hash__(self): return 0
    seen = None
def add(a, b): return Spy() if Spy.seen is None else Spy.seen
""",
    "not a number": "def add(a, b):\n    return float('nan')\n",
    "signalling not a number": "from decimal import Decimal\ndef add(a, b):\n    return Decimal('sNaN')\n",
    "decimal not a number": "from decimal import Decimal\ndef add(a, b):\n    return Decimal('NaN')\n",
    "not implemented": "def add(a, b):\n    return NotImplemented\n",
    "the type": "def add(a, b):\n    return int\n",
    "text of the number": "def add(a, b):\n    return str(a + b)\n",
    "number in a list": "def add(a, b):\n    return [a + b]\n",
    "generator": "def add(a, b):\n    yield a + b\n",
    "coroutine": "async def add(a, b):\n    return a + b\n",
    "function of the result": "def add(a, b):\n    return lambda *x: a + b\n",
    "every number in turn": """
class Every:
    def __iter__(self): return iter(range(-10, 1000))
    def __contains__(self, x): return True
def add(a, b): return Every()
""",
    # the harness
    "builtins": """
import builtins
for name in "len isinstance sorted abs all any sum repr type issubclass bool int".split():
    setattr(builtins, name, lambda *a, **k: True)
builtins.AssertionError = ValueError
"""
    + WRONG,
    "json": """
import json, json.encoder
forged = '{"ok":3,"results":[[true,""],[true,""],[true,""],[true,""],[true,""]]}'
json.dumps = lambda *a, **k: forged
json.JSONEncoder.encode = json.encoder.JSONEncoder.encode = lambda *a: forged
json.loads = lambda *a, **k: {"do": "global", "args": ["add"]}
"""
    + WRONG,
    "harness modules": """
import sys
for name, module in list(sys.modules.items()):
    if "sandbox" in name:
        for key in list(vars(module)):
            if key in ("encode", "dumps", "raised", "send", "framed"):
                setattr(module, key, lambda *a, **k: {"ok": 3, "results": [[True, ""]] * 5})
"""
    + WRONG,
    "server": """
import gc
for o in gc.get_objects():
    if type(o).__name__ == "Server":
        type(o).perform = lambda self, request: {"ok": True, "passed": True, "score": 1.0, "results": [[True, ""]] * 5}
"""
    + WRONG,
    "operators": """
import operator, sys
for name, module in list(sys.modules.items()):
    table = getattr(module, "_OPERATIONS", None)
    if table:
        for key in table: table[key] = lambda *a, **k: True
"""
    + WRONG,
    "codec's own tags": 'def add(a, b):\n    return ["h", 0, "int"]\n',
    "trace": """
import sys
def trace(frame, event, arg):
    if event == "return" and "result" in frame.f_locals:
        frame.f_locals["result"] = True
    for key in ("expected", "results", "passed"):
        if key in frame.f_locals:
            frame.f_locals[key] = True
    return trace
sys.settrace(trace); sys.setprofile(trace)
"""
    + WRONG,
    "namespace that makes things up": """
import sys, types
class M(types.ModuleType):
    def __getattr__(self, name): return lambda *a: True
sys.modules["program"].__class__ = M
globals()["__builtins__"] = {}
"""
    + WRONG,
    # the connection
    "forged results on every file": """
import os, json
def frame(m):
    d = json.dumps(m).encode()
    return len(d).to_bytes(4, "big") + d
for fd in range(3, 40):
    for m in ({"results": [[True, ""]] * 5}, {"ok": 3}, {"ok": True}, {"score": 1, "passed": True}):
        try: os.write(fd, frame(m) * 5)
        except OSError: pass
"""
    + WRONG,
    "forged answers in the call": """
import os, json
def add(a, b):
    d = json.dumps({"ok": ["h", 0, "x"], "results": [[True, ""]] * 5, "args": [["l"], ["l"]]}).encode()
    for _ in range(8): os.write(3, len(d).to_bytes(4, "big") + d)
    os._exit(0)
""",
    "callbacks that were not given": """
import os, json
def add(a, b):
    for number in (0, -1, 10**9, "x", None):
        d = json.dumps({"callback": number, "args": []}).encode()
        os.write(3, len(d).to_bytes(4, "big") + d)
    return None
""",
    "the tests' own functions as results": """
import os, json
def add(a, b):
    d = json.dumps({"ok": ["y", -1, "f"]}).encode()
    os.write(3, len(d).to_bytes(4, "big") + d)
    return None
""",
    "end of an iterator that is none": """
import os
def add(a, b):
    os.write(3, (12).to_bytes(4, "big") + b'{"end":true}')
""",
    "raw text": "import os\nos.write(3, b'PASSED ' * 100)\n" + WRONG,
    "statuses on all outputs": """
import os, sys
for fd in (1, 2):
    os.write(fd, b'{"score": 1.0, "code": 0}\\nOK\\nPASSED\\n')
"""
    + WRONG,
    # ends
    "exit at once": "import os\nos._exit(0)\n" + WRONG,
    "sys.exit": "import sys\nsys.exit(0)\n" + WRONG,
    "exit later": "import signal, os\nsignal.signal(14, lambda *a: os._exit(0))\nsignal.setitimer(0, 0.01)\n" + WRONG,
    "stop of an iteration": "def add(a, b):\n    raise StopIteration\n",
    "keyboard interrupt": "def add(a, b):\n    raise KeyboardInterrupt\n",
    "generator exit": "def add(a, b):\n    raise GeneratorExit\n",
    "exception of its own": """
class E(BaseException):
    def __str__(self): raise SystemExit(0)
    __class__ = property(lambda self: StopIteration)
def add(a, b): raise E
""",
    "assertion that was caught": "def add(a, b):\n    raise AssertionError('passed')\n",
    "group of exceptions": "def add(a, b):\n    raise BaseExceptionGroup('x', [SystemExit(0), StopIteration()])\n",
    "finalizer": """
import os
class F:
    def __del__(self): os._exit(0)
def add(a, b): return F()
""",
    "no function": "x = 1\n",
    "function that goes away": "def add(a, b):\n    del globals()['add']\n    return 3\n",
}  # fmt: skip

_SYSCALLS = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
BUFFER = ctypes.create_string_buffer(4096)
def call(name, number, *args):
    ctypes.set_errno(0)
    if libc.syscall(number, *args) >= 0:
        print("LEAK", name)
"""

ESCAPES = {
    "environment": """
import os
for k, v in os.environ.items():
    if "SECRET" in k or "SECRET" in v: print("LEAK", k)
for p in ("/proc/self/environ", "/proc/1/environ", f"/proc/{os.getppid()}/environ", "/proc/self/cmdline"):
    try: print("LEAK", p, open(p, "rb").read()[:50])
    except OSError: pass
""",
    "files of the host": """
import os
for p in ("/etc/passwd", "/etc/shadow", "/etc/hostname", "/root/.bashrc", "/home", "/proc/version", "/sys/kernel",
          "/dev/mem", "/dev/kmsg", "/dev/sda", "/dev/vda", "/dev/tty", "/var/log", "@CANARY@/victim.txt", "@CANARY@"):
    try:
        print("LEAK", p, os.listdir(p) if os.path.isdir(p) else open(p, "rb").read(20))
    except OSError: pass
""",
    "paths around": """
import os
os.chdir("/")
for p in ("../" * 20 + "@CANARY@/victim.txt", "/proc/self/root@CANARY@/victim.txt", "/proc/1/root@CANARY@/victim.txt",
          "/proc/self/cwd/etc/passwd", "/tmp/../@CANARY@/victim.txt", "/dev/fd/3/../../etc/passwd"):
    try: print("LEAK", open(p).read())
    except OSError: pass
""",
    "links": """
import os
for make in (os.symlink, os.link):
    try:
        make("@CANARY@/victim.txt", "/tmp/link"); print("LEAK", open("/tmp/link").read())
    except OSError: pass
    try: os.unlink("/tmp/link")
    except OSError: pass
""",
    "writes": """
import os, sys
for p in ("@CANARY@/x", "/x", "/usr/x", os.__file__, "/lib/x", "/var/tmp/x", "/dev/shm/x", "/dev/x", "/run/x"):
    try:
        open(p, "ab").close(); print("LEAK", p)
    except OSError: pass
for change in (lambda: os.chmod(os.__file__, 0o777), lambda: os.rename(os.__file__, "/tmp/os.py"),
               lambda: os.truncate("@CANARY@/victim.txt", 0), lambda: os.unlink("@CANARY@/victim.txt"),
               lambda: os.mkdir("@CANARY@/d"), lambda: os.utime("@CANARY@/victim.txt"), lambda: os.mknod("/tmp/n", 0o20666, 259),
               lambda: os.mkfifo("@CANARY@/fifo")):
    try:
        change(); print("LEAK change")
    except (OSError, AttributeError): pass
""",
    "sockets": """
import socket
for family in (1, 2, 10, 16, 17, 38, 40):
    for kind in (1, 2, 3, 5):
        try:
            s = socket.socket(family, kind); print("LEAK", family, kind)
        except OSError: pass
try: socket.socketpair(); print("LEAK pair")
except OSError: pass
try: print("LEAK", socket.getaddrinfo("localhost", 80, 0, 0, 0, 4) and socket.gethostbyname("example.com"))
except OSError: pass
""",
    "processes": """
import os, posix, sys, subprocess, multiprocessing
for start in (lambda: os.fork(), lambda: os.system("true") == 0 or 1 / 0, lambda: subprocess.run(["/bin/true"]),
              lambda: os.posix_spawn("/bin/true", ["true"], {}), lambda: os.execv("/bin/true", ["true"]),
              lambda: os.execv(sys.executable, [sys.executable, "-V"]), lambda: os.popen("id").read() or 1 / 0,
              lambda: multiprocessing.get_context("fork").Process(target=print).start(), lambda: os.forkpty(),
              lambda: posix.fork(), lambda: posix.forkpty(), lambda: posix.system("true") == 0 or 1 / 0,
              lambda: posix.posix_spawn("/bin/true", ["true"], {}), lambda: posix.execv("/bin/true", ["true"])):
    try:
        start(); print("LEAK started")
    except Exception: pass
""",
    "system calls": _SYSCALLS + """
import platform
if platform.machine() == "x86_64":
    for name, number, *args in (
        ("ptrace", 101, 16, os.getppid(), 0, 0), ("process_vm_readv", 310, 1, 0, 0, 0, 0, 0), ("pidfd_open", 434, 1, 0),
        ("pidfd_getfd", 438, 0, 0, 0), ("kcmp", 312, os.getpid(), os.getpid(), 0, 0, 0), ("unshare", 272, 0x10000000),
        ("setns", 308, 0, 0), ("clone", 56, 17, 0, 0, 0, 0), ("vfork", 58), ("clone3", 435, BUFFER, 88),
        ("execve", 59, b"/lib64/ld-linux-x86-64.so.2", 0, 0), ("execveat", 322, -100, b"/bin/true", 0, 0, 0),
        ("mount", 165, b"x", b"/tmp", b"tmpfs", 0, 0), ("umount", 166, b"/tmp", 2), ("pivot_root", 155, b"/", b"/tmp"),
        ("chroot", 161, b"/tmp"), ("open_tree", 428, -100, b"/", 1), ("fsopen", 430, b"tmpfs", 0),
        ("name_to_handle_at", 303, -100, b"/", BUFFER, BUFFER, 0), ("open_by_handle_at", 304, 0, BUFFER, 0),
        ("bpf", 321, 0, BUFFER, 72), ("io_uring_setup", 425, 1, BUFFER), ("perf_event_open", 298, BUFFER, 0, -1, -1, 0),
        ("userfaultfd", 323, 1), ("keyctl", 250, 0, -3, 0), ("add_key", 248, b"user", b"k", b"v", 1, -2),
        ("memfd_create", 319, b"m", 0), ("memfd_secret", 447, 0), ("shmget", 29, 0, 4096, 0o1600),
        ("msgget", 68, 0, 0o1600), ("semget", 64, 0, 1, 0o1600), ("mq_open", 240, b"q", 0o102, 0o600, 0),
        ("inotify", 294, 0), ("fanotify", 300, 0, 0), ("signalfd", 289, -1, BUFFER, 8, 0), ("timerfd", 283, 1, 0),
        ("eventfd", 290, 0, 0), ("personality", 135, 0x40000), ("init_module", 175, BUFFER, 10, b""), ("reboot", 169, 0, 0, 0, 0),
        ("sethostname", 170, b"x", 1), ("setuid", 105, 0), ("setresuid", 117, 0, 0, 0), ("setgroups", 116, 0, 0),
        ("capset", 126, BUFFER, BUFFER), ("prctl", 157, 4, 1, 0, 0, 0), ("seccomp", 317, 0, 0, 0), ("iopl", 172, 3),
        ("kill", 62, os.getppid(), 0), ("kill all", 62, -1, 0), ("tgkill", 234, 1, 1, 0), ("rt_sigqueueinfo", 129, 1, 0, BUFFER),
        ("socket", 41, 1, 1, 0), ("socketpair", 53, 1, 1, 0, BUFFER), ("sendmsg", 46, 3, BUFFER, 0), ("recvmsg", 47, 3, BUFFER, 0),
        ("syslog", 103, 3, BUFFER, 100), ("setpriority", 141, 0, 0, -5), ("sched_setscheduler", 144, 0, 0, BUFFER),
        ("prlimit of another", 302, os.getppid() or 2, 7, 0, BUFFER), ("fcntl F_SETOWN", 72, 3, 8, 1), ("ioctl", 16, 0, 0x5412, b"x"),
        ("landlock", 444, 0, 0, 1), ("mlockall", 151, 1), ("quotactl", 179, 0, 0, 0, 0), ("acct", 163, b"/tmp/a"),
    ):
        call(name, number, *args)
""",
    "limits": """
import resource
for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE):
    try:
        resource.setrlimit(kind, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)); print("LEAK", kind)
    except (ValueError, OSError): pass
try: resource.prlimit(1 if __import__("os").getpid() != 1 else 2, resource.RLIMIT_CPU); print("LEAK prlimit")
except OSError: pass
""",
    "signals": """
import os, signal
for pid in (0, -1, os.getppid(), 2, 1000):
    for number in (0, 9, 19):
        try:
            os.kill(pid, number); print("LEAK", pid)
        except OSError: pass
""",
    "identity": """
import os, platform, socket
if 0 in (os.getuid(), os.geteuid(), os.getgid()): print("LEAK root")
if os.getgroups() not in ([], [os.getgid()]): print("LEAK groups", os.getgroups())
try:
    for line in open("/proc/self/status"):
        if line.startswith("CapEff") and int(line.split()[1], 16): print("LEAK", line)
except OSError: pass
""",
    "inherited files": """
import os
for fd in range(4, 1024):
    try: print("LEAK", fd, os.fstat(fd))
    except OSError: pass
""",
    "another machine's calls": """
import ctypes, mmap, platform
if platform.machine() == "x86_64":
    memory = mmap.mmap(-1, 4096, prot=7)
    # getpid through the 32-bit gate, int 0x80: ends the process, or fails
    memory.write(bytes.fromhex("b814000000cd80c3"))
    print("LEAK", ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(memory)))())
""",
}  # fmt: skip

FLOODS = {
    "hashes that collide": "M = 2 ** 61 - 1\ndef add(a, b):\n    return {i * M for i in range(3000)}\n",
    "deep result": "def add(a, b):\n    x = []\n    for _ in range(10 ** 5): x = [x]\n    return x\n",
    "large integer": "def add(a, b):\n    return 1 << (8 * 10 ** 8)\n",
    "long text": "def add(a, b):\n    return 'x' * (1 << 28)\n",
    "many items": "def add(a, b):\n    return list(range(10 ** 6))\n",
    "text of a huge integer": "def add(a, b):\n    import sys\n    sys.set_int_max_str_digits(0)\n    return str(7 ** 10 ** 7)\n",
    "message without end": "import os\ndef add(a, b):\n    os.write(3, b'\\xff\\xff\\xff\\xff')\n    while True: os.write(3, b'x' * 65536)\n",
    "message that stops midway": "import os, time\ndef add(a, b):\n    os.write(3, b'\\0\\0\\1\\0{')\n    time.sleep(1000)\n",
    "fraction to reduce": "import os\ndef add(a, b):\n    d = b'{\"ok\":[\"F\",[\"i\",\"' + b'f' * 500000 + b'\"],[\"i\",\"' + b'e' * 500000 + b'\"]]}'\n    os.write(3, len(d).to_bytes(4, 'big') + d)\n",
    "error of brackets": "import os\ndef add(a, b):\n    d = b'{\"raised\":' + b'[' * 900 + b']' * 900 + b',\"type\":' + b'[' * 900 + b']' * 900 + b'}'\n    os.write(3, len(d).to_bytes(4, 'big') + d)\n",
    "message of brackets": "import os\ndef add(a, b):\n    os.write(3, (10 ** 6).to_bytes(4, 'big') + b'[' * 10 ** 6)\n",
    "message of digits": "import os\ndef add(a, b):\n    os.write(3, (10 ** 6).to_bytes(4, 'big') + b'{\"ok\":' + b'9' * (10 ** 6 - 7) + b'}')\n",
    "regular expression": "import re\ndef add(a, b):\n    return re.match('(a+)+$', 'a' * 40 + 'b')\n",
    "loop in a finalizer": "class D:\n    def __del__(self):\n        while True: pass\ndef add(a, b):\n    D()\n",
    "loop at load": "while True: pass\n",
    "sleep at load": "import time\ntime.sleep(10 ** 6)\n",
    "memory in one piece": "def add(a, b):\n    return len('x' * 10 ** 11)\n",
    "memory without Python": "import mmap\nM = [mmap.mmap(-1, 1 << 28) for _ in range(100)]\ndef add(a, b): return a + b if 0 else None\n",
    "crash": "import ctypes\nctypes.string_at(0)\n" + WRONG,
    "abort": "import os\nos.abort()\n" + WRONG,
    "output": "def add(a, b):\n    while True: print('x' * 10 ** 6)\n",
    "standard error": "import os\ndef add(a, b):\n    while True: os.write(2, b'x' * 10 ** 6)\n",
    "deep source": "x = " + "(" * 5000 + ")" * 5000 + WRONG,
    "wide source": "x = [" + "[" * 150 + "]" * 150 + "]" + WRONG,
    "lock": "import threading\nL = threading.Lock()\nL.acquire()\ndef add(a, b):\n    L.acquire()\n",
    "closed connection": "import os\nos.close(3)\n" + WRONG,
    "result that grows when read": "class G(list):\n    def __iter__(self):\n        while True: yield 1\ndef add(a, b): return G([1])\n",
    "iterator without end": "def add(a, b):\n    while True: yield 0\n",
}  # fmt: skip
