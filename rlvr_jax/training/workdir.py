"""The folder of a run: what may be started in it, and what says where its results came from."""

import json
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import jax

from rlvr_jax.config import Config, differences, from_dict, to_dict
from rlvr_jax.errors import ConfigError
from rlvr_jax.reporting import files

Kind = Literal["sft", "rl"]


def open_workdir(workdir: Path, config: Config, kind: Kind, sandbox: str = "") -> None:
    """Makes the folder, or finds that of the same run to continue.

    Writes config.json and environment.json (versions, hardware, command line, the sandbox engine if there is one).

    Raises:
      ConfigError: the folder belongs to a run with another config; the message names the keys that differ.
      OSError: it can't be written; the message names it.
    """
    record = {"run": kind} | to_dict(config)
    path = workdir / "config.json"
    if path.exists():
        different = differences(_read(path), record)
        if different:
            raise ConfigError(
                f"{workdir} holds a run with another config: {'; '.join(different)}. "
                "Use another --workdir, or the same config to continue that run"
            )
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise files.unwritable(error, workdir) from error
    files.replace(
        workdir / "environment.json",
        json.dumps(_environment() | ({"sandbox": sandbox} if sandbox else {}), indent=1).encode(),
    )
    if not path.exists():
        files.replace(path, json.dumps(record, indent=1).encode())


def read_config(workdir: Path) -> Config:
    """The config that a run was started with.

    Raises:
      ConfigError: the folder is not the workdir of a run, or its config.json is damaged.
    """
    path = workdir / "config.json"
    if not path.exists():
        raise ConfigError(f"{workdir} is not the workdir of a run: it has no config.json")
    record = _read(path)
    record.pop("run", None)
    return from_dict(record)


def _read(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise ValueError(f"it holds a {type(record).__name__}")
        return record
    except ValueError as error:
        raise ConfigError(f"{path} is damaged ({error}); restore it or start in another --workdir") from error


def _environment() -> dict[str, str]:
    packages = ("rlvr_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "transformers", "numpy")
    devices = jax.devices()
    return {
        "command": " ".join(sys.argv),
        "python": platform.python_version(),
        **{name: version(name) for name in packages},
        "devices": f"{len(devices)} x {devices[0].device_kind}",
        "machine": f"{platform.machine()}, {os.cpu_count()} CPU cores, {platform.system()} {platform.release()}",
    }
