"""Stored experiments: a sweep's settings and curves in one file, and the comparison of new runs with them."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from rlvr_jax.config import Config, from_dict
from rlvr_jax.errors import ConfigError, RunError
from rlvr_jax.reporting import files, jsonl
from rlvr_jax.sweeps import statistics
from rlvr_jax.sweeps.grid import difference
from rlvr_jax.sweeps.metric import METRIC
from rlvr_jax.sweeps.plan import Sweep, make_sweep, outcome, runs
from rlvr_jax.sweeps.results import Band, band

LEVEL = 0.95  # of the whole band, and of the interval of the mean height
_LEAST_SEEDS = 3
_DIGESTED = ("step", "train/reward", "train/loss", "train/grad_norm", METRIC)


@dataclass(frozen=True)
class Curve:
    """A metric over the seeds of a variant; lists have one item per step.

    Attributes:
      steps: of the evaluations.
      mean: over the seeds.
      low, high: the band in which the whole curve of one more seed lies with a probability of 95 % or more.
      values: of each seed.
    """

    steps: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]
    values: dict[str, list[float]]


@dataclass(frozen=True)
class Experiment:
    """A stored experiment.

    Attributes:
      config: what differs from the defaults.
      grid, one_at_a_time, warm_start: of the sweep.
      place: versions and machine of the runs, see `rlvr_jax.sweeps.place`; None if they were made in several.
      seconds, cpu_seconds: of all runs.
      curves: by the name of the variant and the metric.
      digests: by the name of the variant, of each seed's rewards, losses, gradient norms and accuracies.
    """

    config: Mapping[str, Any]
    grid: Mapping[str, Sequence[Any]]
    one_at_a_time: bool
    warm_start: bool
    place: Mapping[str, str] | None
    seconds: float
    cpu_seconds: float
    curves: Mapping[str, Mapping[str, Curve]]
    digests: Mapping[str, Mapping[str, str]]

    @property
    def metrics(self) -> list[str]:
        """Of the curves of each variant; the first is what its sweep compares."""
        return list(next(iter(self.curves.values())))

    @property
    def seeds(self) -> list[int]:
        """Of each variant."""
        return [int(seed) for seed in next(iter(self.digests.values()))]


@dataclass(frozen=True)
class Reproduction:
    """A metric of new runs of a variant against its stored curve.

    Attributes:
      label: of the variant.
      metric: of the curves.
      steps, mean: the new curve, the mean over its seeds.
      low, high: the band of a curve over so many seeds.
      outside: the steps at which the new curve is outside of it.
      area, area_low, area_high: mean height of the new curve, and the interval in which it was expected.
      same_bits: the seeds whose digests are those of the stored runs.
      other_bits: the seeds for which this was expected, because versions and machine are the same, and is not so.
      sentence: all this in words.
    """

    label: str
    metric: str
    steps: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]
    outside: list[float]
    area: float
    area_low: float
    area_high: float
    same_bits: list[int]
    other_bits: list[int]
    sentence: str

    @property
    def succeeded(self) -> bool:
        """True if the curve is the stored one, or lies in its band."""
        return not (self.outside or self.other_bits) and self.area_low <= self.area <= self.area_high


def experiment(sweep: Sweep, metrics: Sequence[str] = (METRIC,)) -> Experiment:
    """The stored form of a sweep, with the curves of these metrics.

    Raises:
      ConfigError: no metric is named.
      RunError: runs are missing or have failed, lack a metric, or there are fewer than 3 seeds.
    """
    if not metrics:
        raise ConfigError("--metric is empty: stored curves are of one metric or several")
    if len(sweep.seeds) < _LEAST_SEEDS:
        raise RunError(f"a band needs {_LEAST_SEEDS} seeds at least, and {sweep.folder} has {len(sweep.seeds)}")
    every = [(run, outcome(run)) for run in runs(sweep)]
    missing = [run for run, end in every if not end or end["status"] != "finished"]
    if missing:
        raise RunError(f"{len(missing)} of {len(every)} runs of {sweep.folder} are not finished: {missing[0].folder}")
    places = [end.get("place") for _, end in every]
    curves, digests = {}, {}
    for index, variant in enumerate(sweep.variants):
        rows = {run.config.seed: _rows(run.folder) for run, _ in every if run.variant == index}
        found = {metric: _curve(rows, metric, _problems(sweep.config, metric)) for metric in metrics}
        absent = [metric for metric, curve in found.items() if curve is None]
        if absent:
            raise RunError(f"the runs of {sweep.folder} have no metric {', '.join(absent)}")
        curves[variant.name] = {metric: curve for metric, curve in found.items() if curve}
        digests[variant.name] = {str(seed): _digest(x) for seed, x in rows.items()}
    return Experiment(
        config=difference(sweep.config),
        grid=sweep.grid,
        one_at_a_time=sweep.one_at_a_time,
        warm_start=sweep.warm_start,
        place=places[0] if all(place == places[0] for place in places) else None,
        seconds=sum(end["seconds"] for _, end in every),
        cpu_seconds=sum(end["cpu_seconds"] for _, end in every),
        curves=curves,
        digests=digests,
    )


def _curve(rows: Mapping[int, Sequence[Mapping[str, Any]]], metric: str, problems: int | None) -> Curve | None:
    """Of the rows of each seed's metrics.jsonl; None if they have no step with the metric in common."""
    found = band(rows, metric)
    if found is None:
        return None
    low, high = _band(np.array(list(found.values.values())), 1, problems)
    of_seeds = {str(seed): x for seed, x in found.values.items()}
    return Curve(found.steps, found.mean, low.tolist(), high.tolist(), of_seeds)


