"""Versions of what a run reads and does not train: a resumed run goes on with what it began with.

A teacher, a reward model or a judge may be the workdir of another run, which trains on, or files that change, as those
of problems, chats and pairs may. A version is the step of a run's checkpoint, or a checksum of files; those of a run
are in its workdir.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlvr_jax import named
from rlvr_jax.config import supervised_options
from rlvr_jax.errors import CheckpointError, ConfigError
from rlvr_jax.hf.source import find_checkpoint
from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.reporting import files
from rlvr_jax.tasks import table
from rlvr_jax.training import checkpoints
from rlvr_jax.training.setup import Setup
from rlvr_jax.training.workdir import HELDOUT, VERSIONS
from rlvr_jax.verifiers.judge import KIND, POLICY

_STEP = "step "
_SUFFIXES = (".json", ".safetensors", ".jinja", ".model")  # of a checkpoint's files
_READ = 1 << 16  # bytes at both ends of a file that count, beside its size: updates change all weights


def version_of(source: str) -> str:
    """The version of a workdir's newest checkpoint, of a checkpoint's folder or hub id, or of a file; "" of none."""
    path = Path(source).expanduser()
    if not source:
        return ""
    try:
        if any((path / name).exists() for name in ("checkpoints", "checkpoints.txt")):
            steps = checkpoints.complete_steps(path)
            return f"{_STEP}{steps[-1]}" if steps else ""
        folder = path if path.is_file() and path.suffix != ".gguf" else find_checkpoint(source)
        return _checksum(folder)
    except (CheckpointError, OSError):  # said where the network is loaded
        return ""


def step_of(version: str) -> int | None:
    """The step of a version that is one; None for files, and for the newest."""
    return int(version.removeprefix(_STEP)) if version.startswith(_STEP) else None


def reads_teacher(algorithm: AlgorithmConfig) -> bool:
    """True if the algorithm compares the policy with a teacher."""
    return algorithm.reference == "teacher" or algorithm.loss == "distillation"


def asked(setup: Setup) -> dict[str, str]:
    """The policies that environments ask, by the keys of the config that name them.

    Of a setup without problems those that the options of `subcalls` name.
    """
    policies = {label: source.env.asked for label, source in setup.sources.items()}
    if not setup.sources:
        tasks = setup.config.tasks.items()
        policies = {label: _named(task.environment, task.environment_options) for label, task in tasks}
    return {f"config.tasks.{label}.environment": policy for label, policy in policies.items() if policy}


def _named(environment: str, options: Mapping[str, Any]) -> str:
    """The policy that an environment or one within it asks by its options."""
    own = options.get("policy", "") if environment == "subcalls" else ""
    within = options.get("environment", "")
    return own or (_named(within, options.get("environment_options") or {}) if within else "")


def local_judges(setup: Setup) -> dict[str, str]:
    """The judges of a run that are asked in this process: the checkpoint of each, or file of its function, by name."""
    config = setup.config
    tasks = [source.task for source in setup.sources.values()] or config.tasks.values()
    decides = any(task.verifier == KIND for task in tasks)
    used = {name: judge for name, judge in config.judges.items() if decides or name in dict(config.reward)}
    return {
        name: source_of_judge(judge.model, config.init_from or config.pretrained)
        for name, judge in used.items()
        if not (judge.endpoint or judge.replay)
    }


def with_versions(setup: Setup, workdir: Path) -> Setup:
    """The setup of a run with the versions of its frozen networks and of its data: those that the workdir names, or
    today's.

    Data may change until the first step is saved.

    Raises:
      ConfigError: the files of a network or of data have changed since the run began.
    """
    data = _data(setup)
    sources, versions, changed = _sources(setup) | data, {}, ""
    if setup.processes.index == 0:
        kept, begun = _read(workdir / VERSIONS), max(checkpoints.complete_steps(workdir), default=0) > 0
        for key, source in sources.items():
            before = kept.get(key, {})
            same = before.get("source") == source and (begun or key not in data)
            version = before["version"] if same else ""
            if step_of(version) is None and (now := (_of_data if key in data else version_of)(source)) != version:
                changed = f"{key}: {source} has changed since the run in {workdir} began" if version and now else ""
                version = version or now
            versions[key] = version
            if changed:
                break
    versions, changed = setup.processes.exchange([versions, changed])[0]
    if changed:
        raise ConfigError(f"{changed}: restore it, or start in another --workdir")
    return dataclasses.replace(setup, versions=versions)


def write_versions(setup: Setup, workdir: Path) -> None:
    """Keeps the versions of a run in its workdir, for when it is resumed."""
    if setup.processes.index == 0 and any(setup.versions.values()):
        sources = _sources(setup) | _data(setup)
        told = {key: {"source": sources[key], "version": x} for key, x in setup.versions.items() if x}
        files.replace(workdir / VERSIONS, json.dumps(told, indent=1).encode())


def source_of_judge(model: str, start: str = "") -> str:
    """The checkpoint of a judge in this process, or the file of its function.

    Args:
      model: of the judge.
      start: the policy that the run starts from, if the judge is in one.
    """
    if model == POLICY:
        return start
    return named.file_of(model) if named.is_name(model) else model


def _data(setup: Setup) -> dict[str, str]:
    """The files and folders of the problems, chats or pairs of a run by their keys."""
    config, run = setup.config, setup.run
    if run != "rl" and (rows := supervised_options(config, run).sources):
        return {f"config.{run}.sources.{name}.file": source.file for name, source in rows.items()}
    found = {}
    for name, task in config.tasks.items():
        found |= {f"config.tasks.{name}.file": task.file, f"config.tasks.{name}.heldout_file": task.heldout_file}
    return {key: file for key, file in found.items() if file}


def _of_data(file: str) -> str:
    """A checksum of all that is in a file of records, or in those of a folder."""
    path, digest = Path(file).expanduser(), hashlib.sha256()
    paths = sorted(x for found in table.splits_of(path).values() for x in found) if path.is_dir() else [path]
    for each in paths:
        with each.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return digest.hexdigest()


def _sources(setup: Setup) -> dict[str, str]:
    """The frozen networks of a run of reinforcement learning by their keys, and the statistics of reward models."""
    config, found = setup.config, {}
    if setup.run != "rl":
        return found
    if reads_teacher(config.algorithm):
        found["config.teacher"] = config.teacher
    found |= asked(setup)
    for name, source in config.reward_models.items():
        found[f"config.reward_models.{name}"] = source
        if (Path(source).expanduser() / HELDOUT).is_file():
            found[f"config.reward_models.{name}/{HELDOUT}"] = str(Path(source) / HELDOUT)
    return found | {f"config.judges.{name}": source for name, source in local_judges(setup).items()}


def _read(path: Path) -> Mapping[str, Mapping[str, str]]:
    if not path.exists():
        return {}
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return {key: {"source": str(x["source"]), "version": str(x["version"])} for key, x in told.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{path} is damaged ({error!r}); restore it or start in another --workdir") from error


def _checksum(source: Path) -> str:
    digest = hashlib.sha256()
    for file in [source] if source.is_file() else sorted(x for x in source.iterdir() if x.suffix in _SUFFIXES):
        size = file.stat().st_size
        digest.update(f"{file.name} {size}\n".encode(errors="surrogateescape"))
        with file.open("rb") as opened:
            digest.update(opened.read(_READ))
            opened.seek(max(0, size - _READ))
            digest.update(opened.read(_READ))
    return digest.hexdigest()
