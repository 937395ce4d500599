"""The helper process of `symbolic`: reads questions as JSON lines, answers each with a JSON line.

A question is `[how, reference, answer, cpu_seconds]`: `formulas` compares two formulas, and with `completion` it is
math-verify that finds the answer, too. Run as `python -m rlvr_jax.verifiers.mathematics.helper MEMORY_BYTES`. For each
question the helper forks a child, whose limits the kernel enforces: the default action of SIGPROF needs no help from
the interpreter, whatever keeps it busy.
"""

import json
import logging
import os
import select
import signal
import sys
from typing import Any

_WALL_SECONDS = 30.0  # should a child neither end nor use processor time
_WARM_UP = (
    (r"\sum_{k=1}^{n} k", r"\frac{n(n+1)}{2}"),
    (r"\int_0^1 x^2 dx", r"\int_0^{\pi} 2\sin(t) + e^{-t} dt"),
    (r"\prod_{k=1}^{3} k \cdot \binom{n}{k}", r"F_n = \sum_{k=0}^{n-1} F_k F_{n-k-1}"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}^2", r"\begin{pmatrix}1&2\\3&5\end{pmatrix}"),
    (r"\lim_{x\to 0}\frac{\sin x}{x}", r"\sqrt{2}+\sqrt[3]{x}-\log_2(8)"),
)


def _equal(reference: str, answer: str) -> bool:
    from math_verify import LatexExtractionConfig, parse, verify

    def parsed(text: str) -> Any:
        found = parse(f"${text}$", [LatexExtractionConfig()], fallback_mode="no_fallback", parsing_timeout=None)
        return next((item for item in found if not isinstance(item, str)), None)

    left, right = parsed(reference), parsed(answer)
    if left is None or right is None:
        return False
    # Sums and integrals are evaluated here, since `verify` would do it by numerical quadrature of the difference.
    return left == right or bool(
        verify(left.doit(), right.doit(), float_rounding=12, strict=True, timeout_seconds=None)
    )


def _graded(reference: str, completion: str) -> bool:
    """The verdict of math-verify, called as its documentation does, without its limits of time."""
    from math_verify import ExprExtractionConfig, LatexExtractionConfig, parse, verify

    for text in (reference, f"${reference}$"):  # with delimiters, or else without
        gold = parse(text, [LatexExtractionConfig(), ExprExtractionConfig()], parsing_timeout=None)
        if gold:
            return bool(verify(gold, parse(completion, parsing_timeout=None), timeout_seconds=None))
    return False


_HOW = {"formulas": _equal, "completion": _graded}


def _limit(cpu_seconds: float, memory_bytes: int) -> None:
    import resource

    for kind, amount in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CPU, int(cpu_seconds) + 2),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (amount if hard == resource.RLIM_INFINITY else min(amount, hard), hard))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_PROF, cpu_seconds)


def _in_child(how: str, reference: str, answer: str, cpu_seconds: float, memory_bytes: int) -> str:
    """`equal`, `different`, or `limit` if the child ended without saying either."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        said = b"l"
        try:
            os.close(ours)
            _limit(cpu_seconds, memory_bytes)
            said = b"e" if _HOW[how](reference, answer) else b"d"
        except MemoryError:
            pass
        except BaseException:  # what it cannot parse is not equal
            said = b"d"
        finally:
            os.write(theirs, said)
            os._exit(0)
    os.close(theirs)
    try:
        ready, _, _ = select.select([ours], [], [], _WALL_SECONDS)
        said = os.read(ours, 1) if ready else b""
    finally:
        os.close(ours)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    return {b"e": "equal", b"d": "different"}.get(said, "limit")


def main() -> None:
    """Answers the questions on standard input until it ends, within the memory given as argument."""
    # Signals to the process group are for the caller to act on; the helper ends when its standard input does.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    memory_bytes = int(sys.argv[1])
    questions, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "r+b") as nowhere:  # noqa: PTH123
        for descriptor in (0, 1):
            os.dup2(nowhere.fileno(), descriptor)
    logging.disable(logging.CRITICAL)  # math-verify warns that its own limits of time are off
    for pair in _WARM_UP:
        _equal(*pair)
    with open(os.devnull, "r+b") as nowhere:  # noqa: PTH123
        os.dup2(nowhere.fileno(), 2)  # until here, it was for the caller to read why this process does not start
    for question in questions:
        how, reference, answer, cpu_seconds = json.loads(question)
        answers.write(json.dumps(_in_child(how, reference, answer, cpu_seconds, memory_bytes)).encode() + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
