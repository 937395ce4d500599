"""Questions about the syntax tree of a Python program: names in full, literals, functions that do nothing."""

import ast
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

UNKNOWN: Any = object()  # instead of a value that is not written in the program

Function = ast.FunctionDef | ast.AsyncFunctionDef


def nodes(tree: ast.AST | str, kind: Any) -> list[Any]:
    """All nodes of a kind, of a tree or of source code; none of source that is not Python."""
    if isinstance(tree, str):
        try:
            tree = ast.parse(tree)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return []
    return [node for node in ast.walk(tree) if isinstance(node, kind)]


def imported_names(tree: ast.Module) -> dict[str, str]:
    """The full name of each imported name."""
    found = {}
    for node in nodes(tree, ast.Import | ast.ImportFrom):
        for alias in node.names:
            if isinstance(node, ast.ImportFrom):
                found[alias.asname or alias.name] = f"{node.module or ''}.{alias.name}"
            elif alias.asname:
                found[alias.asname] = alias.name
    return found


def full_name(node: ast.AST | None, names: Mapping[str, str]) -> str:
    """The full name of what an expression such as `np.testing` refers to; empty for other expressions."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute) and (base := full_name(node.value, names)):
        return f"{base}.{node.attr}"
    return ""


def defined_names(tree: ast.Module) -> set[str]:
    """Names that the module defines: functions, classes and variables, but not imports."""
    found = {node.name for node in tree.body if isinstance(node, Function | ast.ClassDef)}
    targets = [node.targets for node in tree.body if isinstance(node, ast.Assign)]
    return found | {x.id for target in targets for node in target for x in nodes(node, ast.Name)}


def literal(node: ast.AST | None) -> Any:
    """The value of a literal, or `UNKNOWN`."""
    try:
        return ast.literal_eval(node) if node is not None else UNKNOWN
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return UNKNOWN


def _body(function: Function) -> list[ast.stmt]:
    """The statements of a function after its docstring."""
    return function.body[1:] if ast.get_docstring(function) is not None else function.body


def constant_of(function: Function) -> Any:
    """The value that a function returns whatever it is given, or `UNKNOWN`."""
    match _body(function):
        case [ast.Return(value=None)]:
            return None
        case [ast.Return(value=value)]:
            return literal(value)
    return UNKNOWN


def is_empty(function: Function) -> bool:
    """It does nothing, or says that it is not implemented, and is no declaration."""
    if any(full_name(x, {}).rpartition(".")[2] in ("abstractmethod", "overload") for x in function.decorator_list):
        return False
    return all(
        isinstance(node, ast.Pass)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        or (isinstance(node, ast.Raise) and any(x.id == "NotImplementedError" for x in nodes(node, ast.Name)))
        for node in _body(function)
    )


def takes_something(function: Function) -> bool:
    names = [x.arg for x in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)]
    return bool([name for name in names if name not in ("self", "cls")] or function.args.vararg or function.args.kwarg)


def is_main(node: ast.stmt) -> bool:
    """A part that runs only where the program is started as a script."""
    if isinstance(node, Function):
        return node.name == "main"
    return isinstance(node, ast.If) and any(x.id == "__name__" for x in nodes(node.test, ast.Name))


def key(value: Any) -> Hashable:
    """Equal for equal literals, a tuple and a list of the same among them, but not for a number and a bool.

    Linear in the size of the value: no text of a text, and no decimal digits of an integer of any length.
    """
    if isinstance(value, list | tuple):
        return "list", *map(key, value)
    if isinstance(value, set | frozenset):
        return "set", frozenset(map(key, value))
    if isinstance(value, Mapping):
        return "dict", frozenset((key(name), key(x)) for name, x in value.items())
    return type(value).__name__, repr(value) if isinstance(value, float | complex) else value


def work(tree: ast.AST) -> int:
    """The nodes below each node, summed over all of them, long texts as several: what walks of all subtrees take."""
    total, level, depth = 0, [tree], 1
    while level:
        total += depth * sum(map(_size, level))
        level, depth = [child for node in level for child in ast.iter_child_nodes(node)], depth + 1
    return total


def _size(node: ast.AST) -> int:
    is_text = isinstance(node, ast.Constant) and isinstance(node.value, str | bytes)
    return 1 + len(node.value) // 64 if is_text else 1


def conditions(tree: ast.Module) -> Iterator[tuple[list[Any], Any]]:
    """(inputs, output) of each condition that compares with literals and then gives a literal."""
    for node in ast.walk(tree):
        if isinstance(node, ast.IfExp):
            branches = [(_inputs(node.test), literal(node.body))]
        elif isinstance(node, ast.If):
            branches = [(_inputs(node.test), _given(node.body))]
        elif isinstance(node, ast.Match):
            branches = [([[x] for x in _patterns(case.pattern)], _given(case.body)) for case in node.cases]
        else:
            continue
        yield from ((inputs, output) for found, output in branches if output is not UNKNOWN for inputs in found)


def _inputs(test: ast.expr) -> list[list[Any]]:
    """The literals with which a condition compares, one list for each alternative."""
    if isinstance(test, ast.BoolOp):
        parts = [_inputs(x) for x in test.values]
        if isinstance(test.op, ast.Or):
            return [x for part in parts for x in part]
        return [[value for part in parts for value in part[0]]] if all(parts) else []
    if isinstance(test, ast.Compare) and len(test.ops) == 1:
        values = [x for x in (literal(test.left), literal(test.comparators[0])) if x is not UNKNOWN]
        if len(values) == 1 and isinstance(test.ops[0], ast.Eq | ast.Is):
            return [values]
        if len(values) == 1 and isinstance(test.ops[0], ast.In) and isinstance(values[0], list | tuple | set):
            return [[x] for x in values[0]]
    return []


def _given(body: Sequence[ast.stmt]) -> Any:
    """The literal that a branch returns, prints or assigns, or `UNKNOWN`."""
    match body:
        case [ast.Return(value=value) | ast.Assign(value=value), *_]:
            return literal(value)
        case [ast.Expr(value=ast.Call(func=ast.Name(id="print"), args=[value])), *_]:
            return literal(value)
    return UNKNOWN


def _patterns(pattern: ast.pattern) -> list[Any]:
    if isinstance(pattern, ast.MatchOr):
        return [x for part in pattern.patterns for x in _patterns(part)]
    if isinstance(pattern, ast.MatchValue):
        return [x for x in [literal(pattern.value)] if x is not UNKNOWN]
    if isinstance(pattern, ast.MatchSequence):
        parts = [_patterns(x) for x in pattern.patterns]
        return [[part[0] for part in parts]] if all(parts) else []
    return []


def asserted_calls(source: str) -> Iterator[tuple[Sequence[Any], Any]]:
    """(arguments, result) of each assertion that compares a call with literals."""
    for node in nodes(source, ast.Assert):
        test, expected = node.test, True
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            test, expected = test.operand, False
        elif isinstance(test, ast.Compare) and len(test.ops) == 1 and isinstance(test.ops[0], ast.Eq):
            test, expected = test.left, literal(test.comparators[0])
        if isinstance(test, ast.Call) and expected is not UNKNOWN:
            args = [literal(x) for x in [*test.args, *(word.value for word in test.keywords)]]
            if args and UNKNOWN not in args:
                yield args, expected
