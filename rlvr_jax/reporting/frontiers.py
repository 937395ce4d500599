"""The picture of routers: accuracy over cost."""

import io
from collections.abc import Mapping, Sequence

from rlvr_jax.evaluation.routing import Frontier
from rlvr_jax.reporting.panel import CYCLE

_INK, _FAINT = "#1f2328", "#6b7280"


def frontiers_png(found: Sequence[Frontier], singles: Mapping[str, tuple[float, float]]) -> bytes:
    """The frontiers of routers, and the (cost, accuracy) of single policies."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.2), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    for frontier, colour in zip(found, CYCLE, strict=False):
        x, y = [point.cost for point in frontier.points], [point.accuracy for point in frontier.points]
        axes.plot(x, y, color=colour, marker="o", markersize=3, linewidth=1.6, label=frontier.name)
    for name, (cost, accuracy) in singles.items():
        axes.plot([cost], [accuracy], marker="D", markersize=6, color=_INK, linestyle="")
        axes.annotate(name, (cost, accuracy), (5, -11), textcoords="offset points", fontsize=8.5, color=_INK)
    axes.set_xlabel("mean cost of an answer, tokens times price", fontsize=9, color=_FAINT)
    axes.set_ylabel("accuracy on held-out problems", fontsize=9, color=_FAINT)
    axes.grid(color="#e6e8eb", linewidth=0.8)
    axes.tick_params(labelsize=8.5, colors=_FAINT, length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8.5, labelcolor=_INK)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
