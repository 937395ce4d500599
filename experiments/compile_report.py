"""The tables of `rlvr compile`."""

from collections.abc import Sequence

from rlvr_jax.training.analysis import Analysis, by_kind

GIB = 2**30


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


def _header(analysis: Analysis, title: str) -> list[str]:
    from rlvr_jax.training.functions import sampling_config

    setup, chip = analysis.setup, analysis.chip
    sizes = lambda mesh: ", ".join(f"{name} {size}" for name, size in mesh.shape.items())  # noqa: E731
    sampling, shape = sampling_config(setup), setup.policy
    batch = f"{sampling.slots} slots" if sampling.slots else f"{sampling.batch_size} prompts at a time"
    lines = [
        f"{title}: {analysis.memory.devices}",
        f"training: {sizes(setup.mesh)}; {setup.config.optimizer.microbatches} microbatches, remat {shape.remat}, "
        f"{shape.head_chunk or 'all'} logits at a time",
        f"sampling: {sizes(setup.sampling_mesh)}; {batch}, {sampling.group_size} samples of each",
    ]
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
    rows = [["work per device and step", "TFLOP", "GB moved", "FLOP/byte", "GB sent", "steps"]]
    offloads = any(part.host for part in analysis.work.values())
    timed = ["ms compute", "ms memory", "ms links", *["ms host"] * offloads, "seconds", "limit"]
    rows[0] += timed if analysis.chip else []
    for phase, part in analysis.work.items():
        flops, sent = part.flops + part.attention, sum(x.bytes * x.times for x in part.collectives)
        row = [phase, f"{flops / 1e12:,.2f}", f"{part.bytes / 1e9:,.1f}", f"{flops / max(part.bytes, 1):,.0f}"]
        row += [f"{sent / 1e9:,.2f}", f"{part.steps:,}"]
        if analysis.chip:
            time = analysis.times[phase]
            parts = time.compute, time.memory, time.interconnect, *[time.host] * offloads
            row += [f"{1e3 * x:,.1f}" for x in parts]
            row += [f"{time.total:,.3f}", time.limit]
        rows.append(row)
    return columns(rows)


def _collectives(analysis: Analysis, compiled: bool) -> list[str]:
    rows = [["collectives per device and step", "kind", "times", "GB sent"]]
    for phase, part in analysis.work.items():
        rows += [
            [phase, kind, f"{total['times']:,}", f"{total['bytes'] / 1e9:,.3f}"]
            for kind, total in sorted(by_kind(part.collectives).items())
        ]
    source = "read from the compiled programs" if compiled else "by estimate"
    return [*columns(rows), f"{source}; those of decode are inside of the decoding loop"]


def _summary(analysis: Analysis) -> list[str]:
    decode, time = analysis.work["decode"], analysis.times["decode"]
    floor = decode.floor / analysis.chip.bandwidth / decode.steps
    return [
        f"a step takes {analysis.seconds:,.1f} s or more: {analysis.tokens_per_second:,.0f} sampled tokens/s per chip",
        f"the update reaches at most {analysis.utilization:.0%} of the peak FLOP/s (MFU), limited by "
        f"{analysis.times['update'].limit}",
        f"a decode step takes {1e3 * time.total / decode.steps:.2f} ms, {time.total / decode.steps / floor:.2f} times "
        f"what it takes to read weights and KV cache once ({1e3 * floor:.2f} ms)",
        "Predictions, not measurements: prompts and responses of full length, each phase as long as the slowest of "
        "products, memory and links at their published rates.",
    ]
