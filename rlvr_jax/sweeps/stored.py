"""Stored experiments: a sweep's settings and curves in one file, and the comparison of new runs with them."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
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
from rlvr_jax.sweeps.results import Band, band, curves_of

LEVEL = 0.95  # of the whole band, and of the interval of the mean height
_LEAST_SEEDS = 3
_DIGESTED = ("step", "train/reward", "train/loss", "train/grad_norm", METRIC)


@dataclass(frozen=True)
class Curve:
    """The metric over the seeds of a variant; lists have one item per step.

    Attributes:
      steps: of the evaluations.
      mean: over the seeds.
      low, high: the band in which the whole curve of one more seed lies with a probability of 95 % or more.
      values: of each seed.
      digests: of each seed's rewards, losses, gradient norms and accuracies.
    """

    steps: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]
    values: dict[str, list[float]]
    digests: dict[str, str]


@dataclass(frozen=True)
class Experiment:
    """A stored experiment.

    Attributes:
      config: what differs from the defaults.
      grid, one_at_a_time, warm_start: of the sweep.
      metric: of the curves.
      place: versions and machine of the runs, see `rlvr_jax.sweeps.place`; None if they were made in several.
      seconds, cpu_seconds: of all runs.
      curves: by the name of the variant.
    """

    config: Mapping[str, Any]
    grid: Mapping[str, Sequence[Any]]
    one_at_a_time: bool
    warm_start: bool
    metric: str
    place: Mapping[str, str] | None
    seconds: float
    cpu_seconds: float
    curves: Mapping[str, Curve]


@dataclass(frozen=True)
class Reproduction:
    """New runs of a variant against its stored curve.

    Attributes:
      label: of the variant.
      steps, mean: the new curve, the mean over its seeds.
      low, high: the band of a curve over so many seeds.
      outside: the steps at which the new curve is outside of it.
      area, area_low, area_high: mean height of the new curve, and the interval in which it was expected.
      same_bits: the seeds whose digests are those of the stored runs.
      other_bits: the seeds for which this was expected, because versions and machine are the same, and is not so.
      sentence: all this in words.
    """

    label: str
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


def experiment(sweep: Sweep, metric: str = METRIC) -> Experiment:
    """The stored form of a sweep.

    Raises:
      RunError: runs are missing or have failed, or there are fewer than 3 seeds.
    """
    if len(sweep.seeds) < _LEAST_SEEDS:
        raise RunError(f"a band needs {_LEAST_SEEDS} seeds at least, and {sweep.folder} has {len(sweep.seeds)}")
    every = [(run, outcome(run)) for run in runs(sweep)]
    missing = [run for run, end in every if not end or end["status"] != "finished"]
    if missing:
        raise RunError(f"{len(missing)} of {len(every)} runs of {sweep.folder} are not finished: {missing[0].folder}")
    places = [end.get("place") for _, end in every]
    curves = {}
    for index, variant in enumerate(sweep.variants):
        rows = {run.config.seed: _rows(run.folder) for run, _ in every if run.variant == index}
        band = curves_of(rows, metric).get(metric)
        if band is None:
            raise RunError(f"the runs of {sweep.folder} have no metric {metric}")
        values = np.array(list(band.values.values()))
        low, high = _band(values, 1, _problems(sweep.config, metric))
        of_seeds = {str(seed): x for seed, x in band.values.items()}
        digests = {str(seed): _digest(x) for seed, x in rows.items()}
        curves[variant.name] = Curve(band.steps, band.mean, low.tolist(), high.tolist(), of_seeds, digests)
    return Experiment(
        config=difference(sweep.config),
        grid=sweep.grid,
        one_at_a_time=sweep.one_at_a_time,
        warm_start=sweep.warm_start,
        metric=metric,
        place=places[0] if all(place == places[0] for place in places) else None,
        seconds=sum(end["seconds"] for _, end in every),
        cpu_seconds=sum(end["cpu_seconds"] for _, end in every),
        curves=curves,
    )


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
        curves = {name: Curve(**curve) for name, curve in record.pop("curves").items()}
        found = Experiment(**record, curves=curves)
        _check(found)
        return found
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} is damaged, or of another version: {error}") from error


def _check(found: Experiment) -> None:
    """Raises an error if the values are not those of curves, or the config and grid make no sweep."""
    sweep = sweep_of(found, Path(), [0])
    if set(found.curves) != {variant.name for variant in sweep.variants}:
        raise ValueError("its curves are not those of its grid")
    for name, curve in found.curves.items():
        values = np.array([*curve.values.values(), curve.steps], np.float64)
        if len({*map(int, curve.values)}) < _LEAST_SEEDS or values.ndim != 2 or not np.all(np.isfinite(values)):
            raise ValueError(f"the curve of {name} needs {_LEAST_SEEDS} seeds with a number for each step")


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
    """The finished runs of a sweep against the stored curves, one item for each variant that has some.

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
        curve, band = found.curves.get(variant.name), curves_of(rows, found.metric).get(found.metric)
        if curve is None or band is None or band.steps != curve.steps:
            raise ConfigError(f"the stored experiment has no curve like that of {variant.label}")
        problems = _problems(sweep.config, found.metric)
        compared.append(_compare(variant.label, curve, rows, band.mean, elsewhere, problems))
    if not compared:
        raise RunError(f"no run of {sweep.folder} has finished, so there is nothing to compare")
    return compared


def _compare(
    label: str,
    curve: Curve,
    rows: Mapping[int, Sequence[Mapping[str, Any]]],
    mean: list[float],
    elsewhere: Mapping[int, str],
    problems: int | None,
) -> Reproduction:
    stored = np.array(list(curve.values.values()))
    low, high = _band(stored, len(rows), problems)
    outside = [step for step, x, a, b in zip(curve.steps, mean, low, high, strict=True) if not a <= x <= b]
    areas = np.array([statistics.area(curve.steps, values) for values in stored])
    area = statistics.area(curve.steps, mean)
    area_low, area_high = map(float, statistics.prediction_interval(areas, len(rows), LEVEL, _least(areas, problems)))
    same = [seed for seed in rows if curve.digests.get(str(seed)) == _digest(rows[seed])]
    other = [seed for seed in rows if not elsewhere[seed] and str(seed) in curve.digests and seed not in same]
    found = Reproduction(
        label, curve.steps, mean, low.tolist(), high.tolist(), outside, area, area_low, area_high, same, other, ""
    )
    differences = "" if "" in elsewhere.values() else next(iter(elsewhere.values()))
    return Reproduction(**{**vars(found), "sentence": _sentence(found, len(rows), len(stored), differences)})


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
    return f"{x.label}: {bits}the curve of {seeds} {place}, {height}"


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
