"""The results of a sweep, as data: curves over seeds, and each variant compared with the base."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlvr_jax.errors import ConfigError
from rlvr_jax.reporting import files, jsonl
from rlvr_jax.sweeps import edits, statistics
from rlvr_jax.sweeps.comparisons import Comparison, compare, interval, sentence, tested
from rlvr_jax.sweeps.metric import METRIC
from rlvr_jax.sweeps.plan import Run, Sweep, outcome, runs

RESULTS = "results.json"
_GAIN = 0.9  # of the base, that the default threshold asks for

_CURVES = ("train/reward", "train/response_length", "train/entropy", "train/kl")
_MOST_POINTS = 200  # of a curve; more are averaged

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Band:
    """A metric over the seeds of a variant, at the steps that all of them have; all lists have one item per point.

    Attributes:
      steps: of the points; the mean of several that are averaged, if there are too many.
      mean: over the seeds.
      low, high: the 95 % bootstrap interval of the mean; empty with less than 3 seeds.
      values: of each seed.
    """

    steps: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]
    values: dict[int, list[float]]


@dataclass(frozen=True)
class Reached:
    """Tokens and seconds until the runs of a variant reached the threshold.

    Attributes:
      seeds: that reached it.
      tokens: sampled until then, median over those.
      seconds: of the steps until then, without evaluation and compilation, median over those.
    """

    seeds: list[int]
    tokens: float | None
    seconds: float | None


@dataclass(frozen=True)
class VariantResults:
    """The runs of a variant.

    Attributes:
      label, changes: of the variant.
      curves: by metric.
      final: the metric at the last step; None without a finished run.
      area: its mean over the run, by the trapezoidal rule.
      reached: the threshold; None without one.
      failed: the error of each seed that failed.
      sentence: the comparison in words.
    """

    label: str
    changes: Mapping[str, Any]
    curves: dict[str, Band]
    final: Comparison | None
    area: Comparison | None
    reached: Reached | None
    failed: dict[int, str]
    sentence: str


@dataclass(frozen=True, repr=False)
class Results:
    """Of a sweep; a notebook shows it as a table.

    Attributes:
      folder: of the sweep.
      metric: that is compared.
      threshold: of `reached`.
      comparisons: number of tests that the p-values are corrected for.
      seconds, cpu_seconds: of all runs, warm starts included.
      unfinished: number of runs that are neither finished nor failed.
      places: number of different versions and machines that finished runs.
      edits: the user's files that differ between finished runs, in words.
      variants: the base first.
    """

    folder: str
    metric: str
    threshold: float | None
    comparisons: int
    seconds: float
    cpu_seconds: float
    unfinished: int
    places: int
    edits: list[str]
    variants: list[VariantResults]

    def __repr__(self) -> str:
        return table(self)


def results(sweep: Sweep, metric: str = METRIC, threshold: float | None = None) -> Results:
    """The results of the finished runs of a sweep.

    Args:
      sweep: its files are read.
      metric: that is compared, of metrics.jsonl; more is better.
      threshold: of the metric, for the time to reach it; by default the base's first value and 90 % of its gain.

    Raises:
      ConfigError: no run has the metric.
      ValueError: a file is damaged; the message names it.
    """
    every = runs(sweep)
    ends = {run.folder: outcome(run) for run in every}
    rows: list[dict[int, list[Row]]] = [{} for _ in sweep.variants]
    failed: list[dict[int, str]] = [{} for _ in sweep.variants]
    for run in every:
        end = ends[run.folder]
        if run.kind == "rl" and end:
            found, error = _read(run) if end["status"] == "finished" else ([], end["error"])
            if error:
                failed[run.variant][run.config.seed] = error
            else:
                rows[run.variant][run.config.seed] = found
    curves = [curves_of(of_seeds, metric) for of_seeds in rows]
    if any(rows) and not any(metric in of_variant for of_variant in curves):
        raise ConfigError(f"no run has the metric {metric!r}; docs/metrics.md lists their names")
    base = curves[0].get(metric)
    if threshold is None and base and base.mean[-1] > base.mean[0]:
        threshold = base.mean[0] + _GAIN * (base.mean[-1] - base.mean[0])
    resolution = 1 / sweep.config.evaluation.problems if metric == METRIC else 0.0
    tables = []
    for of_band in (_finals, _areas):
        numbers = [of_band(of_variant.get(metric)) for of_variant in curves]
        tables.append([compare(x, numbers[0]) for x in numbers])
    (finals, areas), comparisons = tested(tables, resolution)
    samples = sweep.config.rollout.prompts * sweep.config.rollout.group_size
    found = [
        VariantResults(
            label=variant.label,
            changes=variant.changes,
            curves=curves[i],
            final=finals[i],
            area=areas[i],
            reached=None if threshold is None else _reached(rows[i], metric, threshold, samples),
            failed=failed[i],
            sentence=sentence(i == 0, finals[i], areas[i]),
        )
        for i, variant in enumerate(sweep.variants)
    ]
    total = lambda name: sum(end.get(name, 0.0) for end in ends.values() if end)  # noqa: E731
    return Results(
        folder=str(sweep.folder),
        metric=metric,
        threshold=threshold,
        comparisons=comparisons,
        seconds=total("seconds"),
        cpu_seconds=total("cpu_seconds"),
        unfinished=sum(run.kind == "rl" and ends[run.folder] is None for run in every),
        places=len({json.dumps(end.get("place")) for end in ends.values() if end and end["status"] == "finished"}),
        edits=edits.of_finished(sweep),
        variants=found,
    )


def _read(run: Run) -> tuple[list[Row], str]:
    """The metrics of a finished run, and why they can't be used, if so; the other seeds of its variant can."""
    path, steps = run.folder / "metrics.jsonl", run.config.training.num_steps
    rows = jsonl.read(path)
    last = rows[-1]["step"] if rows else 0
    return rows, f"{path} ends at step {last} of {steps}; delete the run's folder to make it again" * (last != steps)


