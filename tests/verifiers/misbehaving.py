"""Verifiers that do what verifiers must not, for the tests of the pool. Workers import this module by name."""

# ruff: noqa: ARG001 - the arguments are those of every verifier
import os
import signal
import subprocess
import sys
import time

from rlvr_jax.verifiers import VERIFIERS
from rlvr_jax.verifiers.verdict import Verdict

_hoard = []


class Unprintable(Exception):  # noqa: N818
    def __str__(self):
        raise RuntimeError("no text")


def echo(completion, reference, **options):
    return Verdict(0.5, {"length": len(completion)}, completion, repr((reference, options)))


def process_id(completion, reference):
    return Verdict(1.0, answer=str(os.getpid()))


def raises(completion, reference):
    raise KeyError("what a pity")


def raises_unprintable(completion, reference):
    raise Unprintable


def exits(completion, reference):
    sys.exit("good bye")


def hangs(completion, reference):
    while True:
        time.sleep(3600)


def hangs_when_told(completion, reference):
    if completion == "hang":
        hangs(completion, reference)
    if completion == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    return Verdict(1.0, answer=completion)


def starts_a_process(completion, reference):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    return Verdict(1.0, answer=str(child.pid))


def starts_a_process_and_hangs(completion, reference):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    with open(reference, "w") as file:  # noqa: PTH123
        file.write(str(child.pid))
    hangs(completion, reference)


def dies_of_signal(completion, reference):
    os.kill(os.getpid(), signal.SIGKILL)


def dies_with_exit_code(completion, reference):
    os._exit(7)


def forks_and_lets_the_child_go_on(completion, reference):
    if completion != "fork":
        return Verdict(0.25, answer=completion)
    return Verdict(0.5) if os.fork() else Verdict(1.0)


def closes_every_file(completion, reference):
    os.closerange(0, 100)
    hangs(completion, reference)


def wants_memory(completion, reference):
    return Verdict(1.0, answer=str(len(bytearray(10 << 30))))


def hoards_memory(completion, reference):
    """Keeps 40 MiB at every call, for ever."""
    _hoard.append(bytearray(40 << 20))
    return Verdict(1.0)


def prints(completion, reference):
    print("x" * 100_000)
    print("x" * 100_000, file=sys.stderr)
    os.write(1, b"x" * 100_000)
    return Verdict(1.0)


def returns_what_it_is_told(completion, reference):
    return {
        "none": None,
        "number": 1.0,
        "nan": Verdict(float("nan")),
        "above": Verdict(1.5),
        "below": Verdict(-0.1),
        "text": Verdict("high"),
        "no parts": Verdict(1.0, None),
        "nan part": Verdict(1.0, {"a": float("inf")}),
        "nameless part": Verdict(1.0, {1: 1.0}),
        "answer": Verdict(1.0, answer=object()),
        "reason": Verdict(1.0, reason=None),
    }[completion]


def within_one_second_of_cpu(completion, reference, kind):
    """The verdict of another kind; the process dies of SIGVTALRM if that takes more than a second of its own time."""
    signal.setitimer(signal.ITIMER_VIRTUAL, 1.0)
    verdict = VERIFIERS[kind](completion, reference)
    signal.setitimer(signal.ITIMER_VIRTUAL, 0.0)
    return verdict


def waits_at(fifo):
    """Returns when somebody has opened the named pipe for writing and closed it again."""
    with open(fifo) as file:  # noqa: PTH123
        return file.read()


def add(a, b=0):
    return {"sum": a + b, "pair": (a, b)}


def answers_by_itself(completion, reference):
    """Writes what is no verdict to whatever file is open."""
    for fd in range(3, 100):
        try:
            os.write(fd, b'["value", "1", false]\n')
        except OSError:
            continue


def returns_an_object():
    return {"a": object()}


def note(path, text):
    """Adds a line to a file; the file shows the order of the calls."""
    with open(path, "a") as file:  # noqa: PTH123
        file.write(f"{text}\n")
    return text
