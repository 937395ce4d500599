"""The runs of a sweep, in the order in which they are made, and their folders.

FOLDER/sweep.json                              the config, grid and settings
FOLDER/warm_starts/CHANGES,seed=0/             a run of supervised training, shared by all that start from it
FOLDER/runs/CHANGES/seed=0/                    a run of reinforcement learning
.../outcome.json, log.txt                      in each of them: its end, and its output
FOLDER/report.html, results.json               over all runs
"""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rlvr_jax.config import Config, differences, from_dict, to_dict
from rlvr_jax.errors import ConfigError
from rlvr_jax.reporting import files
from rlvr_jax.sweeps.grid import Grid, Variant, changed, difference, file_name, variants
from rlvr_jax.sweeps.place import versions

SWEEP, OUTCOME, LOG = "sweep.json", "outcome.json", "log.txt"
# What a warm start does not depend on.
_NOT_OF_WARM_STARTS = (
    *("training.", "optimizer.", "algorithm.", "critic.", "curriculum.", "reward", "verifier.", "evaluation."),
    "rollout.",
)
_OF_WARM_STARTS = ("rollout.max_prompt_length", "rollout.max_response_length")


@dataclass(frozen=True)
class Run:
    """A run of a sweep.

    Attributes:
      kind: supervised ("sft") or reinforcement learning ("rl").
      folder: its workdir.
      config: its config.
      variant: its index among the variants; -1 of a warm start.
      needs: the folder of the warm start that it starts from, if any.
    """

    kind: Literal["sft", "rl"]
    folder: Path
    config: Config
    variant: int = -1
    needs: Path | None = None

    @property
    def num_steps(self) -> int:
        """Of the whole run."""
        return self.config.training.num_steps if self.kind == "rl" else self.config.sft.num_steps


@dataclass(frozen=True)
class Sweep:
    """A sweep.

    Attributes:
      folder: of all runs.
      config: of the base.
      grid: keys and their values.
      one_at_a_time: see `rlvr_jax.sweeps.grid.variants`.
      warm_start: whether runs without another beginning start from a supervised run of their seed.
      variants: the base first.
      seeds: of each variant.
      reproduces: whether it makes a stored experiment again, in a folder whose runs of older versions may be removed.
    """

    folder: Path
    config: Config
    grid: Grid
    one_at_a_time: bool
    warm_start: bool
    variants: tuple[Variant, ...]
    seeds: tuple[int, ...]
    reproduces: bool = False


