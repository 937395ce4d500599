"""Learning curves: `curves_png` draws all panels of a run on one page; `points` and `stacked` are what is drawn.

Figures are matplotlib objects of their own, so nothing global changes; matplotlib is
imported late because it takes half a second.
"""

import io
import itertools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlvr_jax.reporting import files
from rlvr_jax.reporting.panel import Panel, Row
from rlvr_jax.reporting.panels import panels

_INK, _FAINT = "#1f2328", "#6b7280"
_LEGEND_COLUMNS = 5
# Widths in a legend, in the size of its font: of a letter, and of what is drawn beside a label.
_LETTER, _HANDLE = 0.56, 2.3
_OF_STEPS = "train/response_length"  # which every training step has
_MAX_POINTS = 600  # longer runs are drawn as means over equal intervals of steps


def curves_png(rows: Sequence[Row], path: Path | str, title: str, changed: Sequence[int] = ()) -> None:
    """Draws all panels on one page and writes it atomically as a PNG, 1540 pixels wide.

    Args:
      rows: of `metrics.jsonl`; may be empty.
      path: of the file.
      title: of the page.
      changed: steps after which the run went on with changes, which are marked.

    Raises:
      OSError: the file cannot be written; the message names it.
    """
    from matplotlib.figure import Figure

    shown = panels(rows)
    first_row = 1 if not shown else 3 if not shown[0].wide else 2 if len(shown) > 1 else 1
    lines = 1 + math.ceil(max(0, len(shown) - first_row) / 3)
    heights = [3.7 if shown and shown[0].wide else 2.3, *[2.3] * (lines - 1)]
    height = sum(heights) + 0.95 * (lines - 1) + 1.55
    figure = Figure(figsize=(14, height), facecolor="white")
    figure.text(0.045, 1 - 0.32 / height, title, fontsize=15, fontweight="bold", color=_INK, va="center")
    if not shown:
        figure.text(0.5, 0.4, "No metrics yet", fontsize=13, color=_FAINT, ha="center")
    grid = figure.add_gridspec(
        lines,
        3,
        height_ratios=heights,
        left=0.055,
        right=0.985,
        top=1 - 1.0 / height,
        bottom=0.55 / height,
        wspace=0.22,
        hspace=1.02 * lines / sum(heights),
    )
    wide = 0 if not shown or not shown[0].wide else 2 if len(shown) > 1 else 3
    for index, panel in enumerate(shown):
        if wide:
            place = (
                grid[0, :wide]
                if index == 0
                else grid[0, 2]
                if index == 1
                else grid[1 + (index - 2) // 3, (index - 2) % 3]
            )
        else:
            place = grid[index // 3, index % 3]
        _draw(figure.add_subplot(place), rows, panel, changed)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    files.replace(Path(path), buffer.getvalue())


def values(rows: Sequence[Row], metric: str) -> list[tuple[int, float]]:
    """(step, value) of every row that has a number for the metric, finite or not."""
    return [(row["step"], float(row[metric])) for row in rows if isinstance(row.get(metric), int | float)]


def points(rows: Sequence[Row], metric: str, reduce: str = "mean") -> tuple[list[float | int], list[float], list[int]]:
    """Steps and values to draw (NaN if not finite or a gap), and the steps of non-finite values.

    Training steps without a metric of training, such as the length of right samples where there are none, are gaps.
    Long metrics are reduced to the mean, or the largest value, of equal numbers of values.
    """
    pairs = values(rows, metric)
    lost = [step for step, value in pairs if not math.isfinite(value)]
    if pairs and metric.startswith("train/"):
        known = {step for step, _ in pairs}
        gaps = [(row["step"], math.nan) for row in rows if _OF_STEPS in row and row["step"] not in known]
        pairs = sorted(pairs + gaps, key=lambda pair: pair[0])
    span = math.ceil(len(pairs) / _MAX_POINTS)
    if span <= 1:
        return [step for step, _ in pairs], [value if math.isfinite(value) else math.nan for _, value in pairs], lost
    steps, reduced = [], []
    for start in range(0, len(pairs), span):
        chunk = pairs[start : start + span]
        finite = [value for _, value in chunk if math.isfinite(value)]
        steps.append(sum(step for step, _ in chunk) / len(chunk))
        reduced.append(math.nan if not finite else max(finite) if reduce == "max" else sum(finite) / len(finite))
    return steps, reduced, lost


def _draw(axes: Any, rows: Sequence[Row], panel: Panel, changed: Sequence[int]) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    steps = [row["step"] for row in rows]
    low, high = min(steps, default=0), max(steps, default=1)
    margin = max(0.5, 0.015 * (high - low))
    axes.set_xlim(low - margin, high + margin)
    note = ""
    if panel.kind == "stack":
        note = _stack(axes, rows, panel)
    else:
        _set_limits(axes, panel, _lines(axes, rows, panel))
    for step in changed:
        axes.axvline(step + 0.5, color=_FAINT, linewidth=0.9, linestyle=(0, (2, 3)))
    span = max((math.ceil(len(values(rows, line.metric)) / _MAX_POINTS) for line in panel.series), default=1)
    axes.set_xlabel("step" if span <= 1 else f"step (each point: {span} steps)", fontsize=9, color=_FAINT)
    axes.set_ylabel(panel.unit, fontsize=9, color=_FAINT)
    size = 12 if panel.wide else 11
    # With a place of its own it need not look for one, which would take a third of the time of drawing.
    labels = axes.get_legend_handles_labels()[1]
    crowded = len(labels) > 4 and not panel.wide
    columns = legend_columns(labels, 8 if crowded else 9, axes.get_position().width * 72 * axes.figure.get_figwidth())
    below = 22 + 11 * ((len(labels) - 1) // columns)  # points for the rows of the legend
    axes.set_title(panel.title, loc="left", y=1.0, fontsize=size, fontweight="bold", color=_INK, pad=below)
    axes.set_title(note, loc="right", y=1.0, fontsize=8.5, color=_FAINT, pad=below)
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(-0.008, 0.985),
        ncols=columns,
        frameon=False,
        fontsize=8 if crowded else 9,
        handlelength=0.8 if crowded else 1.0,
        handletextpad=0.3 if crowded else 0.4,
        columnspacing=0.7 if crowded else 1.1,
        borderaxespad=0.1,
        labelcolor=_INK,
    )
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True, min_n_ticks=1, steps=[1, 2, 5, 10]))
    axes.grid(axis="y", color="#e6e8eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8.5, colors=_FAINT, length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#c3c7ce")
    if axes.get_yscale() == "linear" and 0 < axes.get_ylim()[1] < 1e-3:  # else the common factor covers the legend
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    if axes.get_yscale() == "linear" and axes.get_ylim()[1] >= 1000:
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value / 1000:,g}k" if value else "0"))