def write(found: Experiment, path: Path) -> None:
    """Writes an experiment. Raises OSError, which names the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(found), indent=1)
    text = re.sub(r"\[[-+.,0-9eE\s]+\]", lambda match: " ".join(match[0].split()), text)  # a curve is a line
    files.replace(path, text.encode() + b"\n")


def read(path: Path) -> Experiment:
    """A stored experiment. Raises ConfigError if the file is damaged or of another version."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        curves = {
            name: {metric: Curve(**curve) for metric, curve in of_variant.items()}
            for name, of_variant in record.pop("curves").items()
        }
        found = Experiment(**record, curves=curves)
        _check(found)
        return found
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} is damaged, or of another version: {error}") from error


def _check(found: Experiment) -> None:
    """Raises an error if the values are not those of curves, or the config and grid make no sweep."""
    names = {variant.name for variant in sweep_of(found, Path(), [0]).variants}
    if not isinstance(found.place, Mapping | None) or not np.isfinite([found.seconds, found.cpu_seconds]).all():
        raise ValueError("its place is none, or its seconds are no numbers")
    if set(found.curves) != names or set(found.digests) != names:
        raise ValueError("its curves are not those of its grid")
    seeds = set(map(str, found.seeds))
    for name, of_variant in found.curves.items():
        if list(of_variant) != found.metrics or not found.metrics or set(found.digests[name]) != seeds:
            raise ValueError(f"{name} has other metrics or seeds than the first variant, or none")
        for metric, curve in of_variant.items():
            rows = [*curve.values.values(), curve.steps, curve.mean, curve.low, curve.high]
            values = np.array(rows, np.float64)
            whole = set(curve.values) == seeds and values.ndim == 2 and values.size and np.all(np.isfinite(values))
            if len(seeds) < _LEAST_SEEDS or not whole:
                raise ValueError(f"{metric} of {name} needs {_LEAST_SEEDS} seeds with a number for each step")


def band_of(curve: Curve) -> Band:
    """The stored curve with the interval of its mean, as `rlvr_jax.sweeps.results.band` makes it of runs."""
    rows = {
        int(seed): [{"step": step, METRIC: x} for step, x in zip(curve.steps, values, strict=True)]
        for seed, values in curve.values.items()
    }
    found = band(rows, METRIC)
    assert found is not None  # every seed has all steps
    return found


def sweep_of(found: Experiment, folder: Path, seeds: Sequence[int]) -> Sweep:
    """The sweep that makes an experiment again with these seeds."""
    grid = {**found.grid, "seed": list(seeds)}
    return make_sweep(folder, from_dict(found.config), grid, found.one_at_a_time, found.warm_start, True)


def compare(found: Experiment, sweep: Sweep) -> list[Reproduction]:
    """The finished runs of a sweep against the stored curves: for each variant that has some, one item for each metric.

    Raises:
      ConfigError: the sweep has a variant, or steps, that the experiment does not have.
      RunError: none of its runs has finished.
    """
    every = [(run, end) for run in runs(sweep) if (end := outcome(run)) and end["status"] == "finished"]
    compared = []
    for index, variant in enumerate(sweep.variants):
        made = [(run, end) for run, end in every if run.variant == index]
        if not made:
            continue
        rows = {run.config.seed: _rows(run.folder) for run, _ in made}
        elsewhere = {run.config.seed: _elsewhere(found.place, end.get("place")) for run, end in made}
        curves, digests = found.curves.get(variant.name, {}), found.digests.get(variant.name, {})
        same = [seed for seed in rows if digests.get(str(seed)) == _digest(rows[seed])]
        other = [seed for seed in rows if not elsewhere[seed] and str(seed) in digests and seed not in same]
        differences = "" if "" in elsewhere.values() else next(iter(elsewhere.values()))
        for metric in found.metrics:
            new = band(rows, metric)
            if metric not in curves or new is None or new.steps != curves[metric].steps:
                raise ConfigError(f"the stored experiment has no curve like {metric} of {variant.label}")
            numbers = _numbers(curves[metric], new, _problems(sweep.config, metric))
            item = Reproduction(variant.label, metric, **numbers, same_bits=same, other_bits=other, sentence="")
            compared.append(replace(item, sentence=_sentence(item, len(rows), len(curves[metric].values), differences)))
    if not compared:
        raise RunError(f"no run of {sweep.folder} has finished, so there is nothing to compare")
    return compared


