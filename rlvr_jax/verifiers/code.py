"""Code: the completion's program runs in a sandbox against unit tests that it cannot see.

The reference is one of

    {"type": "function", "entry_point": "add", "cases": [{"args": [1, 2], "expected": 3}, …]}
    {"type": "asserts", "setup": "…", "tests": ["assert add(1, 2) == 3", …]}                    as in MBPP
    {"type": "humaneval", "prompt": "…", "entry_point": "add", "test": "def check(candidate): …"}
    {"type": "stdio", "cases": [{"stdin": "1 2\n", "stdout": "3\n"}, …]}

A function may also be a method of a class `Solution`, of which each test gets a new instance. `asserts` may have an
`entry_point`, a name or several: what the program has to define. Without it, that is what all the tests use.

The process that runs the program gives no verdict and knows no expected result. It gets and returns plain data, and
this process compares; other tests run in a second sandboxed process (`rlvr_jax.sandbox.trial`). The output of a `stdio`
program is compared as text, line by line and word by word: spacing and empty lines at the beginning and the end do not
matter, but 0.50 is not 0.5.

Tests that can't run give an error instead of a score. This is decided by facts that the program can't influence, see
`rlvr_jax.sandbox.trial`, and never in favour of a program that fails another test.

The environment of a program: the standard library of this Python, an empty environment with `TZ=UTC` and
`LC_ALL=C.UTF-8`, `PYTHONHASHSEED=0` and `random` seeded with 0, so that it is deterministic unless it uses the time,
memory addresses or `os.urandom`. It has no network and no processes. A thread runs to completion when it is started, a
`ThreadPoolExecutor` calls immediately, `asyncio` works; true concurrency raises an explaining error.
"""

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from rlvr_jax.sandbox import codec
from rlvr_jax.sandbox.engine import discard, sandbox_of_process
from rlvr_jax.sandbox.host import START_SECONDS, Job, JobError, Limits, Sandbox, SandboxError
from rlvr_jax.sandbox.script import run_script
from rlvr_jax.verifiers.code_cases import Case, from_asserts, from_check, require_python, size_of
from rlvr_jax.verifiers.code_compare import matches, same_output
from rlvr_jax.verifiers.code_text import MAX_PROGRAM, completed, preamble_of, program_of
from rlvr_jax.verifiers.hacks import found_in, known_tests
from rlvr_jax.verifiers.verdict import Verdict

MAX_ANSWER = 20_000  # characters of `Verdict.answer`
_MAX_SHOWN = 200

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class _Result(NamedTuple):
    """Of one test.

    Attributes:
      ok: whether it passed, None if it could not run.
      reason: why not.
      ran: the program got as far as a result, right or wrong.
    """

    ok: bool | None
    reason: str
    ran: bool = True


_Results = list[_Result]
_UNREADABLE = "the program does not load"
_NOT_PYTHON = tuple(f"{_UNREADABLE}: {error}" for error in ("SyntaxError", "IndentationError", "TabError"))


