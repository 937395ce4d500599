"""One self-contained HTML page about an evaluation."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlvr_jax.evaluation.calibration import Bin, confidence, length_by_difficulty
from rlvr_jax.evaluation.harness import Column
from rlvr_jax.reporting.pages import inline_svg, page, shown, svg_of
from rlvr_jax.reporting.panel import CYCLE

_INK, _FAINT = "#1f2328", "#6b7280"
_SHOWN = 12  # problems of each task
_AT_K = re.compile(r"(pass|maj|best)@(\d+)(.*)")


def page_of(
    title: str,
    policy: str,
    result: Mapping[str, Any],
    tasks: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    differences: Sequence[Mapping[str, Any]] = (),
    settings: Sequence[tuple[str, Sequence[Column]]] = (),
    notes: Sequence[str] = (),
) -> bytes:
    """The page.

    Args:
      title: of the page.
      policy: in words.
      result: the numbers of evaluation.json.
      tasks: their labels.
      rows: of evaluation.jsonl.
      differences: from another evaluation, by task and metric.
      settings: metrics of the same problems in several settings.
      notes: on what the numbers also depend on.
    """
    metrics = [name for name in result["values"] if f"eval/{name}" in result]
    sure, error = confidence(rows)
    lengths, told = length_by_difficulty(rows)
    svgs = [accuracy_svg(result, tasks)]
    if any(_AT_K.fullmatch(name) for name in metrics):
        svgs.append(scaling_svg(result, _mean_length(rows)))
    if sure:
        svgs.append(bins_svg(sure, "share of the most frequent answer", "it is right", identity=True))
    if lengths:
        svgs.append(bins_svg(lengths, "share of right samples of a problem", "tokens of a sample"))
    return page(
        Path(__file__).with_name("suite.html"),
        title=title,
        policy=policy,
        result=result,
        tasks=["all", *tasks],
        metrics=metrics,
        cell=lambda task, metric: _cell(result, task, metric),
        differences=differences,
        settings=settings,
        notes=notes,
        figures=[inline_svg(svg, i) for i, svg in enumerate(svgs)],
        calibration_error=error,
        told=told,
        shown_rows=_some(rows, tasks),
        shown=shown,
        environment={},
    )


def _cell(result: Mapping[str, Any], task: str, metric: str) -> str:
    name = f"eval/{metric}" if task == "all" else f"task/{task}/{metric}"
    if name not in result:
        return ""
    return f"{result[name]:.3f} ({result[f'{name}_low']:.3f} to {result[f'{name}_high']:.3f})"


def _mean_length(rows: Sequence[Mapping[str, Any]]) -> float:
    lengths = [x["length"] for row in rows for x in row["samples"]]
    return sum(lengths) / len(lengths) if lengths else math.nan


def _some(rows: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> list[Mapping[str, Any]]:
    """The first problems of each task, with text for all that is shown."""
    found = []
    for task in tasks:
        for row in [row for row in rows if row["task"] == task][:_SHOWN]:
            right = [x["score"] == 1 for x in row["samples"]]
            state = "error" if row["error"] else "right" if row["score"] == 1 else "partly" if row["score"] else "wrong"
            problem = row["problem"] if isinstance(row["problem"], str) else str(row["problem"])
            rate = f"{sum(right)} of {len(right)}" if right else ""
            found.append({**row, "state": state, "problem": problem, "rate": rate})
    return found


def accuracy_svg(result: Mapping[str, Any], tasks: Sequence[str]) -> bytes:
    """Greedy accuracy, or pass@1, of each task with its interval."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.7, 0.9 + 0.3 * len(tasks)), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    for place, task in enumerate(tasks):
        name = f"task/{task}/greedy_accuracy"
        if name in result:
            axes.plot([result[f"{name}_low"], result[f"{name}_high"]], [place, place], color=CYCLE[0], linewidth=2.2)
            axes.plot([result[name]], [place], marker="o", markersize=6, color=CYCLE[0])
    axes.set_yticks(range(len(tasks)), list(tasks))
    axes.set_ylim(len(tasks) - 0.5, -0.5)
    axes.set_xlim(-0.02, 1.02)
    _plain(axes, "accuracy, greedy", "", "x")
    return svg_of(figure)


def scaling_svg(result: Mapping[str, Any], length: float) -> bytes:
    """pass@k, maj@k and best@k over all problems, by the tokens that k samples cost."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.7, 2.9), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    curves: dict[tuple[str, str], list[int]] = {}
    for match in filter(None, map(_AT_K.fullmatch, result["values"])):
        if f"eval/{match[0]}" in result:
            curves.setdefault((match[1], match[3]), []).append(int(match[2]))
    for number, ((kind, of), ks) in enumerate(curves.items()):
        ks, colour = sorted(ks), CYCLE[number % len(CYCLE)]
        values = [[result[f"eval/{kind}@{k}{of}{end}"] for k in ks] for end in ("", "_low", "_high")]
        x = [k * length for k in ks]
        axes.plot(x, values[0], color=colour, marker="o", markersize=4, linewidth=1.6, label=f"{kind}@k{of}")
        axes.fill_between(x, values[1], values[2], color=colour, alpha=0.13, linewidth=0)
    axes.set_xscale("log")
    axes.set_ylim(-0.02, 1.02)
    axes.legend(frameon=False, fontsize=8.5, labelcolor=_INK)
    _plain(axes, "tokens for each problem: k samples of the mean length", "share of problems", "y")
    return svg_of(figure)


def bins_svg(bins: Sequence[Bin], x: str, y: str, identity: bool = False) -> bytes:
    """Bins with intervals and their numbers of problems."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.7, 2.9), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    if identity:
        axes.plot([0, 1], [0, 1], color=_FAINT, linewidth=0.9, linestyle="--")
        axes.set_ylim(-0.02, 1.02)
    values = [one.value for one in bins]
    spans = [[max(0.0, x - low) for x, low, _ in values], [max(0.0, high - x) for x, _, high in values]]
    at = [one.at for one in bins]
    axes.errorbar(
        at, [mean for mean, _, _ in values], yerr=spans, color=CYCLE[0], marker="o", markersize=5, linewidth=1.4
    )
    for one in bins:
        place = {"xytext": (4, -10), "textcoords": "offset points", "fontsize": 7.5, "color": _FAINT}
        axes.annotate(f"{one.count}", (one.at, one.value[0]), **place)
    axes.set_xlim(-0.02, 1.06)
    _plain(axes, x, y, "y")
    return svg_of(figure)


def _plain(axes: Any, x: str, y: str, grid: str) -> None:
    axes.set_xlabel(x, fontsize=9, color=_FAINT)
    axes.set_ylabel(y, fontsize=9, color=_FAINT)
    axes.grid(axis=grid, color="#e6e8eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8.5, colors=_FAINT, length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color("#c3c7ce")
