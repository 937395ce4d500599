"""Real runs of the commands, in processes of their own, as small as runs can be."""

import atexit
import json
import multiprocessing
import os
import re
import runpy
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import jax
import orbax.checkpoint as ocp

from rlvr_jax.parallel import lifeline
from rlvr_jax.reporting import jsonl
from rlvr_jax.sweeps import workers
from tests.processes import children, is_alive

ROOT = Path(__file__).parents[2]
PATIENT = 900.0  # seconds after which a process hangs, and is not only slow on a busy machine
_MIN_COMPILE_TIME = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"
STEPS, EVALUATED, IMITATED = 24, 8, 12  # steps of a run, those between evaluations, and steps of a warm start
_POLICY = {
    "policy.num_layers": 1,
    "policy.width": 16,
    "policy.num_heads": 2,
    "policy.num_kv_heads": 1,
    "policy.head_dim": 8,
    "policy.mlp_width": 16,
}
# The reward is the length of the response, which a random policy can change from the first step on.
TINY = {
    "tasks.modsum.options.digits": 3,
    **_POLICY,
    "policy.max_length": 12,
    "rollout.prompts": 4,
    "rollout.group_size": 4,
    "rollout.max_prompt_length": 4,
    "rollout.max_response_length": 6,
    "reward": "(('length',1.0),('score',1.0))",
    "algorithm.kl_coef": 0.01,
    "algorithm.reference": "initial",
    "optimizer.learning_rate": 1e-2,
    "training.num_steps": STEPS,
    "training.save_every": 4,
    "evaluation.every": EVALUATED,
    "evaluation.problems": 8,
    "evaluation.pass_problems": 4,
    "evaluation.pass_samples": 4,
    "evaluation.ks": "(1,4)",
    "evaluation.shown": 2,
    "sft.num_steps": IMITATED,
    "sft.batch_size": 8,
    "sft.updates_per_call": 2,
    "sft.save_every": 6,
    "verifier.workers": 1,
    "verifier.timeout": 100.0,  # a busy machine is no verifier that hangs
}


def command(name: str, workdir: Path | None, /, **changes) -> list[str]:
    """The command line; `__` in a keyword stands for a dot."""
    config = TINY | {key.replace("__", "."): value for key, value in changes.items()}
    line = [sys.executable, "-m", f"experiments.{name}", f"--config={ROOT}/configs/quickstart.py"]
    line += [f"--config.{key}={value}" for key, value in config.items()]
    return line + ([] if workdir is None else [f"--workdir={workdir}"])


def with_devices(number: int) -> dict[str, str]:
    """The environment of a process that has so many devices, and the commands of this interpreter's environment."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={number}"  # the last one counts
    return os.environ | {"XLA_FLAGS": flags, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


# The size of the runs of pages, which so share what is compiled. Their tasks have at most 24 characters.
SMALL = {
    "policy.vocab_size": 24,
    **_POLICY,
    "policy.max_length": 32,
    "rollout.prompts": 4,
    "rollout.group_size": 2,
    "rollout.batch_size": 4,
    "rollout.max_prompt_length": 8,
    "rollout.max_response_length": 15,
    "optimizer.learning_rate": 1e-3,
    "evaluation.problems": 4,
    "evaluation.pass_problems": 0,
    "verifier.workers": 0,
    **{f"sft.{key}": 20 for key in ("num_steps", "updates_per_call", "save_every")},
    "sft.batch_size": 8,
    **{f"preferences.{key}": 2 for key in ("num_steps", "updates_per_call", "save_every")},
    "preferences.batch_size": 8,
    **{f"training.{key}": 2 for key in ("num_steps", "save_every")},
}
# The same for environments, where an observation of the grid world is the longest.
TURNS = SMALL | {"policy.max_length": 98, "rollout.max_prompt_length": 10, "rollout.max_response_length": 88}


def overrides(changes: Mapping[str, object]) -> str:
    """The flags of such changes of a config, for a shell."""
    return " ".join(f"--config.{shlex.quote(f'{key}={value}')}" for key, value in changes.items())


# What stands in a page for the number of steps of a training, so that its other flags still count.
SHORT = f"num_steps=2 {overrides(SMALL)}"


_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.experiments.preloaded"])


class Forked:
    """A command of this repository in a process of its own: what is used here of `subprocess.Popen`."""

    def __init__(self, module: str, arguments: list[str], cwd: Path, environment: dict[str, str]):
        self._output = tempfile.NamedTemporaryFile("r"), tempfile.NamedTemporaryFile("r")  # noqa: SIM115
        files = [os.devnull, *(file.name for file in self._output)]
        command = module, arguments, cwd, environment, files, [str(cwd)]
        self._process = _FORKS.Process(target=become, args=command, daemon=True)
        self._process.start()
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: signal.Signals) -> None:
        if self.returncode is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def communicate(self, timeout: float) -> tuple[str, str]:
        """Stdout and stderr, once it has ended."""
        self._process.join(timeout)
        assert self.returncode is not None, "the command hangs"
        return tuple(file.read() for file in self._output)


def become(*command) -> None:
    """Does what `run_module` does, in a process that was forked for it and ends with it."""
    try:
        run_module(*command)
    finally:
        leave()


def run_module(
    module: str, arguments: list[str], cwd: Path, environment: dict[str, str], files: list[str], path: list[str]
) -> None:
    """Runs a module as a program, with these files as stdin, stdout and stderr and folders before its `sys.path`."""
    take_files(files)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    sys.path[:0] = path
    sys.argv = [module, *arguments]
    # JAX has been imported, so it has read its variables.
    jax.config.update(_MIN_COMPILE_TIME.lower(), float(environment[_MIN_COMPILE_TIME]))
    if patience := environment.get("RUN_PATIENCE"):
        lifeline.PATIENCE = float(patience)
    workers._WORKER = environment.get("RUN_WORKER", workers._WORKER)
    if (rows := int(environment.get("RUN_PAUSES", 0))) > 0:
        _pause_after(rows, Path(environment["RUN_GOES_ON"]))
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def take_files(names: list[str]) -> None:
    """Has these files as stdin, stdout and stderr from now on."""
    for descriptor, (name, mode) in enumerate(zip(names, ("rb", "ab", "ab"), strict=True)):
        with Path(name).open(mode) as file:
            os.dup2(file.fileno(), descriptor)


def leave() -> None:
    """What an interpreter does at its end."""
    threading._shutdown()
    atexit._run_exitfuncs()


def _pause_after(rows: int, go: Path) -> None:
    """The command waits for a file to be there once it has written so many rows of metrics."""
    append = jsonl.append

    def pausing(path: Path, new: Iterable[dict]) -> None:
        append(path, new)
        while path.name == "metrics.jsonl" and lines_of(path) == rows and not go.exists():
            time.sleep(0.004)

    jsonl.append = pausing


def start(
    line: list[str], devices: int = 1, doomed: bool = False, cwd: Path = ROOT, **variables: str
) -> subprocess.Popen | Forked:
    """The command as a process, by default from the root of the repository, with further environment variables.

    One that is `doomed` only reads the compilation cache: JAX would leave the entry that it is writing torn.
    """
    environment = with_devices(devices) | variables
    if doomed:
        environment[_MIN_COMPILE_TIME] = "1e9"
    if line[:2] == [sys.executable, "-m"]:
        return Forked(line[2], line[3:], cwd, environment)
    pipe = subprocess.PIPE
    return subprocess.Popen(line, cwd=cwd, env=environment, stdout=pipe, stderr=pipe, text=True)


def finish(process: subprocess.Popen | Forked) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of the process."""
    stdout, stderr = process.communicate(timeout=PATIENT)
    return process.returncode, stdout, stderr


