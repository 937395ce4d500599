"""Test code runs here: in a sandboxed process of its own, against stand-ins for what the program defines.

A program under test never shares a process with its tests. What they use of it is asked for over a connection
(`rlvr_jax.sandbox.job`), and comes back as plain data of exact builtin types, which the tests then compare. What is no
plain data stays with the program, and a `Proxy` stands for it here: it forwards attributes, calls, items, iteration
and conversions to plain types. It never asks the program whether two things are equal, or which is less: a proxy
equals itself alone, and has no order. Nor does it tell the program what it is compared with, as `abs(f(x) - 0.5)`
would: arithmetic is only between instances that the tests themselves made, by calling a class (a name with a capital).
"""

import ast
import builtins
import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from rlvr_jax.sandbox import codec, job

PROGRAM = 4  # the file descriptor of the connection to the program; that to the host is job.CHANNEL
_SETTLE, _RECORD = "_settle_arguments", "_record_assertion"
_MAX_REASON = 300

# What tests use without an import, because the solution they were written for had one.
_KNOWN = {
    "collections": ("Counter", "OrderedDict", "defaultdict", "deque", "namedtuple"),
    "decimal": ("Decimal",),
    "fractions": ("Fraction",),
    "datetime": ("datetime", "date", "timedelta"),
    "math": ("inf", "isclose", "nan", "pi", "sqrt"),
    "typing": ("Any", "Dict", "List", "Optional", "Set", "Tuple"),
}
_HOME = {name: module for module, names in _KNOWN.items() for name in names}


class Gone(BaseException):
    """The program's process has ended or says what makes no sense. No test can pass any more."""


class Client:
    """The tests' end of the connection to the program."""

    def __init__(self, channel: int):
        self.channel = channel
        self.gone = ""
        self.functions: list[Callable[..., Any]] = []  # of the tests, given to the program
        self.changed: list[tuple[Any, Any]] = []  # arguments of calls, and what they have become

    def _handle(self, value: Any) -> tuple[str, int, str] | None:
        if isinstance(value, Proxy):
            return "h", object.__getattribute__(value, "_number"), object.__getattribute__(value, "_type_name")
        if callable(value):
            self.functions.append(value)
            return "y", len(self.functions) - 1, "function"
        return None

    def _stand_in(self, tag: str, number: int, name: str) -> Any:
        return Proxy(self, number, name) if tag == "h" else self.functions[number]

    def _decode(self, data: Any) -> Any:
        return codec.decode(data, self._stand_in)

    def _call_back(self, message: Mapping[str, Any]) -> dict[str, Any]:
        try:
            function = self.functions[message["callback"]]
            return {"ok": codec.encode(function(*self._decode(["l", *message["args"]])), self._handle)}
        except Exception as error:
            return job.raised(error)

    def ask(self, operation: str, *args: Any, **kw: Any) -> Any:
        """What the program's side makes of it; raises what it raised."""
        if self.gone:
            raise Gone(self.gone)
        data = [codec.encode(item, self._handle) for item in args]
        request = {"do": operation, "args": data, "kw": {k: codec.encode(v, self._handle) for k, v in kw.items()}}
        try:
            codec.send(self.channel, request)
            while "callback" in (answer := codec.receive(self.channel)):
                codec.send(self.channel, self._call_back(answer))
            if "ok" in answer:
                for index, after in answer.get("args", ()):
                    self.changed.append((args[index], self._decode(after)))
                return self._decode(answer["ok"])
            if "raised" not in answer:
                raise StopIteration
        except StopIteration:
            if operation == "next":
                raise
            self.gone = "the program broke the connection's rules"
        except (OSError, EOFError, ValueError, KeyError, IndexError, TypeError) as error:
            self.gone = f"the program has ended or broken the connection's rules: {error}"
        if self.gone:
            raise Gone(self.gone)
        raise job.error_of(answer)

    def settle(self) -> None:
        """Lets arguments be what the program has made of them. Happens between statements, so that no expression
        sees its own parts change."""
        for before, after in self.changed:
            _assign(before, after)
        self.changed.clear()


