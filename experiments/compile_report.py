"""The tables of `rlvr compile`."""

from collections.abc import Iterable, Sequence

from rlvr_jax.training.analysis import Analysis, by_kind
from rlvr_jax.training.functions import sampling_config
from rlvr_jax.training.networks import networks_of
from rlvr_jax.training.roofline import Work

GIB = 2**30
_FLOP = (1e12, "TFLOP"), (1e9, "GFLOP"), (1e6, "MFLOP")
_BYTES = (1e9, "GB"), (1e6, "MB"), (1e3, "kB")
_SECONDS = (1.0, "s"), (1e-3, "ms"), (1e-6, "µs")


def table(analysis: Analysis, title: str, compiled: bool) -> list[str]:
    """The lines of the whole report."""
    lines = [*_header(analysis, title), "", *_memory(analysis, compiled), "", *_work(analysis)]
    lines += ["", *_collectives(analysis, compiled)]
    return [*lines, "", *_summary(analysis)] if analysis.chip else lines


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned columns, the first to the left and the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    sides = ["<", *[">"] * (len(widths) - 1)]
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)) for row in rows
    ]


def _unit(values: Iterable[float], units: Sequence[tuple[float, str]]) -> tuple[float, str]:
    """The largest unit that the largest value reaches, for a column; the first one if all are 0."""
    most = max(values, default=0.0)
    return next((unit for unit in units if most >= unit[0]), units[-1]) if most else units[0]


def _duration(seconds: float, digits: int) -> str:
    unit, name = _unit([seconds], _SECONDS)
    return f"{seconds / unit:,.{digits}f} {name}"


def _header(analysis: Analysis, title: str) -> list[str]:
    setup, chip = analysis.setup, analysis.chip
    options = next(iter(networks_of(setup.config, setup.run).values()))
    sizes = lambda mesh: ", ".join(f"{name} {size}" for name, size in mesh.shape.items())  # noqa: E731
    lines = [
        f"{title}: {analysis.memory.devices}",
        f"training: {sizes(setup.mesh)}; {options.microbatches} microbatches, remat {setup.policy.remat}, "
        f"{setup.policy.head_chunk or 'all'} logits at a time",
    ]
    if setup.run == "rl":
        sampling = sampling_config(setup)
        batch = f"{sampling.slots} slots" if sampling.slots else f"{sampling.batch_size} prompts at a time"
        lines.append(f"sampling: {sizes(setup.sampling_mesh)}; {batch}, {sampling.group_size} samples of each")
    if chip:
        lines.append(
            f"a device: {chip.flops / 1e12:,.0f} TFLOP/s, {chip.bandwidth / 1e9:,.0f} GB/s memory, "
            f"{chip.link / 1e9:,.0f} GB/s per link and direction ({chip.source})"
        )
    return lines


def _memory(analysis: Analysis, compiled: bool) -> list[str]:
    totals, capacity = analysis.totals, analysis.memory.capacity
    phases = {name: analysis.memory.phases.get(name, {}) for name in totals}  # of a refused one nothing more is known
    kinds = list(dict.fromkeys(kind for held in phases.values() for kind in held))
    most = max(totals.values())
    unit, name = (GIB, "GiB") if most >= GIB else (2**20, "MiB")
    cell = lambda size: f"{size / unit:.1f}"  # noqa: E731
    rows = [[f"memory per device, {name}", *phases]]
    rows += [[kind, *(cell(held[kind]) if kind in held else "" for held in phases.values())] for kind in kinds]
    rows.append(["total", *map(cell, totals.values())])
    if capacity is not None:
        rows.append([f"to spare of {cell(capacity)}", *(cell(capacity - total) for total in totals.values())])
    if compiled:
        said = {True: "compiled", False: "estimate"} | dict.fromkeys(analysis.missing, "refused")
        rows.append(["", *(said.get(phase, said[phase in analysis.compiled]) for phase in phases)])
    return columns(rows)


def _work(analysis: Analysis) -> list[str]:
    work, times = analysis.work, analysis.times
    flops = {phase: part.flops + part.attention for phase, part in work.items()}
    sent = {phase: _sent(part) for phase, part in work.items()}
    flop, of_flops = _unit(flops.values(), _FLOP)
    byte, of_bytes = _unit((part.bytes for part in work.values()), _BYTES)
    out, of_sent = _unit(sent.values(), _BYTES)
    rows = [["work per device and step", of_flops, f"{of_bytes} moved", "FLOP/byte", f"{of_sent} sent", "steps"]]
    if times:
        kinds = ["compute", "memory", "interconnect", *["host"] * any(part.host for part in work.values())]
        parts = {phase: [getattr(time, kind) for kind in kinds] for phase, time in times.items()}
        second, of_parts = _unit((x for of_phase in parts.values() for x in of_phase), _SECONDS[1:])
        whole, of_whole = _unit((time.total for time in times.values()), _SECONDS)
        rows[0] += [f"{of_parts} {kind}" for kind in kinds]
        rows[0] += ["seconds" if whole == 1 else f"{of_whole} in all", "limit"]
    for phase, part in work.items():
        row = [phase, f"{flops[phase] / flop:,.2f}", f"{part.bytes / byte:,.1f}"]
        row += [f"{flops[phase] / max(part.bytes, 1):,.0f}", f"{sent[phase] / out:,.2f}", f"{part.steps:,}"]
        if times:
            row += [f"{x / second:,.1f}" for x in parts[phase]]
            row += [f"{times[phase].total / whole:,.3f}", times[phase].limit]
        rows.append(row)
    return columns(rows)


def _sent(part: Work) -> float | int:
    """Bytes of all collectives."""
    return sum(x.bytes * x.times for x in part.collectives)


def _collectives(analysis: Analysis, compiled: bool) -> list[str]:
    totals = {phase: by_kind(part.collectives) for phase, part in analysis.work.items()}
    if not any(totals.values()):
        return ["no collectives"]
    unit, name = _unit((total["bytes"] for kinds in totals.values() for total in kinds.values()), _BYTES)
    rows = [["collectives per device and step", "kind", "times", f"{name} sent"]]
    for phase, kinds in totals.items():
        rows += [
            [phase, kind, f"{total['times']:,}", f"{total['bytes'] / unit:,.3f}"]
            for kind, total in sorted(kinds.items())
        ]
    source = "read from the compiled programs" if compiled else "by estimate"
    decoding = "; those of decode are inside of the decoding loop" * ("decode" in totals)
    return [*columns(rows), source + decoding]


def _summary(analysis: Analysis) -> list[str]:
    sampled, step = ("sampled ", "a step") if "decode" in analysis.work else ("", "an update")
    return [
        f"{step} takes {_duration(analysis.seconds, 1)} or more: {analysis.tokens_per_second:,.0f} {sampled}tokens/s "
        "per chip",
        f"the update reaches at most {analysis.utilization:.0%} of the peak FLOP/s (MFU), limited by "
        f"{analysis.times['update'].limit}",
        *_decoding(analysis),
        "Predictions, not measurements: prompts and responses of full length, each phase as long as the slowest of "
        "products, memory and interconnect at their published rates.",
    ]


def _decoding(analysis: Analysis) -> list[str]:
    if "decode" not in analysis.work:
        return []
    decode, time = analysis.work["decode"], analysis.times["decode"]
    floor = decode.floor / analysis.chip.bandwidth / decode.steps
    return [
        f"a decode step takes {_duration(time.total / decode.steps, 2)}, {time.total / decode.steps / floor:.2f} times "
        f"what it takes to read weights and KV cache once ({_duration(floor, 2)})"
    ]