def table(found: Results) -> str:
    """The comparison as text: a line for each variant."""
    width = max(len(name) for name in (found.metric, *(variant.label for variant in found.variants)))
    lines = [f"{found.metric:{width}}  seeds  {'at the end':23}  {'over the run':23}"]
    for variant in found.variants:
        seeds = len(variant.final.values) if variant.final else 0
        cells = [interval(x) if x else "-" for x in (variant.final, variant.area)]
        lines.append(f"{variant.label:{width}}  {seeds:5}  {cells[0]:23}  {cells[1]:23}  {variant.sentence}")
    lines += [f"note: the code of the runs differs: {line}" for line in found.edits]
    return "\n".join(line.rstrip() for line in lines)


def write(found: Results) -> Path:
    """Writes results.json into the folder of the sweep. Raises OSError, which names it."""
    path = Path(found.folder) / RESULTS
    files.replace(path, json.dumps(plain(found), indent=1, allow_nan=False).encode())
    return path


def plain(found: Results) -> dict[str, Any]:
    """The results as plain data; what is unknown is None."""
    return _without_nan(asdict(found))


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _without_nan(x) for key, x in value.items()}
    if isinstance(value, list):
        return [_without_nan(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def curves_of(rows: Mapping[int, Sequence[Row]], metric: str = METRIC) -> dict[str, Band]:
    """Curves over seeds from the rows of each seed's metrics.jsonl: of the metric, pass@k, and some of training."""
    if not rows:
        return {}
    names = {name for of_seed in rows.values() for row in of_seed for name in row}
    shown = [metric, METRIC, *sorted(name for name in names if name.startswith("eval/pass@") and name[10:].isdecimal())]
    found = {name: band(rows, name) for name in dict.fromkeys([*shown, *_CURVES])}
    return {name: curve for name, curve in found.items() if curve}


def band(rows: Mapping[int, Sequence[Row]], metric: str) -> Band | None:
    """A metric at the steps that all seeds have, from the rows of each seed's metrics.jsonl; None if there are none."""
    points = {
        seed: {row["step"]: float(row[metric]) for row in of_seed if _is_number(row.get(metric))}
        for seed, of_seed in rows.items()
    }
    steps = sorted(set.intersection(*map(set, points.values())))
    if not steps:
        return None
    values = np.array([[of_seed[step] for step in steps] for of_seed in points.values()])
    parts = np.array_split(np.arange(len(steps)), min(len(steps), _MOST_POINTS))
    values = np.stack([values[:, part].mean(axis=1) for part in parts], axis=1)
    low, high = statistics.bootstrap_interval(values)
    return Band(
        steps=[float(np.mean(np.array(steps)[part])) for part in parts],
        mean=values.mean(axis=0).tolist(),
        low=low.tolist() if len(values) >= statistics.FEWEST else [],
        high=high.tolist() if len(values) >= statistics.FEWEST else [],
        values=dict(zip(points, values.tolist(), strict=True)),
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _finals(band: Band | None) -> dict[int, float]:
    return {seed: values[-1] for seed, values in band.values.items()} if band else {}


def _areas(band: Band | None) -> dict[int, float]:
    return {seed: statistics.area(band.steps, values) for seed, values in band.values.items()} if band else {}


def _reached(rows: Mapping[int, Sequence[Row]], metric: str, threshold: float, samples: int) -> Reached:
    """Tokens and seconds until the seeds reached the threshold.

    A step has so many `samples`, by which tokens are counted in rows that do not say how many were sampled.
    """
    seeds, tokens, seconds = [], [], []
    for seed, of_seed in rows.items():
        evaluated = [i for i, row in enumerate(of_seed) if _is_number(row.get(metric))]
        values = [of_seed[i][metric] for i in evaluated]
        sampled = np.cumsum([_tokens(row, samples) for row in of_seed])[evaluated]
        spent = np.cumsum(_seconds(of_seed))[evaluated]
        of_tokens = statistics.first_reaching(sampled, values, threshold)
        if of_tokens is not None:
            seeds.append(seed)
            tokens.append(of_tokens)
            seconds.append(statistics.first_reaching(spent, values, threshold))
    if not seeds:
        return Reached([], None, None)
    return Reached(seeds, float(np.median(tokens)), float(np.median(seconds)))


def _tokens(row: Row, samples: int) -> float:
    """Tokens sampled in a step."""
    speed, seconds = row.get("time/rollout_tokens_per_second"), row.get("time/rollout")
    if _is_number(speed) and _is_number(seconds):
        return speed * seconds
    return row.get("train/response_length", 0.0) * samples


def _seconds(rows: Sequence[Row]) -> list[float]:
    """Of each step, without evaluation; the first step, which compiles, counts as the median of the others."""
    found = [row.get("time/step", 0.0) - row.get("time/evaluate", 0.0) for row in rows]
    steps = [i for i, row in enumerate(rows) if "time/step" in row]
    if len(steps) > 1:
        found[steps[0]] = float(np.median([found[i] for i in steps[1:]]))
    return found