def _shown(value: Any) -> str:
    """The value for a reader, bounded; the items of a set in order."""
    if type(value) in (set, frozenset) and value:
        text = "{" + ", ".join(sorted(_shown(item) for item in value)) + "}"
    elif type(value) in (list, tuple):
        inner = ", ".join(map(_shown, value[: _MAX_SHOWN // 2]))
        text = f"[{inner}]" if type(value) is list else f"({inner}{',' * (len(value) == 1)})"
    elif type(value) is dict:
        text = "{" + ", ".join(f"{_shown(k)}: {_shown(v)}" for k, v in list(value.items())[:_MAX_SHOWN]) + "}"
    else:
        try:
            text = repr(value)
        except ValueError:  # an integer with more digits than Python likes to print
            text = f"a {type(value).__name__} too large to show"
    return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "…"


class _Opaque:
    """Stands for a result that is no plain data; equal to nothing."""

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return f"an object of type {self.name}"


def _error_text(answer: Mapping[str, Any]) -> str:
    texts = [answer.get("type"), answer.get("message")]
    return ": ".join(text[:_MAX_SHOWN] for text in texts if isinstance(text, str) and text)


def _load(job: Job, program: str, room: tuple[int, int]) -> str | None:
    """Makes the job load the program, with bounds for its answers; returns the reason if that fails."""
    answer = job.ask({"program": program, "room": room})
    return None if "ok" in answer else f"{_UNREADABLE}: {_error_text(answer)}"


def _call(job: Job, case: Case) -> _Result:
    """Judges one case. Raises JobError if the job gives no answer."""
    function = job.ask({"do": "global", "args": [case.function]})
    if "ok" not in function:
        return _Result(False, f"the program does not define {case.function}", ran=False)
    args = [function["ok"], *[codec.encode(arg) for arg in case.args]]
    kwargs = {name: codec.encode(value) for name, value in case.kwargs.items()}
    answer = job.ask({"do": "truth" if case.truth else "call", "args": args, "kw": kwargs})
    if "raised" in answer:
        return _Result(False, f"{case.text}: raised {_error_text(answer)}", ran=False)
    try:
        result = codec.decode(answer.get("ok"), lambda _tag, _number, name: _Opaque(name), max_items=job.room[1])
    except codec.CodecError as error:
        raise JobError(f"sent what is not an answer: {error}") from None
    with contextlib.suppress(ArithmeticError):  # a signalling NaN
        if "ok" in answer and case.holds(result):
            return _Result(True, "")
    return _Result(False, f"{case.text}: gave {_shown(result)}")


def _run_cases(sandbox: Sandbox, program: str, cases: Sequence[Case], limits: Limits) -> _Results:
    results: _Results = []
    # A result much longer than the longest expected one is wrong and need not be read.
    size = max(case.size for case in cases)
    with sandbox.job("program", limits) as job:
        job.room = codec.HOST_BYTES + 8 * size, codec.HOST_ITEMS + size
        try:
            if problem := _load(job, program, job.room):
                return [_Result(False, problem, ran=False)] * len(cases)
            for case in cases:
                results.append(_Result(False, case.text, ran=False))  # until it is done
                results[-1] = _call(job, case)
        except JobError as error:
            at = f"{results[-1].reason}: " if results else ""
            lost = _Result(False, f"{at}{error}", ran=False)
            results = results[:-1] + [lost] * (len(cases) - max(0, len(results) - 1))
    return results


def _run_trial(sandbox: Sandbox, program: str, tests: dict[str, Any], count: int, limits: Limits) -> _Results:
    """Runs test code, in a job of its own, against the program. `count` is the number of tests, if that is known.

    Raises ValueError if the tests can't run, before the program does anything.
    """
    with (
        sandbox.job("program", limits) as job,
        sandbox.job("tests", limits, (job.connection.fileno(),)) as trial,
    ):
        trial.room = codec.MAX_BYTES, codec.MAX_ITEMS
        try:
            state = trial.ask(tests)
        except JobError as error:
            state = {"unable": str(error)}
        if "unable" in state:
            raise ValueError(f"the reference's tests can't run: {state['unable']}")
        try:
            if problem := _load(job, program, trial.room):
                return [_Result(False, problem, ran=False)] * count
            trial.others.append(job)
            answer = trial.ask({"run": True})
            results = [_Result(None if ok is None else ok is True, str(reason)) for ok, reason in answer["results"]]
            if answer["ended"]:  # the tests saw only that it was gone
                ending = job.ending()
                results = [
                    x._replace(reason=f"{x.reason.partition('Gone:')[0]}{ending}") if x.ok is False else x
                    for x in results
                ]
        except JobError as error:
            return [_Result(False, str(error), ran=False)] * count
    return results


def _run_stdio(
    sandbox: Sandbox, program: str, cases: Sequence[Mapping[str, str]], tolerance: float, limits: Limits
) -> _Results:
    results: _Results = []
    for number, case in enumerate(cases, 1):
        output = run_script(sandbox, program, case["stdin"].encode(errors="surrogatepass"), limits)
        if output.failure is not None:
            last = output.stderr.decode(errors="replace").strip().rpartition("\n")[2][:_MAX_SHOWN]
            problem = f"test {number}: {output.failure}{f': {last}' if last else ''}"
            unread = f"{_UNREADABLE}: {last}"
            results.append(_Result(False, unread if unread.startswith(_NOT_PYTHON) else problem, ran=False))
            if output.timed_out:  # once is enough: the rest counts as failed
                return results + [_Result(False, "not run after a time-out", ran=False)] * (len(cases) - number)
        elif not same_output(output.stdout.decode(errors="replace"), case["stdout"], tolerance):
            results.append(_Result(False, f"test {number}: printed {_shown(output.stdout.decode(errors='replace'))}"))
        else:
            results.append(_Result(True, ""))
    return results


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _refuse(what: str, reference: Any) -> ValueError:
    return ValueError(f"the reference of a code example {what}: {_shown(reference)}")


def _plan(reference: Any, text: str, tolerance: float, limits: Limits) -> tuple[str, Callable[[Sandbox], _Results]]:
    """The whole program, and what runs it. Raises ValueError where the reference is not as the module says."""
    kind = reference.get("type") if isinstance(reference, Mapping) else None
    if kind == "function":
        cases, name = reference.get("cases"), reference.get("entry_point")
        if not (
            _is_text(name)
            and isinstance(cases, list | tuple)
            and cases
            and all(
                isinstance(c, Mapping) and isinstance(c.get("args"), list | tuple) and "expected" in c for c in cases
            )
        ):
            raise _refuse("of type function has entry_point and cases, each with args (a list) and expected", reference)
        planned = [_json_case(name, case["args"], case["expected"], tolerance) for case in cases]
        return text, lambda sandbox: _run_cases(sandbox, text, planned, limits)
    if tolerance and kind in ("asserts", "humaneval"):
        raise ValueError(f"float_tolerance = {tolerance} has no use for {kind}: those tests compare numbers themselves")
    if kind == "asserts":
        setup, tests = reference.get("setup", "") or "", reference.get("tests")
        names = reference.get("entry_point") or []
        names = [names] if _is_text(names) else names
        if not (
            _is_text(setup)
            and isinstance(tests, list | tuple)
            and tests
            and isinstance(names, list | tuple)
            and all(map(_is_text, [*tests, *names]))
        ):
            raise _refuse(
                "of type asserts has tests, a list of texts, and maybe setup, a text, and entry_point, a name or a "
                "list of names",
                reference,
            )
        found = from_asserts(setup, tests)
        if found is not None and (not names or {case.function for case in found} <= set(names)):
            return text, lambda sandbox: _run_cases(sandbox, text, found, limits)
        for number, source in enumerate((setup, *tests)):
            require_python(f"test {number}" if number else "set-up", source)
        message = {"kind": "asserts", "setup": setup, "tests": list(tests), "entry_points": names}
        return text, lambda sandbox: _run_trial(sandbox, text, message, len(tests), limits)
    if kind == "humaneval":
        prompt, name, test = (reference.get(key) for key in ("prompt", "entry_point", "test"))
        if not (_is_text(prompt) and _is_text(name) and name.isidentifier() and _is_text(test)):
            raise _refuse("of type humaneval has prompt, entry_point and test, all texts", reference)
        program = completed(prompt, name, text)
        if (found := from_check(test)) is not None:
            named = [replace(case, function=name) for case in found]
            return program, lambda sandbox: _run_cases(sandbox, program, named, limits)
        require_python("test", test)
        message = {"kind": "check", "prompt": preamble_of(prompt, name), "entry_point": name, "test": test}
        return program, lambda sandbox: _run_trial(sandbox, program, message, 1, limits)
    if kind == "stdio":
        cases = reference.get("cases")
        if not (
            isinstance(cases, list | tuple)
            and cases
            and all(isinstance(c, Mapping) and _is_text(c.get("stdin")) and _is_text(c.get("stdout")) for c in cases)
        ):
            raise _refuse("of type stdio has cases, each with stdin and stdout, both texts", reference)
        return text, lambda sandbox: _run_stdio(sandbox, text, cases, tolerance, limits)
    raise _refuse("is a mapping with a type: function, asserts, humaneval or stdio", reference)


def _json_case(name: str, args: Sequence[Any], expected: Any, tolerance: float) -> Case:
    codec.dumps(codec.encode(list(args)))  # raises for what cannot be sent
    shown = f"{name}({', '.join(map(_shown, args))}), which should give {_shown(expected)}"
    return Case(name, args, lambda result: matches(result, expected, tolerance), False, shown, size=size_of(expected))


def longest_seconds(reference: Any, options: Mapping[str, Any]) -> float:
    """Maximum wall time of a judgement, ample for a busy machine.

    Raises ValueError or TypeError for limits that `verify` refuses.
    """
    names = ("cpu_seconds", "wall_seconds")
    limits = Limits(**{name: options[name] for name in names if name in options})
    jobs = len(reference["cases"]) if reference["type"] == "stdio" else 2
    return (jobs + 1) * (START_SECONDS + limits.longest_seconds)


def verify(
    completion: str,
    reference: Mapping[str, Any],
    *,
    score: str = "all",
    visible: int = 0,
    hacks: bool = False,
    engine: str = "auto",
    packages: Sequence[str] = (),
    cpu_seconds: int = 6,
    wall_seconds: float = 6.0,
    memory_bytes: int = 1 << 30,
    output_bytes: int = 4 << 20,
    float_tolerance: float = 0.0,
) -> Verdict:
    """Scores 1 if the program passes all tests.

    The program is what `code_text.program_of` finds. A pool waits for the program's own limits, see `longest_seconds`.

    Parts: `passed` (share of tests passed), `format` (a program was found that Python can parse), `runs` (some test got
    a result from it, right or wrong), `stage` (share of the stages that it reaches, one after the other: it parses,
    runs, passes the visible tests, passes all).

    Args:
      completion: the policy's text.
      reference: see the module.
      score: `all`, `share` for the share of tests passed, or `stage` for that part.
      visible: number of tests, the first ones, that the prompt shows. With it there are the parts `visible` and
        `hidden`, the shares of those tests that pass; without it, there is no stage for them.
      hacks: adds a part `hack/NAME` for each detector of `rlvr_jax.verifiers.hacks`, `hack/unreadable`, and
        `hack/any`.
      engine: of `rlvr_jax.sandbox.engine`; `auto` refuses to run without a working sandbox.
      packages: installed packages that programs and tests may import besides the standard library, e.g. `("numpy",)`.
      cpu_seconds: of the program; for `stdio`, of each case. The other limits likewise.
      wall_seconds: that the program may sleep or wait; waiting for a core does not count.
      memory_bytes: of address space, the interpreter included.
      output_bytes: that a `stdio` program may print.
      float_tolerance: for results of `function` and numbers that a `stdio` program prints, see `matches` and
        `same_output`. The other types define their own tolerance.

    Raises:
      ValueError: a reference or option that is not as described.
      SandboxError: no sandbox works on this machine, or it failed twice.
    """
    if score not in ("all", "share", "stage"):
        raise ValueError(f"score is 'all', 'share' or 'stage', not {score!r}")
    if visible < 0:
        raise ValueError(f"visible is a number of tests, not {visible!r}")
    if isinstance(packages, str) or not all(map(_is_text, packages)):
        raise ValueError(f"packages is a list of names, not {packages!r}")
    wanted = tuple(sorted(set(packages)))
    limits = Limits(cpu_seconds, wall_seconds, memory_bytes, output_bytes)
    text = program_of(completion)
    program, run = _plan(reference, text, float_tolerance, limits)
    detected = {}
    if hacks:
        found = found_in(program, known_tests(reference))
        detected = {f"hack/{name}": value for name, value in found.items()}
    if not text or len(program) > MAX_PROGRAM:
        reason = f"longer than {MAX_PROGRAM} characters" if text else "no program found"
        return Verdict(0.0, _parts([], visible) | detected, program[:MAX_ANSWER] if text else None, reason)
    try:
        results = run(sandbox_of_process(engine, wanted))
    except SandboxError:
        discard(engine, wanted)
        results = run(sandbox_of_process(engine, wanted))
    parts = _parts(results, visible) | detected
    failures = [x.reason for x in results if x.ok is False]
    unable = [x.reason for x in results if x.ok is None]
    passed = sum(x.ok is True for x in results)
    reason = f"{passed} of {len(results)} tests pass" + (f"; {failures[0]}" if failures else "")
    reason = _ADDRESS.sub(" at 0x…", reason)  # memory addresses differ each time
    if unable and not failures:  # a program that fails another test is still wrong
        error = f"{len(unable)} of the reference's {len(results)} tests can't run: {unable[0]}"
        return Verdict(0.0, parts, program[:MAX_ANSWER], reason, error)
    value = {"all": float(not failures), "share": parts["passed"], "stage": parts["stage"]}[score]
    return Verdict(value, parts, program[:MAX_ANSWER], reason)


def _parts(results: _Results, visible: int) -> dict[str, float]:
    """The parts of a verdict; of no results those of a completion without a program."""
    right = [float(x.ok is True) for x in results]
    is_readable = bool(results) and not (results[0].ok is False and results[0].reason.startswith(_NOT_PYTHON))
    shown, others = right[:visible], right[visible:] or right[:visible]
    runs = any(x.ran for x in results)
    stages = [is_readable, runs, *([all(shown)] if visible else []), all(right)]
    reached = next((i for i, is_reached in enumerate(stages) if not is_reached), len(stages))
    shares = {"passed": right, **({"visible": shown, "hidden": others} if visible else {})}
    parts = {name: sum(found) / max(1, len(found)) for name, found in shares.items()}
    return parts | {"format": float(is_readable), "runs": float(runs), "stage": reached / len(stages)}
