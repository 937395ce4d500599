"""One self-contained HTML page about several runs: their curves over each other, what differs, all their samples."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlvr_jax import own_code
from rlvr_jax.config import flatten
from rlvr_jax.reporting import curves, embedded, files
from rlvr_jax.reporting.pages import page, shown
from rlvr_jax.reporting.panels import panels as panels_of
from rlvr_jax.reporting.report import json_of, metrics_of, samples_of

_COLUMNS = ("train/reward", "eval/greedy_accuracy", "eval/pass@8", "train/response_length", "train/entropy", "train/kl")


def labels_of(workdirs: Sequence[Path]) -> list[str]:
    """A name for each run: its path from the folder that they share.

    Raises ValueError for a folder given twice.
    """
    paths = [Path(os.path.realpath(path)) for path in workdirs]
    if twice := next((str(path) for path, real in zip(workdirs, paths, strict=True) if paths.count(real) > 1), None):
        raise ValueError(f"the run {twice} is given twice")
    shared = os.path.commonpath([path.parent for path in paths])
    return [str(path.relative_to(shared)) for path in paths]


def write_comparison(workdirs: Mapping[str, Path], path: Path) -> list[str]:
    """Writes a page about runs, given by label, from their files; the user's files that differ, in words.

    Raises:
      OSError: the file can't be written; the message names it.
      ValueError: a file of a run is damaged; the message names it.
    """
    rows = {label: metrics_of(workdir / "metrics.jsonl") for label, workdir in workdirs.items()}
    samples = {label: samples_of(workdir / "samples.jsonl") for label, workdir in workdirs.items()}
    configs = {label: flatten(json_of(workdir / "config.json")) for label, workdir in workdirs.items()}
    edits = own_code.versions({label: own_code.recorded(x / "environment.json") for label, x in workdirs.items()})
    panels = panels_of([row for of_run in rows.values() for row in of_run])
    content = page(
        Path(__file__).with_name("comparison.html"),
        title=f"{len(workdirs)} runs",
        environment={},
        workdirs=workdirs,
        columns=[name for name in _COLUMNS if any(name in row for of_run in rows.values() for row in of_run)],
        last={label: _last(of_run) for label, of_run in rows.items()},
        differences=_differences(configs),
        edits=edits,
        panels=panels,
        pieces=[*embedded.curves_of(rows, panels), *embedded.samples_of(samples)],
        script=embedded.scripts(),
        num_samples=sum(map(len, samples.values())),
        short=curves.short,
        shown=shown,
    )
    files.replace(path, content)
    return edits


def _last(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The last value of each metric."""
    return {name: value for row in rows for name, value in row.items() if isinstance(value, int | float)}


def _differences(configs: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """(key, value of each run) of the keys in which configs differ; a dash where a config has no such key."""
    keys = sorted({key for config in configs.values() for key in config})
    table = [(key, [str(config.get(key, "-")) for config in configs.values()]) for key in keys]
    return [(key, cells) for key, cells in table if len(set(cells)) > 1]