def _numbers(curve: Curve, new: Band, problems: int | None) -> dict[str, Any]:
    """Those of a `Reproduction`: the mean of new seeds, and the bounds in which it is expected by the stored ones."""
    stored, count = np.array(list(curve.values.values())), len(new.values)
    low, high = _band(stored, count, problems)
    points = zip(curve.steps, new.mean, low, high, strict=True)
    areas = np.array([statistics.area(curve.steps, values) for values in stored])
    area_low, area_high = statistics.prediction_interval(areas, count, LEVEL, _least(areas, problems))
    return {
        "steps": curve.steps,
        "mean": new.mean,
        "low": low.tolist(),
        "high": high.tolist(),
        "outside": [step for step, x, lowest, highest in points if not lowest <= x <= highest],
        "area": statistics.area(curve.steps, new.mean),
        "area_low": float(area_low),
        "area_high": float(area_high),
    }


def _elsewhere(place: Mapping[str, str] | None, other: Mapping[str, str] | None) -> str:
    """The differences between the places of two runs, in words; empty if they must have the same bits."""
    if place is None or other is None:
        return "versions or machine unknown"
    differing = [name for name in {**place, **other} if place.get(name) != other.get(name)]
    return f"other {', '.join(differing)}" if differing else ""


def _sentence(x: Reproduction, new: int, stored: int, elsewhere: str) -> str:
    seeds = "1 seed" if new == 1 else f"{new} seeds"
    bits = ""
    if x.same_bits:
        bits = f"seed {', '.join(map(str, x.same_bits))} to the bit; "
    if x.other_bits:
        bits += f"NOT to the bit, on the same machine and versions: seed {', '.join(map(str, x.other_bits))}; "
    elif elsewhere and not x.same_bits:
        bits = f"not compared to the bit ({elsewhere}); "
    place = f"lies in the band of {stored} seeds"
    if x.outside:
        place = f"is OUTSIDE of the band of {stored} seeds at {_steps(x.outside)}"
    inside = x.area_low <= x.area <= x.area_high
    height = f"its mean height {x.area:.3f} is {'' if inside else 'NOT '}within {x.area_low:.3f} to {x.area_high:.3f}"
    return f"{x.label}: {bits}{x.metric} of {seeds} {place}, {height}"


def _steps(steps: Sequence[float]) -> str:
    return f"step{'s' * (len(steps) > 1)} {', '.join(f'{step:g}' for step in steps)}"


def _band(values: np.ndarray, new: int, problems: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Bounds between which the whole curve of the mean of `new` seeds lies: the level is divided among its points."""
    level = 1 - (1 - LEVEL) / values.shape[1]
    low, high = statistics.prediction_interval(values, new, level, _least(values, problems))
    return (np.clip(low, 0, 1), np.clip(high, 0, 1)) if problems else (low, high)


def _least(values: np.ndarray, problems: int | None) -> np.ndarray | float:
    """The standard deviation of a share of so many problems: seeds that agree by chance make no band without width.

    The share is that of all seeds with two more problems solved and two more not (Agresti & Coull 1998).
    """
    if not problems:
        return 0.0
    count = len(values) * problems
    share = (np.sum(values, axis=0) * problems + 2) / (count + 4)
    return np.sqrt(share * (1 - share) / problems)


def _problems(config: Config, metric: str) -> int | None:
    """The number of problems that a metric is a share of."""
    if metric == METRIC:
        return config.evaluation.problems
    return config.evaluation.pass_problems if metric.startswith("eval/pass@") else None


def _rows(folder: Path) -> list[dict[str, Any]]:
    try:
        return jsonl.read(folder / "metrics.jsonl")
    except ValueError as error:
        raise RunError(str(error)) from error


def _digest(rows: Sequence[Mapping[str, Any]]) -> str:
    """Of what a run computed: its rewards, losses, gradients and held-out accuracies, with all digits."""
    kept = [{name: repr(row[name]) for name in _DIGESTED if name in row} for row in rows]
    return hashlib.sha256(json.dumps(kept).encode()).hexdigest()
