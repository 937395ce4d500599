"""The collectives of a compiled program, read from its text (`jax.stages.Compiled.as_text`)."""

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][\w\-]*)\(([^)]*)\)(.*)$")
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+\w*)\[([\d,]*)\]")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition)=%?([\w.\-]+)")
_KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute", "ragged-all-to-all")
_SMALL = {"pred": 8, "token": 0}  # bits of element types without a number in their name


@dataclass(frozen=True)
class Collective:
    """One collective operation.

    Attributes:
      kind: such as "all-gather".
      bytes: that each device sends over its links, once.
      devices: that take part together.
      times: executions in a run of the program; loops that may end early are counted to their end.
      decoding: it is inside of a loop that may end early, such as decoding until all samples have finished.
      source: the JAX operation that it comes from.
    """

    kind: str
    bytes: int
    devices: int
    times: int
    decoding: bool
    source: str


@dataclass(frozen=True)
class _Instruction:
    name: str
    type: str
    opcode: str
    operands: str
    rest: str


def collectives(text: str, num_devices: int) -> list[Collective]:
    """The collectives of a program for `num_devices` devices; one over a single device is none."""
    bodies, entry = _computations(text)
    found = _of_computation(bodies, entry, num_devices)
    return [x for x in found.values() if x.devices > 1]


def _computations(text: str) -> tuple[dict[str, list[_Instruction]], str]:
    bodies: dict[str, list[_Instruction]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if current is None and (header := _HEADER.match(line)):
            current = bodies.setdefault(header[2], [])
            entry = header[2] if header[1] else entry
        elif re.match(r"\}(\s|$)", line):  # an attribute may go over several lines, and end with }}
            current = None
        elif current is not None and (match := _INSTRUCTION.match(line)):
            current.append(_Instruction(*match.groups()))
    return bodies, entry


def _of_computation(bodies, name: str, num_devices: int) -> dict[tuple, Collective]:
    """By an identity: a collective that runs beside others appears in the fusion of each of these.

    Its channel alone is none: those of `jax.shard_map` share one.
    """
    found: dict[tuple, Collective] = {}
    alike: Counter[tuple] = Counter()
    scattered = "all-reduce-scatter" in name  # how the TPU compiler writes a reduce-scatter
    for x in bodies.get(name, ()):
        kind = x.opcode.removesuffix("-start")
        if kind in _KINDS:
            made = _collective(x, "reduce-scatter" if scattered else kind, num_devices)
            channel = re.search(r"channel_id=(\d+)", x.rest)
            key = channel and channel[1], kind, made.bytes, "" if channel else x.name
            alike[key] += 1
            found.setdefault((*key, alike[key]), made)
        elif x.opcode == "while":
            condition, body = (re.search(rf"{part}=%?([\w.\-]+)", x.rest)[1] for part in ("condition", "body"))
            times, ends_early = _trips(x, bodies.get(condition, ()))
            for part in (condition, body):
                for key, inner in _of_computation(bodies, part, num_devices).items():
                    decoding = inner.decoding or ends_early
                    found[(x.name, *key)] = replace(inner, times=inner.times * times, decoding=decoding)
        else:
            for called in _called(x):
                inside = _of_computation(bodies, called, num_devices)
                found = inside | found if x.opcode == "fusion" else found | inside
    return found


def _called(x: _Instruction) -> Iterator[str]:
    if x.opcode in ("fusion", "call", "async-start", "conditional"):
        yield from _CALLED.findall(x.rest)
        if branches := re.search(r"branch_computations=\{([^}]*)\}", x.rest):
            yield from (name.strip(" %") for name in branches[1].split(","))


def _trips(loop: _Instruction, condition: list[_Instruction]) -> tuple[int, bool]:
    """The largest number of iterations of a loop, and True if it may end earlier."""
    known = re.search(r"known_trip_count\D*(\d+)", loop.rest)
    if known:
        return int(known[1]), False
    constants = {x.name: int(x.operands) for x in condition if x.opcode == "constant" and x.operands.isdigit()}
    limits = [
        constants[operand.strip(" %").rpartition("%")[2]]
        for x in condition
        if x.opcode == "compare" and "direction=LT" in x.rest
        for operand in x.operands.split(", ")
        if operand.strip(" %").rpartition("%")[2] in constants
    ]
    return max(limits, default=1), not condition or condition[-1].opcode not in ("compare", "fusion")


def _collective(x: _Instruction, kind: str, num_devices: int) -> Collective:
    sizes = [_bytes(*array) for array in _ARRAY.findall(x.type)]
    size = max(sizes, default=0) if x.opcode.endswith("-start") else sum(sizes)
    devices = _group_size(x.rest, num_devices)
    if kind == "reduce-scatter" and x.opcode.startswith("reduce-scatter"):
        size *= devices  # the result is one of the parts
    share = (devices - 1) / devices
    sent = {"all-reduce": 2 * share, "collective-permute": 1}.get(kind, share)
    source = re.search(r'op_name="([^"]*)"', x.rest)
    return Collective(kind, int(size * sent), devices, 1, False, source[1] if source else "")


def _bytes(element: str, shape: str) -> int:
    bits = _SMALL.get(element) or int(re.search(r"\d+", element)[0])
    return math.prod(map(int, filter(None, shape.split(",")))) * bits // 8


def _group_size(attributes: str, num_devices: int) -> int:
    if pairs := re.search(r"source_target_pairs=", attributes):
        return 2 if pairs else 1
    groups = re.search(r"replica_groups=(\S+(?: \{'[^}]*\})?)", attributes)
    if groups is None:
        return num_devices
    if iota := re.match(r"\[\d+,(\d+)\]<=", groups[1]):
        return int(iota[1])
    if lists := re.match(r"\{\{([\d,]+)\}", groups[1]):
        return len(lists[1].split(","))
    if mesh := re.match(r"mesh\[([^\]]*)\]\s*\{([^}]*)\}", groups[1]):
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", mesh[1])}
        parts = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", mesh[2])
        return math.prod(int(part) if part else sizes[name] for name, part in parts)
    return num_devices
