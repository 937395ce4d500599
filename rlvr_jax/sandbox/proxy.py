"""The program as seen by test code: proxies of objects in the program's process.

Tests use the program over a connection (`rlvr_jax.sandbox.job`), and get plain data of exact builtin types, which they
compare. Other objects stay with the program and are represented by a `Proxy`, which forwards attributes, calls, items,
iteration and conversions to plain types. It never asks the program for equality or order: a proxy equals only itself
and has no order. Nor does it reveal what it is compared with, as `abs(f(x) - 0.5)` would: arithmetic is only between
instances that the tests made by calling a class (a capitalised name). An object with a length has that many items, the
same ones until the tests change something.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any

from rlvr_jax.sandbox import codec, job

_CHANGING = frozenset({"call", "setattr", "delattr", "setitem", "delitem"})
_MAX_HELD = 100_000  # items of an object that are read ahead


class Gone(BaseException):
    """The program's process has ended or sent invalid data. No further test can pass."""


class Client:
    """The tests' end of the connection to the program."""

    def __init__(self, channel: int):
        self.channel = channel
        self.gone = ""  # why no further test can pass
        self.ended = False  # the program has closed its end
        self.asked = 0  # number of requests of the tests
        self.changes = 0  # number of those that may change the program's objects
        self.functions: list[Callable[..., Any]] = []  # functions of the tests, passed to the program
        self.changed: list[tuple[Any, Any]] = []  # arguments of calls, and their new values

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
        return codec.decode(data, self._stand_in, arrays=True)

    def _call_back(self, message: Mapping[str, Any]) -> dict[str, Any]:
        try:
            function = self.functions[message["callback"]]
            return {"ok": codec.encode(function(*self._decode(["l", *message["args"]])), self._handle)}
        except Exception as error:
            return job.raised(error)

    def ask(self, operation: str, *args: Any, **kw: Any) -> Any:
        """The result of a request to the program; raises its exception."""
        self.asked += operation != "global"
        self.changes += operation in _CHANGING
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
            self.ended = isinstance(error, OSError | EOFError)
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
    """Assigns the content of `after` to mutable builtins recursively, keeping their identity."""
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
    elif type(before) is bytearray or (type(before).__name__ == "ndarray" and before.shape == after.shape):
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


class _Content:
    """The items that an object of the program claims to contain; valid until the tests change something."""

    def __init__(self, proxy: "Proxy", changes: int):
        self.proxy, self.changes = proxy, changes
        self.items: list[Any] | None = None
        try:
            self.length = _ask(proxy, "len")
        except TypeError:
            self.length = None
        if self.length is not None and (type(self.length) is not int or self.length < 0):
            raise TypeError(f"the length of an object of the program is a {type(self.length).__name__}")

    def __iter__(self) -> Iterator[Any]:
        if self.items is not None:
            return iter(self.items)
        iterator = _ask(self.proxy, "iter")
        iterator = iterator if isinstance(iterator, Proxy) else iter(iterator)
        if self.length is None or self.length > _MAX_HELD:
            return iterator
        items = list(islice(iterator, self.length + 1))
        if len(items) != self.length:
            raise ValueError(f"an object of the program has length {self.length}, and not as many items")
        self.items = items
        return iter(items)


def _content(proxy: "Proxy") -> _Content:
    content, client = object.__getattribute__(proxy, "_content"), object.__getattribute__(proxy, "_client")
    if content is None or content.changes != client.changes:
        content = _Content(proxy, client.changes)
        object.__setattr__(proxy, "_content", content)
    return content


class Proxy:
    """The proxy of an object of the program."""

    __slots__ = ("_client", "_content", "_made_here", "_number", "_type_name")

    def __init__(self, client: Client, number: int, type_name: str):
        for name, value in zip(Proxy.__slots__, (client, None, False, number, type_name), strict=True):
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
        return iter(_content(self))

    def __len__(self) -> int:
        length = _content(self).length
        if length is None:
            raise TypeError("an object of the program has no len()")
        return length

    def __enter__(self) -> Any:
        return _ask(self, "getattr", "__enter__")()

    def __exit__(self, *_: Any) -> None:  # ignores exceptions, and cannot suppress them
        _ask(self, "getattr", "__exit__")(None, None, None)

    __str__, __repr__, __format__ = _unary("str", str), _unary("repr", str), _unary("format", str)
    __bool__, __int__, __float__ = _unary("bool", bool), _unary("int", int), _unary("float", float)
    __complex__, __index__ = _unary("complex", complex), _unary("index", int)
    __next__, __round__, __abs__ = _unary("next"), _unary("round"), _unary("abs")
    __neg__, __pos__, __invert__ = _unary("neg"), _unary("pos"), _unary("invert")
    __getitem__, __setitem__, __delitem__ = _unary("getitem"), _unary("setitem"), _unary("delitem")
    __lt__ = __le__ = __gt__ = __ge__ = _no_order


for _name in job.BINARY.split():
    setattr(Proxy, f"__{_name.strip('_')}__", _binary(_name))


class Maker:
    """A class of the program, whose instances are made by the tests."""

    def __init__(self, proxy: Proxy):
        self._proxy = proxy

    def __call__(self, *args: Any, **kw: Any) -> Any:
        made = self._proxy(*args, **kw)
        if isinstance(made, Proxy):
            object.__setattr__(made, "_made_here", True)
        return made

    def __getattr__(self, name: str) -> Any:
        return getattr(self._proxy, name)
