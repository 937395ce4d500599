"""Plain data across a trust boundary: builtin values as tagged JSON, which cannot execute code when parsed.

`None`, `True`, `1`, `1.5` and `"text"` stand for themselves. Every JSON array starts with a tag:

    l list   t tuple   s set   z frozenset   d dict, keys and values in turn   i int in hexadecimal   c complex
    b bytes  B bytearray  r range  e Ellipsis  D Decimal  F Fraction  q deque  w date or time  T builtin by its name
    N array of NumPy: type of its elements, shape, elements
    h y an object of the job, a function of the tests, which stay in their process: number, name of the type

Decoding gives exact builtin types, so no method of the sender's classes takes part in any comparison. An instance of a
subclass of a builtin type is encoded as the builtin value that it contains, and so is a NumPy scalar. Everything is
bounded: bytes, depth, items, and the number of items of a set or dict that share a hash.
"""

import builtins
import datetime
import json
import math
import os
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, NamedTuple

MAX_BYTES = 64 << 20  # of one message between processes of the sandbox, which the job's memory and CPU time also bound
MAX_ITEMS = 4_000_000
HOST_BYTES = 1 << 20  # of a message that the host reads, unless it expects a longer value
HOST_ITEMS = 200_000
MAX_DEPTH = 64
_SMALL = 1 << 53  # integers below are JSON numbers, as every JSON parser reads them exactly
_MAX_FRACTION_BITS = 1 << 16
_MAX_SAME_HASH = 64  # items of a set
_ATOMS = {int, float, str, bool, type(None)}
_TIMES = {
    "date": datetime.date,
    "datetime": datetime.datetime,
    "time": datetime.time,
}


class CodecError(ValueError):
    """A value that is not plain data, an invalid message, or one beyond the bounds."""


class NotPlainError(CodecError):
    """A value that is not plain data."""


def _builtin_name(value: Any) -> str | None:
    """The name under which `builtins` has the value, if it is one of its types or functions."""
    if not issubclass(type(value), (type, type(len))):
        return None
    name = value.__name__
    return name if isinstance(name, str) and vars(builtins).get(name) is value else None


def encode(
    value: Any, handle: Callable[[Any], tuple[str, int, str] | None] | None = None, max_items: int = MAX_ITEMS
) -> Any:
    """The value as JSON data; `handle` returns tag, number and type name of objects that stay here, or None.

    Raises:
      CodecError: it contains something that is neither plain nor accepted by `handle`, or exceeds the bounds.
    """
    left = max_items

    def count(items: int) -> None:
        nonlocal left
        left -= items
        if left < 0:
            raise CodecError(f"more than {max_items} items")

    def many(tag: str, items: Iterable[Any], depth: int) -> list[Any]:
        items = list(items)
        if len(items) > left:
            count(len(items))
        if set(map(type, items)) <= _ATOMS and all(-_SMALL < x < _SMALL for x in items if type(x) is int):
            count(len(items))
            return [tag, *items]
        return [tag, *[one(item, depth + 1) for item in items]]

    def one(value: Any, depth: int) -> Any:
        count(1)
        if depth > MAX_DEPTH:
            raise CodecError(f"nested deeper than {MAX_DEPTH}")
        if value is None or value is True or value is False:
            return value
        for kind, write in _WRITERS:
            if isinstance(value, kind) and issubclass(type(value), kind):  # not by `__class__`, which may lie
                return write(value, depth, many)
        name = _builtin_name(value)
        if name is not None:
            return ["T", name]
        if (plain := _from_numpy(value)) is not value:
            return one(plain, depth) if type(plain) is not _Array else [*plain.head, *many("l", plain.items, depth)[1:]]
        stays = handle(value) if handle is not None else None
        if stays is None:
            raise NotPlainError(f"a value of type {type(value).__name__} is not plain data")
        return list(stays)

    return one(value, 0)


class _Array(NamedTuple):
    head: list[Any]
    items: list[Any]


