"""Execution of test code in a separate sandboxed process, against proxies of the program's definitions.

A program under test never shares a process with its tests; `rlvr_jax.sandbox.proxy` defines their view of it.

Tests that can't run are no evidence about the program. Everything that does not need it happens before it is loaded:
the tests are compiled, and run up to the first use of its names. After that, a failure is attributed to the tests only
if the program can't have caused it: the interpreter of this process finds no module, or no name that the
program does not have to define; an argument is an object that can't be sent; or a test fails before it has called the
program.
"""

import ast
import builtins
from collections.abc import Callable, Sequence
from typing import Any

from rlvr_jax.sandbox import codec, job
from rlvr_jax.sandbox.names import names_of, under_test
from rlvr_jax.sandbox.proxy import Client, Maker, Proxy

PROGRAM = 4  # the file descriptor of the connection to the program; that to the host is job.CHANNEL
_SETTLE, _RECORD = "_settle_arguments", "_record_assertion"
_MAX_REASON = 300

Result = tuple[bool | None, str]  # of a test: passed or not, None if it could not run; and the reason
_Run = Callable[[], list[Result]]  # of tests that are ready to run


class _Instrument(ast.NodeTransformer):
    """Settles arguments after every simple statement and, if asked, records assertions instead of stopping."""

    def __init__(self, record: bool):
        self.record = record
        self.assertions = 0

    def generic_visit(self, node: ast.AST) -> ast.AST:
        """The node with every statement of its blocks instrumented."""
        super().generic_visit(node)
        for field in ("body", "orelse", "finalbody"):
            statements = getattr(node, field, None)
            if isinstance(statements, list):
                setattr(node, field, [new for old in statements for new in self._around(old)])
        return node

    def _around(self, statement: ast.stmt) -> list[ast.stmt]:
        if not isinstance(
            statement, ast.Assign | ast.AnnAssign | ast.AugAssign | ast.Expr | ast.Assert | ast.Delete
        ) or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)):
            return [statement]
        if self.record and isinstance(statement, ast.Assert) and not isinstance(statement.test, ast.Constant):
            self.assertions += 1
            text = ast.unparse(statement)[:_MAX_REASON]
            handler = ast.parse(
                f"try:\n pass\nexcept Exception as _error:\n {_RECORD}({text!r}, _error)\nelse:\n {_RECORD}({text!r})"
            ).body[0]
            handler.body = [statement]
            statement = handler
        return [statement, *ast.parse(f"{_SETTLE}()").body]


def _compile(source: str, record: bool = False) -> tuple[Any, int]:
    instrument = _Instrument(record)
    tree = ast.fix_missing_locations(instrument.visit(ast.parse(source)))
    return compile(tree, "tests.py", "exec", dont_inherit=True), instrument.assertions


def _told(error: BaseException) -> str:
    try:
        message = str(error)
    except Exception:  # a class of the tests whose own __str__ fails; its name is still told
        message = ""
    return (f"{type(error).__name__}: {message}" if message else type(error).__name__)[:_MAX_REASON]


def _lacks_something_here(error: BaseException, demanded: set[str]) -> bool:
    """True if a module or name is missing that the program has no part in, or an argument can't be sent to it.

    Errors of the program arrive as new builtin ones, made of their message alone; only those of this interpreter have a
    name.
    """
    if isinstance(error, codec.NotPlainError):
        return True
    return isinstance(error, NameError | ImportError) and error.name is not None and error.name not in demanded


