"""The workdir of a run: starting and resuming it, and the provenance of its results."""

import contextlib
import json
import os
import platform
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax

from rlvr_jax import own_code
from rlvr_jax.config import Config, Run, differences, flatten, from_dict, supervised_options, to_dict
from rlvr_jax.errors import ConfigError
from rlvr_jax.learner.preferences import LOSSES
from rlvr_jax.parallel import Processes
from rlvr_jax.reporting import files, jsonl
from rlvr_jax.training import checkpoints
from rlvr_jax.training.agreement import check_shared
from rlvr_jax.training.lock import locked

# Keys that may change on resume; those with a final dot are sections, and * stands for any name. The first have no
# effect on later steps; the effect of the others is reported.
_FREE = (
    "evaluation.",
    "reporting",
    "verifier.workers",
    "data.",
    "training.save_every",
    "training.keep_checkpoints",
    "training.keep_every",
    "training.keep_best",
    "training.max_skipped_in_a_row",
    "training.offload_reference",
    "training.all_samples",
    "training.profile",
    "training.watchdog",
    "training.watchdog_ends",
    "sft.save_every",
    "preferences.save_every",
    *(f"judges.*.{key}" for key in ("key", "in_flight", "per_minute")),
)
_OF_RL = (
    *("training.", "optimizer.", "algorithm.", "critic.", "reward", "reward_models.", "judges.", "teacher"),
    "verifier.",
)
_UNUSED = {
    "rl": ("sft.", "preferences."),
    "sft": (*_OF_RL, "preferences."),
    "preferences": (*_OF_RL, "sft."),
}
_ROUNDING = (
    "mesh.",
    "rollout.devices",
    "rollout.batch_size",
    "rollout.slots",
    "rollout.chunk",
    "rollout.prefill_chunk",
    "policy.attention",
    "policy.remat",
    "policy.head_chunk",
    "optimizer.microbatches",
    "optimizer.offload",
    "critic.optimizer.microbatches",
    "critic.optimizer.offload",
    "sft.optimizer.microbatches",
    "sft.optimizer.offload",
    "sft.packing",
    "preferences.optimizer.microbatches",
    "preferences.optimizer.offload",
    "preferences.packing",
    "training.packing",
    "training.packing_multiple",
)
_OF_JUDGES = ("endpoint", "timeout", "retries", "record", "replay")
_JUDGING = ("verifier.timeout", "verifier.memory_mib", *(f"judges.*.{key}" for key in _OF_JUDGES))
_STEPS = {"rl": "training.num_steps", "sft": "sft.num_steps", "preferences": "preferences.num_steps"}
REFERENCE, HELDOUT = "reference.npz", "heldout.json"  # of runs of preferences, in the workdir
VERSIONS = "versions.json"  # of frozen networks, in the workdir
_OF_A_RUN = (
    *("tensorboard", "metrics.jsonl", "samples.jsonl", "changes.jsonl", "wandb_run_id.txt"),
    *(REFERENCE, HELDOUT, VERSIONS),
)

_KEPT = {*_OF_A_RUN, "config.json", "environment.json", "checkpoints.txt", "lock"}  # nothing makes these again


def is_of_a_run(file: Path) -> bool:
    """Whether a run needs the file, which nothing else may overwrite."""
    return file.name in _KEPT and file.exists() and (file.parent / "config.json").exists()


@contextlib.contextmanager
def open_workdir(
    workdir: Path, config: Config, kind: Run, sandbox: str = "", processes: Processes | None = None
) -> Iterator[None]:
    """Creates the folder, or opens that of the same run to resume it, and locks it against other runs.

    Writes config.json and environment.json (versions, hardware, command line, sandbox engine if any, checksums of own
    code). A resumed run may change some keys, and versions, hardware and code; what has changed is a line of
    changes.jsonl. A run that ended before its first step (the model could not be loaded, memory did not suffice) is
    replaced. The first of several processes does all this, and the others check that they see the folder.

    Raises:
      ConfigError: the folder belongs to a run with another config, whose keys are named, or a process does not see it.
      RunError: another run uses it.
      OSError: it can't be written; the message names it.
    """
    processes = processes or Processes()
    with _opened(workdir, config, kind, sandbox) if processes.index == 0 else contextlib.nullcontext():
        check_shared(workdir, processes)
        yield