def _assign(before: Any, after: Any) -> None:
    """Gives mutable builtins the content of `after`, deep, and keeps the identity of those in the same place."""
    if type(before) is not type(after):
        return
    if type(before) in (list, tuple):
        for old, new in zip(before, after, strict=False):
            _assign(old, new)
        if type(before) is list:
            kept = [old if _same_container(old, new) else new for old, new in zip(before, after, strict=False)]
            before[:] = kept + after[len(kept) :]
    elif type(before) is dict:
        for key in before.keys() & after.keys():
            _assign(before[key], after[key])
        items = [(k, before[k] if k in before and _same_container(before[k], v) else v) for k, v in after.items()]
        before.clear()
        before.update(items)
    elif type(before) is set:
        before.clear()
        before.update(after)
    elif type(before) is bytearray:
        before[:] = after


def _same_container(old: Any, new: Any) -> bool:
    return type(old) is type(new) and type(old) in (list, dict, set, bytearray)


def _unary(operation: str, kind: type | None = None) -> Callable[..., Any]:
    def method(self: "Proxy", *args: Any) -> Any:
        value = _ask(self, operation, *args)
        if kind is not None and type(value) is not kind:
            raise TypeError(f"{operation} of an object of the program gave {type(value).__name__}")
        return value

    return method


def _binary(operation: str) -> Callable[..., Any]:
    def method(self: "Proxy", other: Any) -> Any:
        if not all(isinstance(p, Proxy) and object.__getattribute__(p, "_made_here") for p in (self, other)):
            return NotImplemented
        value = _ask(self, operation, other)
        if isinstance(value, Proxy):
            object.__setattr__(value, "_made_here", True)
        return value

    return method


def _ask(proxy: "Proxy", operation: str, *args: Any, **kw: Any) -> Any:
    return object.__getattribute__(proxy, "_client").ask(operation, proxy, *args, **kw)


def _no_order(*_: Any) -> bool:
    raise TypeError("an object of the program has no order that its word would count for")


class Proxy:
    """Stands for an object of the program."""

    __slots__ = ("_client", "_made_here", "_number", "_type_name")

    def __init__(self, client: Client, number: int, type_name: str):
        for name, value in zip(Proxy.__slots__, (client, False, number, type_name), strict=True):
            object.__setattr__(self, name, value)

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("__") and name.endswith("__") and name not in ("__name__", "__doc__"):
            return object.__getattribute__(self, name)
        return _ask(self, "getattr", name)

    def __setattr__(self, name: str, value: Any) -> None:
        _ask(self, "setattr", name, value)

    def __delattr__(self, name: str) -> None:
        _ask(self, "delattr", name)

    def __call__(self, *args: Any, **kw: Any) -> Any:
        return _ask(self, "call", *args, **kw)

    def __eq__(self, other: Any) -> bool:
        number = object.__getattribute__(self, "_number")
        return isinstance(other, Proxy) and object.__getattribute__(other, "_number") == number

    def __hash__(self) -> int:
        return hash(object.__getattribute__(self, "_number"))

    def __iter__(self) -> Iterator[Any]:
        iterator = _ask(self, "iter")
        return iterator if isinstance(iterator, Proxy) else iter(iterator)

    def __enter__(self) -> Any:
        return _ask(self, "getattr", "__enter__")()

    def __exit__(self, *_: Any) -> None:  # says nothing of an exception, and cannot keep it from the tests
        _ask(self, "getattr", "__exit__")(None, None, None)

    __len__ = _unary("len", int)
    __str__, __repr__, __format__ = _unary("str", str), _unary("repr", str), _unary("format", str)
    __bool__, __int__, __float__ = _unary("bool", bool), _unary("int", int), _unary("float", float)
    __complex__, __index__ = _unary("complex", complex), _unary("index", int)
    __next__, __round__, __abs__ = _unary("next"), _unary("round"), _unary("abs")
    __neg__, __pos__, __invert__ = _unary("neg"), _unary("pos"), _unary("invert")
    __getitem__, __setitem__, __delitem__ = _unary("getitem"), _unary("setitem"), _unary("delitem")
    __lt__ = __le__ = __gt__ = __ge__ = _no_order


for _name in job.BINARY.split():
    setattr(Proxy, f"__{_name.strip('_')}__", _binary(_name))


class _Maker:
    """A class of the program, by the name that the tests call it: its instances are made by the tests."""

    def __init__(self, proxy: Proxy):
        self._proxy = proxy

    def __call__(self, *args: Any, **kw: Any) -> Any:
        made = self._proxy(*args, **kw)
        if isinstance(made, Proxy):
            object.__setattr__(made, "_made_here", True)
        return made

    def __getattr__(self, name: str) -> Any:
        return getattr(self._proxy, name)