def _from_numpy(value: Any) -> Any:
    """A scalar as a builtin value, an array of numbers, bools or texts as `_Array`; anything else unchanged."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.generic | numpy.ndarray):
        return value
    if isinstance(value, numpy.generic) or value.ndim == 0:
        item = value.item()
        return value if isinstance(item, numpy.generic) else item
    if value.dtype.kind not in "biufcU":
        return value
    shape = [int(size) for size in value.shape]
    return _Array(["N", value.dtype.str, ["t", *shape]], value.ravel().tolist()) if value.size else value.tolist()


def _nested(items: list[Any], shape: Sequence[int]) -> list[Any]:
    if len(shape) == 1:
        return items
    step = len(items) // shape[0]
    return [_nested(items[i : i + step], shape[1:]) for i in range(0, len(items), step)]


def _array(kind: str, shape: tuple[int, ...], items: list[Any], arrays: bool) -> Any:
    if not (
        1 <= len(shape) <= MAX_DEPTH
        and all(type(size) is int and size > 0 for size in shape)
        and math.prod(shape) == len(items)
        and kind[1:2] in tuple("biufcU")
    ):
        raise CodecError("not an array")
    numpy = sys.modules.get("numpy") if arrays else None
    return _nested(items, shape) if numpy is None else numpy.array(items, dtype=kind).reshape(shape)


def _integer(value: int, *_: Any) -> Any:
    value = int.__index__(value)
    return value if -_SMALL < value < _SMALL else ["i", format(value, "x")]


def _in_order(data: list[Any]) -> list[Any]:
    """Items of a set in an order that does not depend on the interpreter's hash seed."""
    return [data[0], *sorted(data[1:], key=json.dumps)]


_WRITERS: tuple[tuple[type, Callable[..., Any]], ...] = (
    (int, _integer),
    (str, lambda value, *_: str.__str__(value)),
    (float, lambda value, *_: float.__float__(value)),
    (list, lambda value, depth, many: many("l", list.__iter__(value), depth)),
    (tuple, lambda value, depth, many: many("t", tuple.__iter__(value), depth)),
    (dict, lambda value, depth, many: many("d", (x for pair in dict.items(value) for x in pair), depth)),
    (set, lambda value, depth, many: _in_order(many("s", set.__iter__(value), depth))),
    (frozenset, lambda value, depth, many: _in_order(many("z", frozenset.__iter__(value), depth))),
    (complex, lambda value, *_: ["c", value.real, value.imag]),
    (bytes, lambda value, *_: ["b", bytes(value).decode("latin-1")]),
    (bytearray, lambda value, *_: ["B", bytes(value).decode("latin-1")]),
    (range, lambda value, depth, many: many("r", (value.start, value.stop, value.step), depth)),
    (type(...), lambda *_: ["e"]),
    (Decimal, lambda value, *_: ["D", Decimal.__str__(value)]),
    (Fraction, lambda value, depth, many: many("F", (value.numerator, value.denominator), depth)),
    (deque, lambda value, depth, many: many("q", deque.__iter__(value), depth)),
    (datetime.datetime, lambda value, *_: ["w", "datetime", value.isoformat()]),
    (datetime.date, lambda value, *_: ["w", "date", value.isoformat()]),
    (datetime.time, lambda value, *_: ["w", "time", value.isoformat()]),
    (datetime.timedelta, lambda value, *_: ["w", "timedelta", value.days, value.seconds, value.microseconds]),
)


def _spread(items: list[Any]) -> list[Any]:
    """The items, if their hashes differ enough for a set of them to take linear time."""
    if len(items) > _MAX_SAME_HASH and max(Counter(map(hash, items)).values()) > _MAX_SAME_HASH:
        raise CodecError("many of the items share a hash")
    return items