def make_folder(workdir: Path) -> None:
    """Makes the folder of a run or sweep, unless it is there.

    Raises:
      ConfigError: it, or a folder above it, is a file. OSError: it can't be made; says what to do.
    """
    if place := next((x for x in (workdir, *workdir.parents) if x.exists() and not x.is_dir()), None):
        raise ConfigError(f"--workdir={workdir}: {place} is a file; name a folder")
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.unwritable(error, workdir) from error


@contextlib.contextmanager
def _opened(workdir: Path, config: Config, kind: Run, sandbox: str) -> Iterator[None]:
    record = {"run": kind} | to_dict(config)
    path = workdir / "config.json"
    if path.exists():
        _read(path)  # a damaged one is not touched
    make_folder(workdir)
    with locked(workdir):
        if path.exists():
            _continue(workdir, record, config, kind)
        code = own_code.checksums(config, own_code.OF_RL if kind == "rl" else own_code.OF_TASKS)
        found = {"sandbox": sandbox, "code": code}
        environment = _environment() | {key: value for key, value in found.items() if value}
        if path.exists():
            _note_changes(workdir, environment)
        files.replace(workdir / "environment.json", json.dumps(environment, indent=1).encode())
        if not path.exists():
            if config.training.checkpoints and kind == "rl":
                checkpoints.keep_elsewhere(workdir, config.training.checkpoints)
            files.replace(path, json.dumps(record, indent=1).encode())
        yield


def _continue(workdir: Path, record: dict[str, Any], config: Config, kind: Run) -> None:
    """Resumes the run of a workdir with this config, or removes it if it made no step; or raises ConfigError."""
    path = workdir / "config.json"
    old = _read(path)
    different = differences({"run": old.get("run")} | to_dict(_config(path, old)), record)
    if not different:
        return
    done = max(checkpoints.complete_steps(workdir), default=0)
    if done == 0 and not _has_rows_after_step_0(workdir):
        _note(f"the run that {workdir} held ended before its first step; this one takes its place")
        checkpoints.remove(workdir)
        for name in _OF_A_RUN:
            target = workdir / name
            shutil.rmtree(target) if target.is_dir() else target.unlink(missing_ok=True)
        path.unlink()
        return
    keys = {line: line.partition(":")[0] for line in different}
    allowed = (*_FREE, *_UNUSED[kind], *_ROUNDING, *_JUDGING, _STEPS[kind])
    refused = [line for line, key in keys.items() if not _among(key, allowed)]
    if old.get("run") != kind:
        refused = [f"run: {old.get('run')} -> {kind}, another kind"]
    elif {*old.get("tasks", {})} != {*config.tasks}:
        names = f"tasks: {', '.join(old.get('tasks', {}))} -> {', '.join(config.tasks)}"
        refused = [names, *(line for line in refused if not line.startswith("tasks."))]
    if refused:
        raise ConfigError(
            f"{workdir} holds a run with another config: {'; '.join(refused)}. "
            "Use the same config to continue that run, or another --workdir for a new run, which may begin with that "
            f"run's policy: --config.init_from={workdir}"
        )
    num_steps = flatten(record)[_STEPS[kind]]
    if num_steps < done:
        raise ConfigError(f"config.{_STEPS[kind]} = {num_steps}, but the run in {workdir} has made {done} already")
    for note in _consequences(sorted(keys.values()), _config(path, old), config, kind, done):
        _note(note)
    jsonl.append(workdir / "changes.jsonl", [{"step": done, "changes": different}])
    files.replace(path, json.dumps(record, indent=1).encode())


def _note_changes(workdir: Path, environment: Mapping[str, Any]) -> None:
    """Says which versions, hardware and code have changed since the last steps of a run, and keeps it."""
    path, done = workdir / "environment.json", max(checkpoints.complete_steps(workdir), default=0)
    if done == 0 or not path.exists():
        return
    try:
        kept = _read(path)
    except ConfigError:  # no run needs it, and it is written anew
        return
    before = {key: kept[key] for key in environment if key in kept and key not in ("command", "code")}
    different = differences(before, {key: environment[key] for key in before})
    code = own_code.changed(own_code.recorded(path), environment.get("code", {}))
    if keys := [*code, *(line.partition(": ")[0] for line in different)]:
        _note(
            f"{', '.join(keys)} changed: after step {done} the results may not be those of a run that was not changed"
        )
        row = {"step": done, "changes": [*(f"{file} was edited" for file in code), *different]}
        jsonl.append(workdir / "changes.jsonl", [row | ({"code": code} if code else {})])


