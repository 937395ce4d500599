"""Pictures of sweeps: curves with bands over seeds, and differences from the base with their intervals."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from rlvr_jax.reporting.curves import short
from rlvr_jax.reporting.pages import svg_of
from rlvr_jax.reporting.panel import CYCLE
from rlvr_jax.sweeps.results import Band, Results
from rlvr_jax.sweeps.stored import Reproduction

INK, FAINT = "#1f2328", "#6b7280"
_MOST_COLOURED = 8  # variants beside the base; the others are grey
_GREY = "#c3c7ce"
_LABEL = 0.08  # of the height of the axes: that of a label


def colours(found: Results) -> list[str]:
    """Of each variant: dark for the base, colours for those that differ most from it, grey for the rest."""
    size = lambda i: abs(found.variants[i].final.difference) if found.variants[i].final else -1.0  # noqa: E731
    order = sorted(range(1, len(found.variants)), key=lambda i: -size(i) if size(i) == size(i) else 0.0)
    coloured = sorted(order[:_MOST_COLOURED])
    chosen = [INK] + [_GREY] * (len(found.variants) - 1)
    for place, i in enumerate(coloured):
        chosen[i] = CYCLE[place]
    return chosen


def curves_svg(found: Results, metric: str, unit: str, wide: bool = False) -> bytes:
    """A metric of all variants over the steps, as an SVG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.9) if wide else (4.7, 2.7), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    for variant, colour in reversed(list(zip(found.variants, colours(found), strict=True))):  # the base is on top
        if band := variant.curves.get(metric):
            draw_band(axes, band, colour, f"{variant.label}  {short(band.mean[-1])}")
    if wide and found.threshold is not None:
        axes.axhline(found.threshold, color=FAINT, linewidth=0.8, linestyle=":")
    plain(axes, unit)
    if wide:
        handles, labels = axes.get_legend_handles_labels()
        grey = [handle.get_color() == _GREY for handle in handles]
        kept = [i for i in reversed(range(len(handles))) if not grey[i]]
        figure.legend([handles[i] for i in kept], [labels[i] for i in kept], loc="outside right upper", **LEGEND)
    return svg_of(figure)


LEGEND: Mapping[str, Any] = {"frameon": False, "fontsize": 8.5, "handlelength": 1.2, "labelcolor": INK}


def draw_band(axes: Any, band: Band, colour: str, label: str) -> None:
    """The mean with its interval."""
    marker = "o" if len(band.steps) <= 40 else None
    axes.plot(band.steps, band.mean, color=colour, linewidth=1.6, marker=marker, markersize=3, label=label)
    if band.low:
        axes.fill_between(band.steps, band.low, band.high, color=colour, alpha=0.13, linewidth=0)


def label_ends(axes: Any, ends: Sequence[tuple[float, float, str, str]]) -> None:
    """Writes labels beside the ends of lines, given as x, y, text and colour; those that would overlap are moved apart.

    Call it last: it fixes the limits of the axes.
    """
    low, high = axes.get_ylim()
    apart, place = _LABEL * (high - low), -math.inf
    for x, y, text, colour in sorted(ends, key=lambda end: end[1]):
        place = max(y, place + apart)
        axes.annotate(
            text, (x, place), (4, 0), textcoords="offset points", va="center", fontsize=8.5, color=colour,
            annotation_clip=False,
        )  # fmt: skip
    axes.set_ylim(low, max(high, place))


def plain(axes: Any, unit: str) -> None:
    """The style of all axes."""
    axes.set_xlabel("step", fontsize=9, color=FAINT)
    axes.set_ylabel(unit, fontsize=9, color=FAINT)
    axes.grid(axis="y", color="#e6e8eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8.5, colors=FAINT, length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#c3c7ce")


def differences_svg(found: Results) -> bytes:
    """The paired differences from the base, at the end and over the run, with their intervals, as an SVG."""
    from matplotlib.figure import Figure

    compared = found.variants[1:]
    figure = Figure(figsize=(9.6, 0.9 + 0.34 * len(compared)), facecolor="white", layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, name, title in zip(panels, ("final", "area"), ("at the end", "over the run"), strict=True):
        axes.axvline(0, color=INK, linewidth=0.9)
        for place, (variant, colour) in enumerate(zip(compared, colours(found)[1:], strict=True)):
            x = getattr(variant, name)
            if x is None or not x.pairs:
                continue
            colour = FAINT if colour == _GREY else colour
            axes.plot([x.difference_low, x.difference_high], [place, place], color=colour, linewidth=2.2)
            filled = colour if x.verdict != "unclear" else "white"
            axes.plot([x.difference], [place], marker="o", markersize=6, color=colour, markerfacecolor=filled)
        axes.set_yticks(range(len(compared)), [variant.label for variant in compared])
        axes.set_ylim(len(compared) - 0.5, -0.5)
        plain(axes, "")
        axes.set_xlabel(f"difference from the base {title}", fontsize=9, color=FAINT)
        axes.grid(axis="x", color="#e6e8eb", linewidth=0.8)
        axes.grid(visible=False, axis="y")
        axes.tick_params(axis="y", colors=INK)
    return svg_of(figure)


def reproduction_png(compared: Sequence[Reproduction]) -> bytes:
    """New curves in the bands of the stored ones, as a PNG."""
    from matplotlib.figure import Figure

    columns = min(3, len(compared))
    lines = math.ceil(len(compared) / columns)
    figure = Figure(figsize=(max(5.2, 4.4 * columns), 3.2 * lines), facecolor="white", layout="constrained")
    for place, x in enumerate(compared):
        axes = figure.add_subplot(lines, columns, place + 1)
        axes.fill_between(x.steps, x.low, x.high, color="#0072B2", alpha=0.15, linewidth=0, label="stored band")
        axes.plot(x.steps, x.mean, color=INK, linewidth=1.6, marker="o", markersize=3, label="new curve")
        lost = [i for i, step in enumerate(x.steps) if step in x.outside]
        at = [x.steps[i] for i in lost], [x.mean[i] for i in lost]
        axes.plot(*at, linestyle="", marker="o", markersize=7, color="#c1121f", label="outside" if lost else "")
        axes.set_title(x.label, loc="left", fontsize=10, fontweight="bold", color=INK)
        plain(axes, x.metric)
        axes.legend(loc="best", **LEGEND)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