def free_names(trees: Iterable[ast.AST]) -> tuple[set[str], set[str]]:
    """Names that code uses and does not define: all of them, and those used only in the form `name.attribute`."""
    loaded, bases, bound = [], [], set()
    for node in [node for tree in trees for node in ast.walk(tree)]:
        if isinstance(node, ast.Name):
            (loaded.append if isinstance(node.ctx, ast.Load) else bound.add)(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.alias):
            bound.add((node.asname or node.name).split(".")[0])
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            bases.append(node.value.id)
    free = set(loaded) - bound
    return free, {name for name in free if loaded.count(name) == bases.count(name)}


def _under_test(trees: list[ast.AST]) -> tuple[set[str], dict[str, Any]]:
    """The names that tests take from the program, and those that they take from the standard library."""
    free, modules = free_names(trees)
    own = free - vars(builtins).keys()
    library = {n: n for n in own & modules & sys.stdlib_module_names} | {n: _HOME[n] for n in own & _HOME.keys()}
    if own <= library.keys():  # then the tests are about something of that name
        library = {}
    if not own:
        own = {
            node.func.id
            for tree in trees
            for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
    found = {}
    for name, module in library.items():
        found[name] = importlib.import_module(module)
        if name != module or name in _HOME:
            found[name] = getattr(found[name], name, found[name])
    return own - library.keys(), found


class _Instrument(ast.NodeTransformer):
    """Settles arguments after every simple statement and, if asked, records assertions instead of stopping."""

    def __init__(self, record: bool):
        self.record = record
        self.assertions = 0

    def generic_visit(self, node: ast.AST) -> ast.AST:
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
    except Exception:
        message = ""
    return (f"{type(error).__name__}: {message}" if message else type(error).__name__)[:_MAX_REASON]


def run_asserts(client: Client, setup: str, tests: list[str]) -> list[tuple[bool, str]]:
    """Each test: whether it ran to its end, and if not, why."""
    trees = [ast.parse(source) for source in (setup, *tests)]
    names, namespace = _under_test(trees)
    namespace |= {"__name__": "tests", _SETTLE: client.settle}
    try:
        for name in sorted(names):
            value = client.ask("global", name)
            is_class = name.lstrip("_")[:1].isupper() and isinstance(value, Proxy)
            namespace[name] = _Maker(value) if is_class else value
        exec(_compile(setup)[0], namespace)
    except BaseException as error:
        told = f"the program does not define {error}" if type(error) is KeyError else _told(error)
        return [(False, f"before the first test: {told}")] * len(tests)
    results = []
    for test in tests:
        try:
            exec(_compile(test)[0], namespace)
            results.append((not client.gone, client.gone))
        except BaseException as error:
            results.append((False, f"{test.strip()[:_MAX_REASON]}: {_told(error)}"))
    return results


def run_check(client: Client, prompt: str, entry_point: str, test: str) -> list[tuple[bool, str]]:
    """HumanEval's `check(candidate)`: each assertion that it meets. Helpers that the tests call are the prompt's."""
    results: list[tuple[bool, str]] = []

    def record(assertion: str, error: BaseException | None = None) -> None:
        results.append((error is None, "" if error is None else f"{assertion}: {_told(error)}"))

    code, assertions = _compile(test, record=True)
    namespace: dict[str, Any] = {"__name__": "tests", _SETTLE: client.settle, _RECORD: record}
    try:
        exec(compile(prompt, "prompt.py", "exec", dont_inherit=True), namespace)
        candidate = client.ask("global", entry_point)
        namespace[entry_point] = candidate
        exec(code, namespace)
        namespace["check"](candidate)
    except BaseException as error:
        told = f"the program does not define {error}" if type(error) is KeyError else _told(error)
        results.append((False, told))
    if client.gone:
        results = [(False, client.gone)]
    missing = max(1, assertions) - len(results)
    return results + [(False, "not reached")] * (missing if not all(ok for ok, _ in results) or not results else 0)


def run() -> None:
    """Runs the tests that the host sends against the program, and sends the results."""
    message = codec.receive(job.CHANNEL)
    client = Client(PROGRAM)
    if message["kind"] == "asserts":
        results = run_asserts(client, message["setup"], message["tests"])
    else:
        results = run_check(client, message["prompt"], message["entry_point"], message["test"])
    codec.send(job.CHANNEL, {"results": [[ok, reason] for ok, reason in results]})
