"""Reading unit tests: which of them are calls with literal arguments and a literal result.

Most tests of HumanEval and MBPP are `assert f(1, [2]) == 3`. Such a test is not run as code: the program is called with
the arguments, and the result is compared here. Other tests run in a separate process, see `rlvr_jax.sandbox.trial`.
"""

import ast
import builtins
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlvr_jax.sandbox import codec


@dataclass(frozen=True)
class Case:
    """One call and its expected result.

    Attributes:
      function: the name in the program.
      args: positional arguments.
      holds: result (plain data) -> whether it is correct.
      truth: compare the truth value of the result instead.
      text: the test in words, for the reason of a verdict.
      kwargs: keyword arguments.
      size: bytes of the expected result.
    """

    function: str
    args: Sequence[Any]
    holds: Callable[[Any], bool]
    truth: bool
    text: str
    kwargs: dict[str, Any] = field(default_factory=dict)
    size: int = 0


def size_of(value: Any) -> int:
    """Bytes of the encoded value. Raises CodecError if it can't be encoded."""
    return len(codec.dumps(codec.encode(value)))


def require_python(what: str, source: str) -> None:
    """Raises ValueError if a reference's source is not Python."""
    try:
        ast.parse(source)
    except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
        raise ValueError(f"the reference's {what} is not Python: {error}") from error


def _is_constant(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and (node.value is None or isinstance(node.value, bool))


def _condition(test: ast.expr) -> tuple[ast.expr, bool, Callable[[Any], bool], int]:
    """The tested expression, whether only its truth matters, what has to hold, and the size of what is expected.

    Raises ValueError if it is more.
    """
    if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
        subject, truth, holds, size = _condition(test.operand)
        return subject, truth, lambda result: not holds(result), size
    if not isinstance(test, ast.Compare):
        return test, True, lambda result: result is True, 0
    if len(test.ops) != 1:
        raise ValueError("a chain of comparisons")
    right = test.comparators[0]
    expected = ast.literal_eval(right)
    if isinstance(test.ops[0], ast.Eq):
        return test.left, False, lambda result: bool(result == expected), size_of(expected)
    if isinstance(test.ops[0], ast.Is) and _is_constant(right):
        return test.left, False, lambda result: result is expected, 0
    raise ValueError("a comparison other than == and is")


def _case(statement: ast.stmt, name: str | None) -> Case:
    """The case of an `assert`. Raises ValueError if it is not one call, of function `name` if that is given."""
    if not isinstance(statement, ast.Assert):
        raise ValueError("not an assertion")
    call, truth, holds, size = _condition(statement.test)
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and name in (None, call.func.id)):
        raise ValueError("not a call of the function")
    args = [ast.literal_eval(arg) for arg in call.args]
    kwargs = {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg is not None}
    if len(kwargs) != len(call.keywords):
        raise ValueError("keyword arguments from a dictionary")
    return Case(call.func.id, args, holds, truth, ast.unparse(statement), kwargs, size)


def from_asserts(setup: str, tests: Sequence[str]) -> list[Case] | None:
    """The tests as cases, or None if one of them, or the set-up, is more than that."""
    try:
        if not all(isinstance(s, ast.Import | ast.ImportFrom) for s in ast.parse(setup).body):
            return None
        bodies = [ast.parse(test).body for test in tests]
        if any(len(body) != 1 for body in bodies):
            return None
        cases = [_case(body[0], None) for body in bodies]
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
    names = {case.function for case in cases}
    # `assert len("ab") == 2` beside tests of `f` means the builtin.
    return None if len(names) > 1 and names & vars(builtins).keys() else cases


def from_check(test: str) -> list[Case] | None:
    """The assertions of HumanEval's `def check(candidate)` as cases, or None if it does anything else."""
    try:
        body = ast.parse(test).body
        checks = [s for s in body if isinstance(s, ast.FunctionDef) and s.name == "check"]
        rest = [s for s in body if s not in checks]
        if len(checks) != 1 or not all(
            isinstance(s, ast.Import | ast.ImportFrom)
            or (isinstance(s, ast.Assign) and getattr(s.targets[0], "id", "") == "METADATA")
            for s in rest
        ):
            return None
        (argument,) = checks[0].args.args
        statements = [
            s
            for s in checks[0].body
            if not isinstance(s, ast.Pass)
            and not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))
            and not (isinstance(s, ast.Assert) and isinstance(s.test, ast.Constant) and s.test.value)
        ]
        return [_case(s, argument.arg) for s in statements] or None
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return None
