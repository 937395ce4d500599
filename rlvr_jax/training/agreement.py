"""Checks of several processes before their run starts: do they have the same config, versions, folder and time?"""

import platform
import sys
import time
import uuid
from importlib.metadata import version
from pathlib import Path

from rlvr_jax.config import Config, differences, to_dict
from rlvr_jax.errors import ConfigError
from rlvr_jax.parallel import Processes
from rlvr_jax.reporting import files

_VERSIONS = ("rlvr_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "transformers", "numpy")
_CLOCK_SECONDS = 5.0  # more is noted
_SHARED_SECONDS = 30.0  # in which a network file system shows a new file to other hosts
_TOKEN = ".processes"  # file in the workdir


def check_agreement(config: Config, processes: Processes) -> None:
    """Raises ConfigError if the processes have other configs or versions; a difference of clocks is noted on stderr."""
    if processes.count == 1:
        return
    versions = {name: version(name) for name in _VERSIONS} | {"python": platform.python_version()}
    told = processes.exchange({"config": to_dict(config), "version": versions, "time": time.time()})
    first = {name: told[0][name] for name in ("config", "version")}
    for index, theirs in enumerate(told):
        different = differences(first, {name: theirs[name] for name in first})
        if different:
            raise ConfigError(
                f"{processes.name(index)} differs from {processes.name(0)}: {'; '.join(different)}. Start all "
                "processes with the same command and versions"
            )
    times = [theirs["time"] for theirs in told]
    if processes.index == 0 and max(times) - min(times) > _CLOCK_SECONDS:
        late, early = processes.name(times.index(max(times))), processes.name(times.index(min(times)))
        print(
            f"note: the clock of {late} is {max(times) - min(times):.0f} s ahead of that of {early}: times in their "
            "logs don't compare, and storage may refuse requests (synchronise them with NTP)",
            file=sys.stderr,
        )


def check_shared(workdir: Path, processes: Processes, patience: float = _SHARED_SECONDS) -> None:
    """Raises ConfigError, which names the processes, if some don't see what the first one writes to the workdir."""
    if processes.count == 1:
        return
    path, token = workdir / _TOKEN, uuid.uuid4().hex
    if processes.index == 0:
        files.replace(path, token.encode())
    token = processes.exchange(token)[0]
    deadline = time.monotonic() + patience
    while not (seen := _holds(path, token)) and time.monotonic() < deadline:
        time.sleep(0.05)
    blind = [processes.name(i) for i, sees in enumerate(processes.exchange(seen)) if not sees]
    if processes.index == 0:
        path.unlink()
    if blind:
        raise ConfigError(
            f"--workdir={workdir}: {', '.join(blind)} can't see what {processes.name(0)} writes there. All processes "
            "need one folder, on a network file system or a mounted bucket"
        )


def _holds(path: Path, token: str) -> bool:
    try:
        return path.read_text() == token
    except OSError:
        return False