def decode(
    data: Any,
    handle: Callable[[str, int, str], Any] | None = None,
    functions: bool = False,
    arrays: bool = False,
    max_items: int = MAX_ITEMS,
) -> Any:
    """The inverse of `encode`. `handle` makes the proxy of an object that stayed with the sender.

    Args:
      functions: accept builtin functions by name as well as builtin types.
      arrays: return NumPy arrays if NumPy is loaded; otherwise nested lists.
      max_items: of the whole value.

    Raises:
      CodecError: the data is anything else.
    """
    left = max_items

    def count(items: int) -> None:
        nonlocal left
        left -= items
        if left < 0:
            raise CodecError(f"more than {max_items} items")

    def many(items: list[Any], depth: int) -> list[Any]:
        if len(items) > left or set(map(type, items)) <= _ATOMS:
            count(len(items))
            return items
        return [one(item, depth + 1) for item in items]

    def one(data: Any, depth: int) -> Any:
        count(1)
        if depth > MAX_DEPTH:
            raise CodecError(f"nested deeper than {MAX_DEPTH}")
        if data is None or type(data) in (bool, int, float, str):
            return data
        if type(data) is not list or not data or type(data[0]) is not str:
            raise CodecError("not a tagged value")
        tag, *rest = data
        if tag in _CONTAINERS:
            return _CONTAINERS[tag](many(rest, depth))
        if tag in ("h", "y") and handle is not None:
            number, name = rest
            if type(number) is not int or type(name) is not str:
                raise CodecError("not a handle")
            return handle(tag, number, name[:100])
        if tag == "N":
            kind, shape, *items = rest
            return _array(kind, one(shape, depth + 1), many(items, depth), arrays)
        if tag == "T":
            value = vars(builtins).get(rest[0]) if type(rest[0]) is str else None
            if isinstance(value, type) or (functions and isinstance(value, type(len))):
                return value
        if tag in _READERS:
            return _READERS[tag](*rest)
        raise CodecError(f"no value has the tag {tag[:20]!r}")

    try:
        return one(data, 0)
    except CodecError:
        raise
    except (ValueError, TypeError, AttributeError, ArithmeticError, LookupError, RecursionError) as error:
        raise CodecError(f"not a value: {error}") from error


def _pairs(items: list[Any]) -> dict[Any, Any]:
    if len(items) % 2:
        raise CodecError("a key without a value")
    return dict(zip(_spread(items[::2]), items[1::2], strict=True))


def _fraction(numerator: int, denominator: int) -> Fraction:
    if max(numerator.bit_length(), denominator.bit_length()) > _MAX_FRACTION_BITS:
        raise CodecError("a fraction that would take long to reduce")
    return Fraction(numerator, denominator)


def _when(name: str, *fields: Any) -> Any:
    if name == "timedelta":
        return datetime.timedelta(*fields)
    return _TIMES[name].fromisoformat(*fields)


_CONTAINERS: dict[str, Callable[[list[Any]], Any]] = {
    "l": lambda items: items,
    "t": tuple,
    "s": lambda items: set(_spread(items)),
    "z": lambda items: frozenset(_spread(items)),
    "d": _pairs,
    "r": lambda items: range(*items),
    "F": lambda items: _fraction(*items),
    "q": deque,
}
_READERS: dict[str, Callable[..., Any]] = {
    "i": lambda text: int(text, 16),
    "c": complex,
    "b": lambda text: text.encode("latin-1"),
    "B": lambda text: bytearray(text.encode("latin-1")),
    "e": lambda: ...,
    "D": Decimal,
    "w": _when,
}


def dumps(message: Any, max_bytes: int = MAX_BYTES) -> bytes:
    """A message of JSON data as bytes; raises CodecError if it exceeds `max_bytes`."""
    data = json.dumps(message, separators=(",", ":")).encode("ascii")
    if len(data) > max_bytes:
        raise CodecError(f"a message of {len(data)} bytes, more than {max_bytes}")
    return data


def loads(data: bytes) -> dict[str, Any]:
    """The message in `data`; raises CodecError if it is not a JSON object."""
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CodecError(f"not a message: {error}") from error
    if type(message) is not dict:
        raise CodecError("a message is a JSON object")
    return message


def read_exactly(file: int, count: int) -> bytes:
    """This many bytes of a stream; raises EOFError if it ends before."""
    data = bytearray()
    while len(data) < count:
        part = os.read(file, min(count - len(data), 1 << 16))
        if not part:
            raise EOFError("the other side has closed the connection")
        data += part
    return bytes(data)


def receive(file: int) -> dict[str, Any]:
    """The next message of a stream; blocks. Raises EOFError at the end, CodecError for an invalid message."""
    length = int.from_bytes(read_exactly(file, 4), "big")
    if length > MAX_BYTES:
        raise CodecError(f"a message of {length} bytes, more than {MAX_BYTES}")
    return loads(read_exactly(file, length))


def framed(message: dict[str, Any], max_bytes: int = MAX_BYTES) -> bytes:
    """The message in stream format: four bytes of length, and `dumps`."""
    data = dumps(message, max_bytes)
    return len(data).to_bytes(4, "big") + data


def write(file: int, data: bytes) -> None:
    """Writes all bytes to a stream."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]


def send(file: int, message: dict[str, Any]) -> None:
    """Writes the message to a stream; blocks until all is written."""
    write(file, framed(message))
