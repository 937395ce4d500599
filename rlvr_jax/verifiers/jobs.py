"""Jobs of the pool: verdicts and tool calls, and their execution in a worker process or here."""

import json
import math
import pickle
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from rlvr_jax import named
from rlvr_jax.errors import error_text
from rlvr_jax.verifiers import LONGEST, PREPARE, failure, guarded, verifier_of
from rlvr_jax.verifiers.verdict import Verdict

START_UP_SECONDS = 60.0  # for a worker to start, or to import the module of a function
_LONGEST_WAIT = 1e6  # seconds: 12 days, half of what the kernel waits for
VERIFIER = "verifier "  # prefix of a verifier's name, where others have a module's; no module's name has a space

# Sent to a worker: the argument of `prepare` or None, the pickled call, and its time limit in seconds.
Order = tuple[str | None, bytes, float]
# The call itself: True for a verdict; the function or its name; its arguments.
Call = tuple[bool, str | Callable[..., Any], Sequence[Any], Mapping[str, Any]]


@dataclass(frozen=True)
class Job:
    """One completion to judge. The result is always a `Verdict`.

    Attributes:
      verifier: a key of `VERIFIERS`, the name of a function, or a function (completion, reference, **options) that a
        worker can import: one at the top level of a module that is not the main script.
      completion: the policy's text.
      reference: the gold answer.
      options: further keyword arguments of the verifier.
      timeout: seconds; None for the pool's limit.
    """

    verifier: str | Callable[..., Verdict]
    completion: str
    reference: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    timeout: float | None = None


@dataclass(frozen=True)
class ToolCall:
    """One call of a function. The result is its return value after a round trip through JSON, or a `ToolError`.

    Attributes:
      function: its name, `module:function` or `file.py:function`, or a function that a worker can import.
      args: positional arguments; anything that can be pickled.
      kwargs: keyword arguments.
      timeout: seconds that it may take; None for the pool's limit.
      imports: name of another function whose module is imported before, outside of this time; empty for none.
    """

    function: str | Callable[..., Any]
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    timeout: float | None = None
    imports: str = ""


class ToolError(Exception):
    """A tool call without a result: it raised, timed out, ran out of memory or killed its process."""


def call_of(job: Job | ToolCall) -> Call:
    """The call of a job. Raises ValueError if it names a function that does not exist."""
    if isinstance(job, Job):
        if isinstance(job.verifier, str):
            verifier_of(job.verifier)
        return True, job.verifier, (job.completion, job.reference), dict(job.options)
    for name in (job.function, job.imports):
        if isinstance(name, str) and name:
            named.load(name)
    if isinstance(job.args, str | bytes):
        raise ValueError(f"the args of a tool call must be a tuple, not {type(job.args).__name__}: ({job.args!r:.80},)")
    return False, job.function, tuple(job.args), dict(job.kwargs)


def order_of(index: int, job: Job | ToolCall, timeout: float) -> Order:
    """A job in the form sent to a worker.

    Args:
      index: of the job, for errors.
      job: the job.
      timeout: default limit in seconds.

    Raises:
      ValueError: it names a function that does not exist, has no valid timeout, or can't be sent to a process.
    """
    call = call_of(job)
    judged, function, _, _ = call
    seconds = timeout if job.timeout is None else job.timeout
    if not 0 < seconds < math.inf:
        raise ValueError(f"job {index}: timeout must be a positive number of seconds, not {seconds}")
    advice = "use a function at the top level of a module that can be imported, or a pool with workers=0"
    if isinstance(function, str):
        first = function if judged else job.imports or function
        prepare = f"{VERIFIER}{first}" if first in PREPARE or named.is_name(first) else None
        seconds = _longest(job, seconds) if judged else seconds
    else:
        prepare = getattr(function, "__module__", None)
    if prepare == "__main__":
        raise ValueError(f"job {index}: its function {function!r} is defined in the main script; {advice}")
    try:
        return prepare, pickle.dumps(call, protocol=5), min(seconds, _LONGEST_WAIT)
    except Exception as error:
        raise ValueError(f"job {index} cannot be sent to a worker process ({error}); {advice}") from error


def _longest(job: Job, seconds: float) -> float:
    if job.verifier not in LONGEST:
        return seconds
    try:
        return max(seconds, LONGEST[job.verifier](job.reference, job.options))
    except Exception:  # a reference or option that the verifier refuses as well, at once, and says why
        return seconds


def verdict_of(call: Call) -> Verdict:
    """Executes a `Job`."""
    _, function, args, kwargs = call
    return guarded(verifier_of(function) if isinstance(function, str) else function, *args, kwargs)


def perform(call: Call) -> list[Any]:
    """Executes a job. Returns an event as JSON data.

    One of ["verdict", score, parts, answer, reason, error], ["value", JSON text], ["failure", why].
    """
    judged, function, args, kwargs = call
    if judged:
        verdict = verdict_of(call)
        return ["verdict", verdict.score, dict(verdict.parts), verdict.answer, verdict.reason, verdict.error]
    try:
        value = (named.load(function) if isinstance(function, str) else function)(*args, **kwargs)
    except (Exception, SystemExit) as error:
        return ["failure", error_text(error)]
    try:
        return ["value", json.dumps(value)]
    except Exception as error:
        return ["failure", f"its result, of type {type(value).__name__}, is not JSON: {error_text(error)}"]


def resolve(future: Future, judged: bool, event: Sequence[Any]) -> None:
    """Resolves a future with an event of `perform`. Raises ValueError for an event that does not fit the job."""
    match event:
        case ["verdict", score, parts, answer, reason, error] if judged:
            future.set_result(Verdict(score, parts, answer, reason, error))
        case ["value", str(text)] if not judged:
            future.set_result(json.loads(text))
        case ["failure", str(why)] if judged:
            future.set_result(failure(why))
        case ["failure", str(why)]:
            future.set_exception(ToolError(why))
        case _:
            raise ValueError(f"no result of this job: {event}")
