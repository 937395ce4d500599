"""The progress bar of a run: reward, held-out accuracy, tokens per second and time left, in 100 columns."""

from collections.abc import Mapping
from io import TextIOBase
from typing import Any

from tqdm import tqdm

# (metric, how to show it); of several speeds, a row has one that matters.
_SHOWN = {
    "sft/loss": lambda value: f"loss {value:.3f}",
    "train/reward": lambda value: f"reward {value:.2f}",
    "eval/greedy_accuracy": lambda value: f"held-out {value:.2f}",
    "sft/tokens_per_second": lambda value: f"{_short(value)} tok/s",
    "rollout/tokens_per_second": lambda value: f"{_short(value)} tok/s",
}


def bar(total: int, initial: int, description: str, unit: str = "step", file: TextIOBase | None = None) -> tqdm:
    """A progress bar over `total` steps of which `initial` are done; silent where stderr (or `file`) is no terminal.

    Use it as a context manager, or close it.
    """
    opened = tqdm(
        total=total,
        initial=initial,
        desc=description,
        unit=f" {unit}",
        disable=None,  # tqdm's word for: unless it is a terminal
        file=file,
        dynamic_ncols=True,
        bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]",
    )
    opened.shown = {}  # last known value of each shown metric: evaluation does not run at every step
    return opened


def show(bar: tqdm, row: Mapping[str, Any]) -> None:
    """Advances the bar to step `row["step"]` and shows the metrics of that row."""
    bar.shown.update({name: row[name] for name in _SHOWN if name in row})
    text = ", ".join(form(bar.shown[name]) for name, form in _SHOWN.items() if name in bar.shown)
    bar.set_postfix_str(text, refresh=False)
    if row["step"] > bar.n:
        bar.update(row["step"] - bar.n)
    else:
        bar.refresh()


def _short(value: float) -> str:
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{suffix}" if value < 999.5 * size else f"{value / size:.0f}{suffix}"
    return f"{value:.0f}"