def make_sweep(
    folder: Path,
    config: Config,
    grid: Grid,
    one_at_a_time: bool = False,
    warm_start: bool = True,
    reproduces: bool = False,
) -> Sweep:
    """A sweep from its settings.

    Raises:
      ConfigError: a key or value of the grid is wrong, by its name.
    """
    found, seeds = variants(config, grid, one_at_a_time)
    names = [variant.name for variant in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise ConfigError(f"two variants of the grid would have the folder {twice}")
    grid = {key: list(values) for key, values in grid.items()}
    return Sweep(folder.absolute(), config, grid, one_at_a_time, warm_start, found, seeds, reproduces)


def base(sweep: Sweep) -> Config:
    """The config that the others are compared with."""
    return changed(sweep.config, sweep.variants[0].changes)


def runs(sweep: Sweep) -> list[Run]:
    """All runs: those of the first seed first, so that a sweep that is stopped has whole comparisons.

    A warm start stands before the first run that needs it.
    """
    made: dict[Path, Run] = {}
    configs = [changed(sweep.config, variant.changes) for variant in sweep.variants]
    beginnings = [_warm_start_config(sweep, variant) for variant in sweep.variants]
    for seed in sweep.seeds:
        for index, (variant, config) in enumerate(zip(sweep.variants, configs, strict=True)):
            config = replace(config, seed=seed)
            folder = sweep.folder / "runs" / variant.name / f"seed={seed}"
            needs = None
            if sweep.warm_start and not config.init_from and not config.pretrained:
                first = _warm_start(sweep, *beginnings[index], seed)
                needs = first.folder
                made.setdefault(needs, first)
                config = replace(config, init_from=str(needs))
            made[folder] = Run("rl", folder, config, index, needs)
    return list(made.values())


def _warm_start_config(sweep: Sweep, variant: Variant) -> tuple[tuple[str, ...], Config]:
    """The changes of a variant that its warm starts share, as texts, and the config of these."""
    changes = {key: value for key, value in variant.changes.items() if _of_warm_starts(key)}
    return tuple(f"{key}={value}" for key, value in changes.items()), changed(sweep.config, changes)


def _warm_start(sweep: Sweep, changes: tuple[str, ...], config: Config, seed: int) -> Run:
    name = file_name(",".join([*changes, f"seed={seed}"]))
    return Run("sft", sweep.folder / "warm_starts" / name, replace(config, seed=seed))


def _of_warm_starts(key: str) -> bool:
    return key in _OF_WARM_STARTS or not f"{key}.".startswith(_NOT_OF_WARM_STARTS)


def outcome(run: Run) -> dict[str, Any] | None:
    """The end of a run: "status" ("finished" or "failed"), "seconds", "cpu_seconds" and "error"; None without one.

    Raises ConfigError if the file holds something else.
    """
    try:
        found = json.loads((run.folder / OUTCOME).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    needed = {"finished": ("seconds", "cpu_seconds"), "failed": ("error",)}
    if not isinstance(found, dict) or not {*needed.get(found.get("status"), ("status",))} <= set(found):
        raise ConfigError(f"{run.folder / OUTCOME} is damaged; remove it, and the run goes on")
    return found if found.get("num_steps") == run.num_steps else None


def left(sweep: Sweep, retry: bool = False) -> list[Run]:
    """The runs that have no end yet; with `retry` also those that have failed."""
    ends = [(run, outcome(run)) for run in runs(sweep)]
    return [run for run, end in ends if end is None or (retry and end["status"] == "failed")]


def write_outcome(run: Run, **found: Any) -> None:
    """Records the end of a run. Raises OSError, which names the file."""
    run.folder.mkdir(parents=True, exist_ok=True)
    files.replace(run.folder / OUTCOME, json.dumps(found | {"num_steps": run.num_steps}, indent=1).encode())


def remove_older(sweep: Sweep) -> None:
    """Removes the runs that were made by other versions, so that they are made again, in the folder of a reproduction.

    `check_folder` must have passed, and the lock be held.
    """
    if not (sweep.folder / SWEEP).exists() or not read(sweep.folder).reproduces:
        return
    now = versions().items()
    for run in runs(sweep):
        if (end := outcome(run)) and not now <= end.get("place", {}).items():
            shutil.rmtree(run.folder)


def check_folder(sweep: Sweep) -> None:
    """Refuses a folder that is not this sweep's, so that no run is replaced, and none falls out of the report.

    Raises:
      ConfigError: it is the folder of a run, of another kind of sweep, or of one with runs that this one lacks; or a
        run of this one has another config there, with the keys that differ.
    """
    _check_record(sweep)
    for run in runs(sweep):
        path = run.folder / "config.json"
        if not path.exists():
            continue
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            old = from_dict({key: value for key, value in record.items() if key != "run"})
        except (AttributeError, TypeError, ValueError) as error:
            raise ConfigError(f"{path} is damaged ({error}); remove its folder, and the run is made again") from error
        if run.needs:  # the folder may have moved
            old = replace(old, init_from=run.config.init_from)
        if different := differences(to_dict(old), to_dict(run.config)):
            raise ConfigError(
                f"{run.folder} holds a run with another config: {'; '.join(different)}. Use another --workdir, or the "
                "same config to continue that sweep"
            )


def _check_record(sweep: Sweep) -> None:
    if (sweep.folder / "config.json").exists():
        raise ConfigError(f"{sweep.folder} is the folder of a run; use another --workdir")
    if not (sweep.folder / SWEEP).exists():
        if sweep.reproduces and any(run.folder.exists() for run in runs(sweep)):
            raise ConfigError(f"{sweep.folder} has runs but no {SWEEP}; use another --workdir")
        return
    old = read(sweep.folder)
    if old.reproduces != sweep.reproduces:
        kind = "reproduction of a stored curve" if old.reproduces else "sweep"
        raise ConfigError(f"{sweep.folder} is the folder of a {kind}; use another --workdir")
    # Seeds of a reproduction are made as they are asked for; those of a sweep belong to its report.
    kept = {run.folder if not sweep.reproduces else run.folder.parent for run in runs(sweep)}
    for run in runs(old):
        place = run.folder if not sweep.reproduces else run.folder.parent
        if run.kind == "rl" and run.folder.exists() and place not in kept:
            raise ConfigError(
                f"{sweep.folder} holds the run {run.folder.relative_to(sweep.folder)}, which this grid lacks, so "
                "that it would be in no report. Name all values of that sweep, and new ones, or use another --workdir"
            )


def write(sweep: Sweep) -> None:
    """Writes sweep.json. Raises OSError, which names it."""
    record = {
        "config": difference(sweep.config),
        "grid": sweep.grid,
        "one_at_a_time": sweep.one_at_a_time,
        "warm_start": sweep.warm_start,
        "reproduces": sweep.reproduces,
    }
    sweep.folder.mkdir(parents=True, exist_ok=True)
    files.replace(sweep.folder / SWEEP, json.dumps(record, indent=1).encode())


def read(folder: Path) -> Sweep:
    """The sweep of a folder.

    Raises:
      ConfigError: it holds none, or its sweep.json is damaged.
    """
    path = folder / SWEEP
    if not path.exists():
        raise ConfigError(f"{folder} is not the folder of a sweep: it has no {SWEEP}")
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        config = from_dict(record["config"])
        options = record["one_at_a_time"], record["warm_start"], record.get("reproduces", False)
        return make_sweep(folder, config, record["grid"], *options)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{path} is damaged, or of another version: {error}") from error
