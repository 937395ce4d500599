"""Pictures of runs for notebooks: curves with bands over seeds."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr_jax.reporting import files
from rlvr_jax.reporting.panels import CYCLE
from rlvr_jax.runs import Run
from rlvr_jax.sweeps import plan
from rlvr_jax.sweeps.pictures import INK, draw_band, plain
from rlvr_jax.sweeps.results import Band, Results, band

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
) -> Picture:
    """Metrics over the steps, a panel each: for every label the mean over its runs, with the 95 % interval as a band.

    Args:
      runs: a run, the runs of several seeds, those of several labels, or what `rlvr_jax.sweep` returns.
      metrics: one or several, by their names in docs/metrics.md; a dictionary gives each a title.
      columns: panels in a row.
      labels: others than those of `runs`, in their order.

    Raises:
      KeyError: none of the runs has a metric.
      ValueError: there are no runs.
    """
    from matplotlib.figure import Figure

    titles = {metrics: metrics} if isinstance(metrics, str) else metrics
    titles = dict(titles) if isinstance(titles, Mapping) else {name: name for name in titles}
    groups = runs_of(runs)
    if labels is not None:
        groups = dict(zip(labels, groups.values(), strict=True))
    bands = {name: _bands(groups, name) for name in titles}
    columns = min(columns, len(titles))
    lines = -(-len(titles) // columns)
    figure = Figure(figsize=(1.2 + 4.0 * columns, 0.4 + 2.8 * lines), facecolor="white", layout="constrained")
    for place, (name, title) in enumerate(titles.items()):
        axes = figure.add_subplot(lines, columns, place + 1)
        for i, (label, curve) in enumerate(bands[name].items()):
            draw_band(axes, curve, CYCLE[i % len(CYCLE)], label)
        plain(axes, "")
        axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=INK)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if any(labels) and len(labels) > 1:
        figure.legend(handles, labels, loc="outside right upper", frameon=False, fontsize=9, labelcolor=INK)
    return Picture(figure)


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
