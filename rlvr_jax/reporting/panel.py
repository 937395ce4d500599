"""Groups of metrics that are drawn together: a `Panel` is one plot with its caption."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Row = Mapping[str, Any]

# Colours of Okabe and Ito (2008), distinguishable for colour-blind readers. A metric has the same colour in every
# panel.
TRAIN, HELD_OUT, ACCURACY, NEUTRAL = "#0072B2", "#D55E00", "#56B4E9", "#8a8f98"
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8a8f98", "#7a5195")
PASS = ("#f0a878", "#e07f45", "#b85a1e", "#8a3f10", "#5e2a0a", "#3b1a05")


@dataclass(frozen=True)
class Series:
    """One line of a panel; `metric` with the suffixes `_low` and `_high`, where they exist, is drawn as a band.

    A line that never leaves the value `dull` is not drawn.
    """

    metric: str
    label: str
    colour: str
    width: float = 1.6
    reduce: Literal["mean", "max"] = "mean"
    dull: float | None = None


@dataclass(frozen=True)
class Panel:
    """One plot: its lines, the unit of its vertical axis, and an explaining caption."""

    title: str
    unit: str
    series: tuple[Series, ...]
    caption: str
    kind: Literal["lines", "stack"] = "lines"
    scale: Literal["linear", "log", "share"] = "linear"
    wide: bool = False

    @property
    def metrics(self) -> frozenset[str]:
        """Names of all metrics that the panel shows."""
        return frozenset(name + end for name in (line.metric for line in self.series) for end in ("", "_low", "_high"))
