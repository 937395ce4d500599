"""Pictures of runs for notebooks: curves with bands over seeds."""

import io
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr_jax.evaluation.calibration import confidence
from rlvr_jax.reporting import files
from rlvr_jax.reporting.panel import CYCLE
from rlvr_jax.runs import Run
from rlvr_jax.sweeps import plan
from rlvr_jax.sweeps.pictures import FAINT, INK, draw_band, label_ends, plain
from rlvr_jax.sweeps.results import Band, Results, band
from rlvr_jax.sweeps.stored import Experiment, band_of

Runs = Results | Run | Sequence[Run] | Mapping[str, Run | Sequence[Run]]


@dataclass(frozen=True)
class Picture:
    """A picture, which a notebook shows as the result of a cell.

    Attributes:
      figure: of matplotlib, for changes.
    """

    figure: Any

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", dpi=100)
        return buffer.getvalue()

    def save(self, path: str | Path) -> None:
        """Writes it as a PNG."""
        files.replace(Path(path).expanduser(), self._repr_png_())


def curves(
    runs: Runs,
    metrics: str | Sequence[str] | Mapping[str, str] = "eval/greedy_accuracy",
    columns: int = 3,
    labels: Sequence[str] | None = None,
    stored: Experiment | None = None,
) -> Picture:
    """Metrics over the steps, a panel each: for every label the mean over its runs, with the 95 % interval as a band.

    Args:
      runs: a run, the runs of several seeds, those of several labels, or what `rlvr_jax.sweep` returns.
      metrics: one or several, by their names in docs/metrics.md; a dictionary gives each a title.
      columns: panels in a row.
      labels: others than those of `runs`, in their order.
      stored: of `rlvr_jax.stored`: the mean curves of those of its variants that the sweep `runs` has, too, are drawn
        dashed in the panels of its metrics.

    Raises:
      KeyError: none of the runs has a metric.
      ValueError: there are no runs, or none that the stored experiment has; or none of its metrics has a panel.
    """
    from matplotlib.figure import Figure

    titles = {metrics: metrics} if isinstance(metrics, str) else metrics
    titles = dict(titles) if isinstance(titles, Mapping) else {name: name for name in titles}
    groups = runs_of(runs)
    if labels is not None:
        groups = dict(zip(labels, groups.values(), strict=True))
    bands = {name: _bands(groups, name) for name in titles}
    colours = dict(zip(groups, itertools.cycle(CYCLE)))  # a panel may lack labels whose runs don't measure its metric
    before = _stored(stored, runs, titles) if stored else {}
    columns = min(columns, len(titles))
    lines = -(-len(titles) // columns)
    figure = Figure(figsize=(1.2 + 4.0 * columns, 0.4 + 2.8 * lines), facecolor="white", layout="constrained")
    for place, (name, title) in enumerate(titles.items()):
        axes = figure.add_subplot(lines, columns, place + 1)
        for label, curve in bands[name].items():
            draw_band(axes, curve, colours[label], label)
        for i, curve in before.get(name, {}).items():
            axes.plot(curve.steps, curve.mean, color=CYCLE[i % len(CYCLE)], linewidth=1.2, linestyle="--")
        plain(axes, "")
        axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK)
    drawn = [pair for axes in figure.axes for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
    first = {label: handle for handle, label in reversed(drawn)}
    handles = {label: first[label] for label in groups if label in first}
    if any(handles) and len(handles) > 1:
        figure.legend(handles.values(), handles, loc="outside right upper", frameon=False, fontsize=9, labelcolor=INK)
    return Picture(figure)


def side_by_side(columns: Mapping[str, tuple[Runs, Mapping[str, str]]]) -> Picture:
    """Runs of several tasks next to each other: a column for each, a row for each metric, lines labelled at their ends.

    Args:
      columns: title -> the runs, as those of `curves`, and their metrics with a title each; as many everywhere.

    Raises:
      KeyError: none of the runs has a metric.
      ValueError: there are no runs, or columns differ in their number of metrics.
    """
    from matplotlib.figure import Figure

    if len(sizes := {len(metrics) for _, metrics in columns.values()}) != 1:
        raise ValueError(f"every column needs the same number of metrics, not {sorted(sizes)}")
    (rows,) = sizes
    figure = Figure(figsize=(4.4 * len(columns), 0.3 + 2.5 * rows), facecolor="white", layout="constrained")
    panels = figure.subplots(rows, len(columns), squeeze=False)
    for column, (title, (runs, metrics)) in enumerate(columns.items()):
        groups = runs_of(runs)
        for row, (metric, name) in enumerate(metrics.items()):
            axes, ends = panels[row, column], []
            for i, (label, curve) in enumerate(_bands(groups, metric).items()):
                draw_band(axes, curve, CYCLE[i % len(CYCLE)], label)
                ends.append((curve.steps[-1], curve.mean[-1], label, CYCLE[i % len(CYCLE)]))
            plain(axes, "")
            label_ends(axes, ends)
            above = f"{title}\n" if row == 0 else ""
            axes.set_title(f"{above}{name}", loc="left", fontsize=10, fontweight="bold", color=INK)
    return Picture(figure)


def points(groups: Mapping[str, Mapping[Any, Sequence[float]]], x: str, y: str = "") -> Picture:
    """Numbers over another axis than the steps: for every label the mean over its seeds, with the 95 % interval.

    Args:
      groups: label -> place on the axis, a number or a name -> the numbers of the seeds, as many everywhere.
      x, y: names of the axes.

    Raises:
      ValueError: there are no numbers, or labels have other places or numbers of seeds.
    """
    from matplotlib.figure import Figure

    shapes = {tuple((place, len(numbers)) for place, numbers in of.items()) for of in groups.values()}
    if len(shapes) != 1 or len({count for _, count in next(iter(shapes))}) != 1:
        raise ValueError("every label needs the same places on the axis, with as many numbers each")
    places = list(next(iter(groups.values())))
    named = [isinstance(place, str) for place in places]
    at = range(len(places)) if any(named) else places
    figure = Figure(figsize=(6.4, 3.4), facecolor="white", layout="constrained")
    axes, ends = figure.add_subplot(), []
    for (label, numbers), colour in zip(groups.items(), itertools.cycle(CYCLE)):
        rows = {
            seed: [{"step": place, "y": value} for place, value in zip(at, values, strict=True)]
            for seed, values in enumerate(zip(*numbers.values(), strict=True))
        }
        curve = band(rows, "y")
        if curve is None:
            raise ValueError("numbers are finite")
        draw_band(axes, curve, colour, label)
        ends.append((curve.steps[-1], curve.mean[-1], label, colour))
    plain(axes, y)
    if any(named):
        axes.set_xticks(at, places)
    axes.set_xlabel(x, fontsize=9, color=FAINT)
    label_ends(axes, ends)
    return Picture(figure)


def calibration(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> Picture:
    """Calibration: the share of majorities that are right, over their share of the samples, a line for each label.

    The expected calibration error is in the label; a calibrated policy is on the diagonal
    (`rlvr_jax.evaluation.calibration.confidence`).

    Args:
      rows: label -> those of an evaluation with several samples, `rlvr_jax.evaluate(...)["rows"]`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 3.8), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=0.9, linestyle="--")
    for (label, of_label), colour in zip(rows.items(), itertools.cycle(CYCLE)):
        bins, error = confidence(of_label)
        at, value = [x.at for x in bins], [x.value[0] for x in bins]
        spans = [[abs(x.value[i] - x.value[0]) for x in bins] for i in (1, 2)]
        named = f"{label}: error {error:.2f}"
        axes.errorbar(at, value, yerr=spans, color=colour, marker="o", markersize=5, linewidth=1.4, label=named)
    plain(axes, "share of majorities that are right")
    axes.set_xlabel("the majority's share of the samples", fontsize=9, color=FAINT)
    axes.legend(loc="lower right", frameon=False, fontsize=8.5, labelcolor=INK)
    return Picture(figure)


def _stored(found: Experiment, runs: Runs, metrics: Mapping[str, str]) -> dict[str, dict[int, Band]]:
    """The panel's metric -> the place of a variant of the sweep -> its stored curve."""
    drawn = [metric for metric in found.metrics if metric in metrics]
    if not drawn:
        raise ValueError(f"the stored curves are of {', '.join(found.metrics)}, which has no panel")
    names = [x.name for x in plan.read(Path(runs.folder)).variants] if isinstance(runs, Results) else []
    alike = {i: found.curves[name] for i, name in enumerate(names) if name in found.curves}
    if not alike:
        raise ValueError(f"the stored curves are of {', '.join(found.curves)}, none of which is in this sweep")
    return {metric: {i: band_of(curves[metric]) for i, curves in alike.items()} for metric in drawn}


def _bands(groups: Mapping[str, Sequence[Run]], metric: str) -> dict[str, Band]:
    if not any(groups.values()):
        raise ValueError("there are no runs to draw")
    found = {x: band({i: run.metrics for i, run in enumerate(group)}, metric) for x, group in groups.items() if group}
    if not any(found.values()):
        next(filter(None, groups.values()))[0].curve(metric)  # raises KeyError, with the metrics that there are
        raise ValueError(f"the runs have no step in common with {metric!r}")
    return {label: curve for label, curve in found.items() if curve}


def runs_of(runs: Runs) -> dict[str, list[Run]]:
    """The runs by label; those of a sweep that are finished, by variant."""
    if isinstance(runs, Results):
        groups: dict[str, list[Run]] = {variant.label: [] for variant in runs.variants}
        for run in plan.runs(plan.read(Path(runs.folder))):
            variant = runs.variants[run.variant]
            ended = plan.outcome(run) if run.kind == "rl" and run.config.seed not in variant.failed else None
            if ended and ended["status"] == "finished":
                groups[variant.label].append(Run(run.folder))
        return groups
    labelled = runs if isinstance(runs, Mapping) else {"": runs}
    groups = {label: [group] if isinstance(group, Run) else group for label, group in labelled.items()}
    if not all(isinstance(x, Sequence) and all(isinstance(run, Run) for run in x) for x in groups.values()):
        raise ValueError(f"runs are what rlvr_jax.train returns, lists or dictionaries of them, not {runs!r:.50}")
    return {label: list(group) for label, group in groups.items()}