def legend_columns(labels: Sequence[str], size: float, width: float) -> int:
    """The most columns, one at least, of a legend that is not cut off, by the usual width of a letter: to measure the
    drawn text takes longer than to draw it.

    Args:
      labels: of the lines, which fill one column after the other.
      size: of the font, in points.
      width: of the panel, in points.
    """
    for columns in range(min(_LEGEND_COLUMNS, len(labels)), 1, -1):
        rows, longer = divmod(len(labels), columns)
        ends = [i * rows + min(i, longer) for i in range(columns + 1)]
        longest = [max(map(len, labels[begin:end])) for begin, end in itertools.pairwise(ends)]
        if size * sum(_LETTER * count + _HANDLE for count in longest) <= width:
            return columns
    return 1


def _lines(axes: Any, rows: Sequence[Row], panel: Panel) -> list[float]:
    """Draws the lines, their bands and marks of non-finite values; returns all finite values."""
    finite, lost_steps = [], set()
    for line in panel.series:
        steps, heights, lost = points(rows, line.metric, line.reduce)
        drawn = [value for value in heights if math.isfinite(value)]
        lost_steps.update(lost)
        label = f"{line.label}: {short(drawn[-1])}" if drawn else f"{line.label} (no finite value)"
        evaluated = line.metric.startswith(("eval/", "task/"))
        marker = "o" if len(heights) <= (60 if evaluated else 1) else None
        axes.plot(
            steps, heights, color=line.colour, linewidth=line.width, marker=marker, markersize=3.5, label=label,
            solid_joinstyle="round", zorder=3 if evaluated else 2.5,
        )  # fmt: skip
        alone = _alone(heights) if marker is None else []
        if alone:  # a line of one point would not show
            where, there = [steps[i] for i in alone], [heights[i] for i in alone]
            axes.plot(where, there, color=line.colour, linestyle="", marker="o", markersize=line.width)
        finite += drawn
        bounds = [points(rows, line.metric + end)[:2] for end in ("_low", "_high")]
        if bounds[0][0] and bounds[0][0] == bounds[1][0]:
            (where, floor), (_, ceiling) = bounds
            if len(where) == 1:  # an area without width would not show
                axes.vlines(where, floor, ceiling, color=line.colour, linewidth=5, alpha=0.25)
            else:
                axes.fill_between(where, floor, ceiling, color=line.colour, alpha=0.13, linewidth=0)
            finite += [value for value in floor + ceiling if math.isfinite(value)]
    if lost_steps:
        axes.plot(
            sorted(lost_steps), [0.02] * len(lost_steps), transform=axes.get_xaxis_transform(), linestyle="",
            marker="|", markersize=9, markeredgewidth=1.6, color="#c1121f", label=f"not finite ({len(lost_steps)})",
        )  # fmt: skip
    return finite