def prepare_asserts(client: Client, setup: str, tests: Sequence[str], entry_points: Sequence[str]) -> _Run:
    """Tests that run in order in one namespace. Raises an error if they can't run."""
    wanted, library = under_test([setup, *tests], entry_points)
    namespace: dict[str, Any] = {"__name__": "tests", _SETTLE: client.settle} | library
    codes = [_compile(test)[0] for test in tests]
    before, own = names_of([setup]), [names_of([test]) for test in tests]
    used = [names.used | (before.used if names.used & before.bound else set()) for names in own]
    demanded = set(entry_points) or wanted.intersection(*used)
    demanded = demanded or wanted
    if not wanted:
        raise ValueError("the tests use nothing of the program")
    bound = set().union(*(names.bound for names in own))
    set_up = _compile(setup)[0]
    if early := not before.used & wanted:
        exec(set_up, namespace)

    def fault(error: BaseException, touched: bool) -> bool | None:
        lacks = _lacks_something_here(error, demanded) or (not touched and not isinstance(error, MemoryError))
        return None if lacks and not client.gone else False

    def run() -> list[Result]:
        found = {}
        for name in sorted(wanted):
            try:
                found[name] = client.ask("global", name)
            except KeyError:
                continue
            except BaseException as error:
                return [(False, _told(error))] * len(tests)
        if not demanded & found.keys():
            return [(False, f"the program does not define {' or '.join(sorted(demanded))}")] * len(tests)
        for name, value in found.items():
            is_class = name.lstrip("_")[:1].isupper() and isinstance(value, Proxy)
            namespace[name] = Maker(value) if is_class else value
        told = bound | {name for name, value in found.items() if not isinstance(value, Proxy)}
        if not early:
            try:
                exec(set_up, namespace)
            except BaseException as error:
                touched = client.asked > 0 or bool(before.used & told)
                return [(fault(error, touched), f"before the first test: {_told(error)}")] * len(tests)
            told |= before.bound
        results: list[Result] = []
        for test, code, names in zip(tests, codes, used, strict=True):
            asked = client.asked
            try:
                exec(code, namespace)
                results.append((not client.gone, client.gone))
            except BaseException as error:
                touched = client.asked > asked or bool(names & told)
                results.append((fault(error, touched), f"{test.strip()[:_MAX_REASON]}: {_told(error)}"))
        return results

    return run


def prepare_check(client: Client, prompt: str, entry_point: str, test: str) -> _Run:
    """HumanEval's `check(candidate)`: each assertion that it meets. Helpers that the tests call are the prompt's.

    Raises an error if it can't run.
    """
    results: list[Result] = []
    candidate: Any = None

    def fault(error: BaseException) -> bool | None:
        touched = client.asked > 0 or not isinstance(candidate, Proxy)
        lacks = _lacks_something_here(error, {entry_point}) or not touched
        return None if lacks and not client.gone else False

    def record(assertion: str, error: BaseException | None = None) -> None:
        results.append((True, "") if error is None else (fault(error), f"{assertion}: {_told(error)}"))

    code, assertions = _compile(test, record=True)
    names = names_of([test])
    known = vars(builtins).keys() | names_of([prompt]).bound | {entry_point}
    namespace: dict[str, Any] = {"__name__": "tests", _SETTLE: client.settle, _RECORD: record}
    if names.free - known:
        namespace |= under_test([test])[1]
    exec(compile(prompt, "prompt.py", "exec", dont_inherit=True), namespace)
    if "check" not in names.bound:
        raise ValueError("the test defines no function check")
    if early := entry_point not in names.used:
        exec(code, namespace)

    def run() -> list[Result]:
        nonlocal candidate
        ended: bool | None = False
        try:
            candidate = client.ask("global", entry_point)
        except BaseException as error:
            told = f"the program does not define {error}" if type(error) is KeyError else _told(error)
            return [(False, told)] * max(1, assertions)
        try:
            namespace[entry_point] = candidate
            if not early:
                exec(code, namespace)
            namespace["check"](candidate)
        except BaseException as error:
            ended = fault(error)
            results.append((ended, _told(error)))
        if client.gone:
            results[:] = [(False, client.gone)]
        unreached = max(1, assertions) - len(results)
        if results and all(ok for ok, _ in results):
            unreached = 0
        return results + [(ended, "not reached")] * unreached

    return run


def run() -> None:
    """Prepares the host's tests and reports success or the reason of failure; then runs them and sends the results."""
    message = codec.receive(job.CHANNEL)
    client = Client(PROGRAM)
    try:
        if message["kind"] == "asserts":
            tests = prepare_asserts(client, message["setup"], message["tests"], message["entry_points"])
        else:
            tests = prepare_check(client, message["prompt"], message["entry_point"], message["test"])
    except BaseException as error:
        codec.send(job.CHANNEL, {"unable": _told(error)})
        return
    codec.send(job.CHANNEL, {"ready": True})
    codec.receive(job.CHANNEL)
    codec.send(job.CHANNEL, {"results": [[ok, reason] for ok, reason in tests()], "ended": client.ended})
