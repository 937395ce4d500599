"""Computer algebra for the few formulas that `numeric` cannot express, with limits on time and memory.

`math-verify` (https://github.com/huggingface/Math-Verify) can run for ever and take any amount of memory, and its own
time limits need the main thread. Here it runs in a helper process that was started for nothing else, so that the
caller may have threads and JAX. The helper imports and warms up once and forks a child for each question; the child
has `CPU_SECONDS` of processor time, so the load of the machine does not change a verdict, and `MEMORY_BYTES`. Since
every child starts from the same state, a verdict does not depend on earlier questions either.

One helper serves a process. It is started at the first question (or by `prepare`), started again should it have died,
and ends when its caller does.
"""

import contextlib
import functools
import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

CPU_SECONDS = 0.5  # of one pair of formulas; usual ones take 0.02 to 0.15
GRADER_CPU_SECONDS = 5.0  # of one completion; math-verify's own limit is 5 s for each of its two steps
MEMORY_BYTES = 1 << 30  # address space of a child, the interpreter included


class SymbolicLimitError(ValueError):
    """The question took more time or memory than it may."""


@dataclass(eq=False)
class _Helper:
    lock: threading.Lock = field(default_factory=threading.Lock)
    process: subprocess.Popen[bytes] | None = None
    owner: int = 0  # the process that started it: after a fork, the copy must start its own
    stderr: IO[bytes] | None = None

    def running(self) -> subprocess.Popen[bytes]:
        """The helper process, started anew if it is gone or belongs to the process that forked this one."""
        if self.process is None or self.owner != os.getpid() or self.process.poll() is not None:
            self.stop()
            self.stderr = tempfile.TemporaryFile()  # noqa: SIM115
            self.owner = os.getpid()
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "rlvr_jax.verifiers.mathematics.helper",
                    str(MEMORY_BYTES),
                ],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.stderr,
                env={
                    **os.environ,
                    "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
                    "PYTHONHASHSEED": "0",  # sympy's order of terms, and so its time, is the same in every run
                    "MPMATH_NOGMPY": "1",  # inside GMP, limits of time do not work, and running out of memory aborts
                    "SYMPY_GROUND_TYPES": "python",
                },
            )
        return self.process

    def stop(self) -> None:
        """Kills the helper process if it is this one's."""
        if self.process is not None and self.owner == os.getpid():
            self.process.kill()
            self.process.wait()
            for pipe in (self.process.stdin, self.process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()  # type: ignore[union-attr]
        if self.stderr is not None:
            self.stderr.close()
        self.process = self.stderr = None

    def ask(self, question: bytes) -> bytes:
        """The helper's answer, a line; empty if it died."""
        process = self.running()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(question)
            process.stdin.flush()
            return process.stdout.readline()
        except BrokenPipeError:
            return b""
        except BaseException:  # Ctrl-C, say: the answer that is still to come must not be taken for a later one
            self.stop()
            raise

    def complaint(self) -> str:
        """The last words of a helper that died."""
        if self.stderr is None:
            return ""
        self.stderr.seek(0)
        return self.stderr.read()[-300:].decode(errors="replace").strip()


@functools.cache
def _helper() -> _Helper:
    return _Helper()


def prepare() -> None:
    """Starts the helper without waiting for it, so that the first question need not."""
    with _helper().lock:
        _helper().running()


def symbolically_equal(reference: str, answer: str) -> bool:
    """True if `math-verify` can parse both formulas (LaTeX without delimiters) and says that they are equal.

    Raises:
      SymbolicLimitError: it took more than `CPU_SECONDS` or `MEMORY_BYTES`.
      RuntimeError: the helper process does not work.
    """
    return _ask("formulas", reference, answer, CPU_SECONDS)


def graded_by_math_verify(reference: str, completion: str) -> bool:
    """True if `math-verify` finds the reference in a completion, by its own rules for both. Errors: as above."""
    return _ask("completion", reference, completion, GRADER_CPU_SECONDS)


def _ask(how: str, reference: str, answer: str, cpu_seconds: float) -> bool:
    question = json.dumps([how, reference, answer, cpu_seconds]).encode() + b"\n"
    helper = _helper()
    with helper.lock:
        said = helper.ask(question) or helper.ask(question)  # once more, should an earlier helper have died
        if not said:
            complaint = helper.complaint()
            helper.stop()
            raise RuntimeError(f"the helper process for symbolic mathematics does not work: {complaint}")
    verdict = json.loads(said)
    if verdict == "limit":
        raise SymbolicLimitError(
            f"more than {cpu_seconds} s of processor time or {MEMORY_BYTES >> 20} MiB for one answer"
        )
    return verdict == "equal"