def _alone(heights: Sequence[float]) -> list[int]:
    """Indices of finite values between gaps."""
    there = [False, *map(math.isfinite, heights), False]
    return [i for i in range(len(heights)) if there[i + 1] and not there[i] and not there[i + 2]]


def _set_limits(axes: Any, panel: Panel, drawn: list[float]) -> None:
    if not drawn:
        axes.set_ylim(0, 1)
        axes.set_yticks([])
        return
    low, high = min(drawn), max(drawn)
    if panel.scale == "log" and high > 0 and low >= 0:
        if low == 0:  # exactly equal values are a result and must show on the axis
            axes.set_yscale("symlog", linthresh=min(value for value in drawn if value > 0))
            axes.set_ylim(0, high * 3)
        else:
            axes.set_yscale("log")
            axes.set_ylim(
                min(low / 2, 10 ** math.floor(math.log10(low))), max(high * 2, 10 ** math.ceil(math.log10(high)))
            )
        axes.yaxis.set_minor_formatter("")  # labels at powers of ten only, at least two of them visible
    elif low >= 0 and high <= 1 and (panel.scale == "share" or panel.wide):
        axes.set_ylim(-0.03, 1.04)
    elif low >= 0:
        axes.set_ylim(0, high * 1.12 or 1)
    else:
        room = 0.08 * (high - low) or abs(high)
        axes.set_ylim(low - room, high + room)


def stacked(rows: Sequence[Row], panel: Panel) -> tuple[list[float], list[list[float]]]:
    """Edges of the bars of a stack, two for each, and the height of each line's part in each bar."""
    timed = [row for row in rows if any(isinstance(row.get(line.metric), int | float) for line in panel.series)]
    span = math.ceil(len(timed) / _MAX_POINTS)
    groups = [timed[start : start + span] for start in range(0, len(timed), span)]
    edges = [
        edge for group in groups for edge in (group[0]["step"] - 0.5, max(group[-1]["step"], group[0]["step"]) + 0.5)
    ]
    heights = [
        [sum(x for _, x in values(group, line.metric) if math.isfinite(x)) / len(group) for group in groups]
        for line in panel.series
    ]
    return edges, heights


def _stack(axes: Any, rows: Sequence[Row], panel: Panel) -> str:
    """Stacked bars without gaps, one per step; a few outliers (compilation) are clipped, as the returned note says."""
    edges, heights = stacked(rows, panel)
    floor = [0.0] * (len(edges) // 2)
    for line, parts in zip(panel.series, heights, strict=True):
        ceiling = [base + part for base, part in zip(floor, parts, strict=True)]
        bottom, top = ([value for value in side for _ in range(2)] for side in (floor, ceiling))
        axes.fill_between(edges, bottom, top, color=line.colour, linewidth=0, label=line.label)
        floor = ceiling
    highest = max(floor, default=0.0)
    usual = sorted(floor)[int(0.9 * (len(floor) - 1))] if floor else 0.0
    if highest > 4 * usual > 0:
        axes.set_ylim(0, 2 * usual)
        step = round(edges[2 * floor.index(highest)] + 0.5)
        return f"off the axis: up to {short(highest)} s (step {step})"
    axes.set_ylim(0, highest * 1.12 or 1)
    return ""


def short(value: float | int) -> str:
    """A number in about three significant digits: 0.0312, 12.5, 12,345, 1.2e-06."""
    if not math.isfinite(value):
        return {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) < 1e-3:
        return f"{value:.1e}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.4g}"
