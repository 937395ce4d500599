"""One self-contained HTML page about a sweep, and the same as data beside it."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rlvr_jax.config import flatten
from rlvr_jax.reporting import files
from rlvr_jax.reporting.curves import short
from rlvr_jax.reporting.pages import inline_svg, page, shown
from rlvr_jax.sweeps import pictures
from rlvr_jax.sweeps.comparisons import Comparison, interval
from rlvr_jax.sweeps.grid import changed, difference
from rlvr_jax.sweeps.metric import METRIC
from rlvr_jax.sweeps.plan import LOG, Sweep, outcome, runs
from rlvr_jax.sweeps.results import Results, results, write

REPORT = "report.html"
_UNITS = {
    "eval/greedy_accuracy": "held-out accuracy, greedy",
    "train/reward": "train reward",
    "train/response_length": "response length, tokens",
    "train/entropy": "entropy, nats per token",
    "train/kl": "KL to the reference, nats per token",
}


def report(
    sweep: Sweep, metric: str = METRIC, threshold: float | None = None, out: Path | None = None
) -> tuple[Path, Results]:
    """Writes report.html and results.json of the runs that are finished so far; the path of the page, and the results.

    Args: see `rlvr_jax.sweeps.results.results`. With `out`, the page is all that is written.

    Raises:
      OSError: a file can't be written; the message names it.
      ValueError: a file of a run is damaged; the message names it.
    """
    found = results(sweep, metric, threshold)
    if out is None:
        write(found)
    metrics = list(dict.fromkeys(name for variant in found.variants for name in variant.curves))
    drawn = [metric, *(name for name in metrics if name != metric and name != "eval/pass@1")]
    svgs = [pictures.curves_svg(found, name, unit(name), name == metric) for name in drawn if name in metrics]
    compared = any(variant.final and variant.final.pairs for variant in found.variants[1:])
    last = [run for run in runs(sweep) if (run.folder / "environment.json").exists()]
    content = page(
        Path(__file__).with_name("sweep.html"),
        title=f"Sweep of {' + '.join(sweep.config.tasks)}",
        sweep=sweep,
        found=found,
        colours=pictures.colours(found),
        metric=unit(metric),
        figures=[inline_svg(svg, i) for i, svg in enumerate(svgs)],
        differences=inline_svg(pictures.differences_svg(found), len(svgs)) if compared else "",
        others=_others(found, [name for name in metrics if name != metric]),
        failed=_failed(sweep),
        config=sorted(flatten(difference(changed(sweep.config, sweep.variants[0].changes))).items()),
        environment=flatten(json.loads((last[-1].folder / "environment.json").read_text())) if last else {},
        interval=interval,
        signed=signed,
        short=short,
        shown=shown,
        number=number,
    )
    out = out or sweep.folder / REPORT
    files.replace(out, content)
    return out, found


def unit(metric: str) -> str:
    """The name of a metric for readers."""
    return _UNITS.get(metric, f"held-out {metric.removeprefix('eval/')}" if metric.startswith("eval/") else metric)


def signed(x: Comparison) -> str:
    """The difference from the base: `+0.070 (+0.030 to +0.110)`."""
    if not x.pairs:
        return ""
    if math.isnan(x.difference_low):
        return f"{x.difference:+.3f}"
    return f"{x.difference:+.3f} ({x.difference_low:+.3f} to {x.difference_high:+.3f})"


def number(value: float | None) -> str:
    """A large number, or a dash."""
    return "-" if value is None else short(value)


def _others(found: Results, metrics: Sequence[str]) -> tuple[list[str], list[tuple[str, list[str]]]]:
    """Names of other metrics, and for each variant their means at the end with intervals."""
    rows = []
    for variant in found.variants:
        cells = []
        for name in metrics:
            band = variant.curves.get(name)
            text = short(band.mean[-1]) if band else "-"
            cells.append(f"{text} ({short(band.low[-1])} to {short(band.high[-1])})" if band and band.low else text)
        rows.append((variant.label, cells))
    return [unit(name) for name in metrics], rows


def _failed(sweep: Sweep) -> list[dict[str, Any]]:
    found = []
    for run in runs(sweep):
        end = outcome(run)
        if end and end["status"] == "failed":
            found.append({"run": run.folder.relative_to(sweep.folder), "error": end["error"], "log": LOG})
    return found