def _consequences(changed: Sequence[str], before: Config, config: Config, kind: Run, done: int) -> Iterator[str]:
    """The effects of changed keys on later steps, if any."""
    used = [key for key in changed if not _among(key, _UNUSED[kind])]
    rounding = [key for key in used if _among(key, _ROUNDING)]
    if rounding:
        yield (
            f"{', '.join(rounding)} changed: after step {done} sums are rounded otherwise, so the bits differ from "
            "those of a run that was not changed"
        )
    judging = [key for key in used if _among(key, _JUDGING)]
    if judging:
        yield f"{', '.join(judging)} changed: after step {done} some answers may be judged otherwise"
    name = "optimizer" if kind == "rl" else f"{kind}.optimizer"
    optimizer = config.optimizer if kind == "rl" else supervised_options(config, kind).optimizer
    if _STEPS[kind] in used and optimizer.decay != "constant":
        yield (
            f"config.{name}.decay = {optimizer.decay!r} spans config.{_STEPS[kind]}, which changed: up to step {done} "
            "the learning rate was that of the old number, from there on it is that of the new one"
        )
    if kind == "rl" and before.training.num_steps < min(done + config.training.max_lag, config.training.num_steps):
        yield (
            f"config.training.max_lag = {config.training.max_lag}: no samples were made ahead for the steps after "
            f"{before.training.num_steps}, so the next ones train on newer samples than those of a run that was not "
            "changed"
        )


def _among(key: str, names: Sequence[str]) -> bool:
    return any(fnmatchcase(key, f"{name}*" if name.endswith(".") else name) for name in names)


def _has_rows_after_step_0(workdir: Path) -> bool:
    path = workdir / "metrics.jsonl"
    try:
        return path.exists() and any(row.get("step") != 0 for row in jsonl.read(path))
    except ValueError:  # damaged, but must not be deleted
        return True


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr)


def read_config(workdir: Path) -> Config:
    """The config that a run was started with.

    Raises:
      ConfigError: the folder is not the workdir of a run, or its config.json is damaged.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise ConfigError(f"{workdir} is not the workdir of a run: it has no config.json")
    return read_record(path)


def read_record(path: Path) -> Config:
    """The config in a run's config.json, or a copy of it; raises ConfigError if it is missing or damaged."""
    if not path.is_file():
        raise ConfigError(f"there is no file {path.absolute()}")
    return _config(path, _read(path))


def kind_of(workdir: Path) -> Run:
    """The kind of the run in a workdir; raises ConfigError as `read_config`."""
    read_config(workdir)
    return _read(workdir / "config.json").get("run", "rl")


def holds_reward_model(workdir: Path) -> bool:
    """True if the run in a workdir trains a reward model; raises ConfigError as `read_config`."""
    loss = read_config(workdir).preferences.loss
    return kind_of(workdir) == "preferences" and LOSSES[loss].network == "reward"


def _config(path: Path, record: dict[str, Any]) -> Config:
    """The config of a workdir; keys that are missing in earlier versions have their defaults."""
    try:
        return from_dict({key: value for key, value in record.items() if key != "run"})
    except ConfigError as error:
        raise ConfigError(f"{path} was edited, or is of another version: {error}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise ValueError(f"it holds a {type(record).__name__}")
        return record
    except ValueError as error:
        raise ConfigError(f"{path} is damaged ({error}); restore it, or use another folder") from error


def _command() -> str:
    """The command that was given, for a shell: `rlvr train ...`, or `python -m experiments.train ...`."""
    program, spec = sys.argv[0], sys.modules["__main__"].__spec__
    if spec is not None and program.endswith(".py"):  # `python -m` puts the module's file there
        program = f"python -m {spec.name.removesuffix('.__main__')}"
    return f"{program} {shlex.join(sys.argv[1:])}".strip()


def _environment() -> dict[str, str]:
    packages = ("rlvr_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "transformers", "numpy")
    devices = jax.devices()
    return {
        "command": _command(),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores, {platform.system()} {platform.release()}",
    }
