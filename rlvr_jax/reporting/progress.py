"""The progress of a run on stderr: a bar on a terminal, occasional plain lines elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TextIO

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 10.0
# (metric, its format); a row has one of the speeds.
_SHOWN = {
    "sft/loss": lambda value: f"loss {value:.3f}",
    "train/reward": lambda value: f"reward {value:.2f}",
    "train/accuracy": lambda value: f"accuracy {value:.2f}",
    "eval/greedy_accuracy": lambda value: f"held-out {value:.2f}",
    "time/sft_tokens_per_second": lambda value: f"{_short(value)} tok/s",
    "time/rollout_tokens_per_second": lambda value: f"{_short(value)} tok/s",
}
_NOT_IN_BAR = ("train/accuracy",)  # which must fit into 100 columns

Show = Callable[[Mapping[str, Any]], None]


@contextlib.contextmanager
def progress(total: int, initial: int, description: str, file: TextIO | None = None) -> Iterator[Show]:
    """A function that shows a row of metrics as the progress to its step.

    Args:
      total: steps of the run, of which `initial` are done.
      description: a short prefix.
      file: stderr by default.
    """
    file = file or sys.stderr
    shown: dict[str, Any] = {}  # last known value of each shown metric: evaluation does not run at every step

    def values(row: Mapping[str, Any], left_out: tuple[str, ...] = ()) -> list[str]:
        idle = [name for name in row if name.endswith("_per_second") and not row[name]]  # at the end, with a lag
        shown.update({name: row[name] for name in _SHOWN if name in row and name not in (*left_out, *idle)})
        return [form(shown[name]) for name, form in _SHOWN.items() if name in shown]

    if not _redraws(file):
        yield _lines(total, initial, description, file, values)
        return
    with bar(total, initial, description, file=file) as opened:

        def show(row: Mapping[str, Any]) -> None:
            opened.set_postfix_str(", ".join(values(row, _NOT_IN_BAR)), refresh=False)
            if row["step"] > opened.n:
                opened.update(row["step"] - opened.n)
            else:
                opened.refresh()

        yield show


def bar(total: int | None, initial: int, description: str, unit: str = "step", file: TextIO | None = None) -> tqdm:
    """A progress bar over `total` steps of which `initial` are done; silent if stderr (or `file`) can't redraw a line.

    Use it as a context manager, or close it.
    """
    return tqdm(
        total=total,
        initial=initial,
        desc=description,
        unit=f" {unit}",
        disable=not _redraws(file or sys.stderr),
        file=file,
        dynamic_ncols=True,
        bar_format="{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}{postfix}]",
    )


def _redraws(file: TextIO) -> bool:
    """True for a terminal, and for the output of a notebook's cell."""
    return file.isatty() or type(file).__module__.startswith("ipykernel.")


def _lines(total: int, initial: int, description: str, file: TextIO, values: Callable[..., list[str]]) -> Show:
    """Prints the first row, the last one, and others at most every `SECONDS_BETWEEN_LINES`."""
    begins = f"{description} {initial}/{total}: compiling, the first step is slow"
    print(f"resumed from the checkpoint of step {initial}; {begins}" if initial else begins, file=file, flush=True)
    start, printed = time.monotonic(), -SECONDS_BETWEEN_LINES
    first: tuple[int, float] | None = None  # the first step, which includes compilation

    def show(row: Mapping[str, Any]) -> None:
        nonlocal printed, first
        step, elapsed, known = row["step"], time.monotonic() - start, values(row)
        if first is None and step > initial:
            first = step, elapsed
        if elapsed - printed < SECONDS_BETWEEN_LINES and step < total:
            return
        printed = elapsed
        times = [f"{tqdm.format_interval(elapsed)} elapsed"]
        if first and first[0] < step < total:
            left = (elapsed - first[1]) / (step - first[0]) * (total - step)
            times.append(f"{tqdm.format_interval(left)} left")
        print(", ".join([f"{description} {step}/{total}", *known, *times]), file=file, flush=True)

    return show


def _short(value: float) -> str:
    for size, suffix in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{suffix}" if value < 999.5 * size else f"{value / size:.0f}{suffix}"
    return f"{value:.0f}"