def run(line: list[str], devices: int = 1, doomed: bool = False, cwd: Path = ROOT) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of the command."""
    return finish(start(line, devices, doomed, cwd))


def complete(line: list[str], cwd: Path = ROOT) -> None:
    """Runs the command, which must succeed."""
    status, _, stderr = run(line, cwd=cwd)
    assert status == 0, stderr


def error_of(outcome: tuple[int, str, str], status: int) -> str:
    """The message of a command that had to fail with this status and with nothing but one line that names an error."""
    assert outcome[0] == status, outcome
    assert outcome[1] == "", outcome
    lines = complaints(outcome[2]).splitlines()
    assert len(lines) == 1, outcome[2]
    assert lines[0].startswith("error: ")
    return lines[0]


def complaints(stderr: str) -> str:
    """The output of a command on stderr, without the lines on its memory and its progress."""
    begins = r"memory per device|estimated peak memory|the policy starts |resumed from "
    begins += r"|(training|sft|preferences) \d+/\d+[,:] "
    return re.sub(rf"(?m)^({begins}).*\n", "", stderr)


def interrupt(
    line: list[str], when: Callable[[], bool], number: signal.Signals, paused: int = 0
) -> tuple[int, str, str]:
    """Sends a signal to the command as soon as `when()`; afterwards none of its verifier processes is left.

    A command that is `paused` waits for it once it has written so many rows of metrics.
    """
    with tempfile.TemporaryDirectory() as folder:
        process = start(line, doomed=True, RUN_PAUSES=str(paused), RUN_GOES_ON=f"{folder}/go")
        wait_until(lambda: process.poll() is not None or when())
        workers = children(process.pid)
        process.send_signal(number)
        Path(folder, "go").touch()
        outcome = finish(process)
    wait_until(lambda: not any(map(is_alive, workers)))
    return outcome


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENT
    while not condition():
        assert time.monotonic() < deadline, "what a test waits for did not happen"
        time.sleep(0.004)


def lines_of(path: Path) -> int:
    """Whole lines of a file that may not be there yet."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def metrics(workdir: Path) -> list[dict]:
    """The rows of metrics.jsonl without what depends on the clock."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if not key.startswith("time/")} for row in rows]


def saved_steps(workdir: Path) -> list[int]:
    """Steps with a whole checkpoint; a killed process leaves one that is half written, under another name."""
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdecimal())


def saved(workdir: Path, step: int) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Type, shape and bits of every array of a checkpoint."""
    arrays = {}
    for item in ("params", "rest"):
        with ocp.StandardCheckpointer() as reader:
            tree = reader.restore((workdir / "checkpoints" / str(step) / item).absolute())
        for name, array in flat(tree, item):
            arrays[name] = (str(array.dtype), array.shape, array.tobytes())
    return arrays


def flat(tree, name: str) -> list[tuple[str, object]]:
    if hasattr(tree, "dtype"):
        import numpy as np

        return [(name, np.asarray(tree))]
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree or ())
    return [leaf for key, value in pairs for leaf in flat(value, f"{name}/{key}")]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, with what it holds."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
