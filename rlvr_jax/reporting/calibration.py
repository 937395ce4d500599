"""The picture of a model's calibration on preferences."""

import io
from collections.abc import Sequence

from rlvr_jax.evaluation.preferences import Bin

_INK, _FAINT = "#24292f", "#57606a"


def calibration_png(bins: Sequence[Bin], title: str) -> bytes:
    """The share of right preferences over the probability that the model gives them, with intervals and counts."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 4.4), facecolor="white", layout="constrained")
    axes = figure.subplots()
    axes.plot([0.5, 1], [0.5, 1], color=_FAINT, linewidth=0.9, linestyle="--", label="calibrated")
    x, y = [one.predicted for one in bins], [one.right[0] for one in bins]
    spans = [[one.right[0] - one.right[1] for one in bins], [one.right[2] - one.right[0] for one in bins]]
    axes.errorbar(x, y, yerr=spans, color="#0072B2", marker="o", markersize=5, linewidth=1.4, label="held-out pairs")
    for one in bins:
        axes.annotate(
            f"{one.count}",
            (one.predicted, one.right[0]),
            (4, -10),
            textcoords="offset points",
            fontsize=7.5,
            color=_FAINT,
        )
    axes.set_xlabel("probability of the preferred completion", fontsize=9, color=_FAINT)
    axes.set_ylabel("share in which it is the chosen one", fontsize=9, color=_FAINT)
    axes.set_title(title, loc="left", fontsize=10, fontweight="bold", color=_INK)
    axes.set_xlim(0.48, 1.02)
    axes.set_ylim(-0.03, 1.04)
    axes.grid(axis="y", color="#e6e8eb", linewidth=0.8)
    axes.tick_params(labelsize=8.5, colors=_FAINT, length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8.5, loc="lower right")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
