"""Makes the runs of a sweep in worker processes, one for each slot, which outlive their runs.

A run that fails, or takes its process with it, ends nothing but itself.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from rlvr_jax.config import to_dict
from rlvr_jax.errors import ConfigError, PreemptedError, RunError
from rlvr_jax.parallel.host import cpu_cores
from rlvr_jax.reporting.progress import bar
from rlvr_jax.sweeps.plan import LOG, OUTCOME, Run, Sweep, left, outcome, runs, write_outcome
from rlvr_jax.training import preemption

_SECONDS_BETWEEN_LINES = 60.0
_PATIENCE = 30.0  # seconds that a process has to end
_TAIL = 1 << 16  # bytes that hold the last row of metrics
_WORKER = "rlvr_jax.sweeps.worker"
_PROBE = "import jax, json; print(json.dumps([jax.default_backend(), jax.local_device_count()]))"


Show = Callable[[Sequence[Run], Run | None], None]  # the runs that are being made, and the one that has ended


@dataclass(frozen=True)
class Share:
    """A worker's part of the machine.

    Attributes:
      variables: of its environment.
      cores: of the CPU; empty for all.
    """

    variables: Mapping[str, str] = field(default_factory=dict)
    cores: tuple[int, ...] = ()


@dataclass
class Slot:
    """A worker process and what it does.

    Attributes:
      process: of `rlvr_jax.sweeps.worker`.
      share: its part of the machine.
      run: that it makes, None while it waits.
    """

    process: subprocess.Popen
    share: Share = field(default_factory=Share)
    run: Run | None = None


def check_runs(sweep: Sweep, todo: Sequence[Run]) -> None:
    """Tries the config of each variant, and of the first warm start, in a process of its own; nothing is compiled,
    and nothing is written.

    Raises:
      ConfigError: the first one that can't run, with its variant.
    """
    with tempfile.TemporaryDirectory() as folder:
        elsewhere = replace(sweep, folder=Path(folder))
        with _slots(elsewhere, [Share()]) as (slot,):
            _check(elsewhere, slot, todo)


def _check(sweep: Sweep, slot: Slot, todo: Sequence[Run]) -> None:
    for run in {run.variant: run for run in reversed(todo)}.values():
        _send(sweep, slot, run, "check")
        answer = _receive(slot)
        if answer is None:
            said = (sweep.folder / LOG).read_text(encoding="utf-8", errors="replace").splitlines()
            last = f": {said[-1]}" if said else ""
            raise RunError(f"the process that checks the runs {_ending(slot.process)}{last}")
        if answer["error"]:
            where = "" if run.variant < 0 else f" (with {sweep.variants[run.variant].label})"
            raise ConfigError(answer["error"] + where)


def make_runs(
    sweep: Sweep, at_once: int = 1, retry: bool = False, check: Callable[[Run], None] = lambda _: None
) -> None:
    """Makes all runs that are not finished; failed ones again only with `retry`. Before, their configs are checked.

    The lock of the folder must be held. Ctrl-C and SIGTERM let the current runs save their state.

    Args:
      sweep: whose runs.
      at_once: number of runs at a time, among which the machine's devices, or its CPU cores, are divided.
      retry: makes runs again that have failed.
      check: called with each finished run, earlier ones first; what it raises stops the others.

    Raises:
      ConfigError: a config can't run, or there are fewer devices than runs at a time; no run was started.
      PreemptedError: a signal arrived.
      RunError: other processes, such as those that a killed command left, still make some of the runs, which have no
        end then; the others are made.
      OSError: the folder can't be written.
    """
    every, waiting = runs(sweep), left(sweep, retry)
    for run in every:
        if (outcome(run) or {}).get("status") == "finished":
            check(run)
    if not waiting:
        return
    divided = shares(at_once)
    with preemption.watch() as signal_arrived, _slots(sweep, divided) as slots:
        _check(sweep, slots[0], waiting)
        for run in waiting:
            (run.folder / OUTCOME).unlink(missing_ok=True)
        with _progress(sweep, every) as show:
            stopping, in_use = _make(sweep, every, waiting, slots, signal_arrived, show, check)
    if stopping:
        done = sum((outcome(run) or {}).get("status") == "finished" for run in every)
        raise PreemptedError(stopping, f"the sweep with {done} of {len(every)} runs finished")
    if in_use:
        raise RunError(f"{len(in_use)} of {len(every)} runs are not made: {in_use[0]}")


def _make(
    sweep: Sweep,
    every: Sequence[Run],
    waiting: list[Run],
    slots: Sequence[Slot],
    signal_arrived: Callable[[], signal.Signals | None],
    show: Show,
    check: Callable[[Run], None],
) -> tuple[signal.Signals | None, list[str]]:
    """Makes the waiting runs; returns the signal that stopped it, if one did, and errors of runs in use elsewhere."""
    stopping, in_use = None, []
    while True:
        if not stopping and (stopping := signal_arrived()):
            for slot in slots:
                slot.process.send_signal(signal.SIGINT)
        for slot in slots:
            if not stopping and slot.run is None and (run := _next(waiting, every)):
                waiting.remove(run)
                slot.run = run
                _send(sweep, slot, run, run.kind)
        if not (busy := [slot for slot in slots if slot.run]):
            break
        for slot in _answering(busy):
            run, answer = slot.run, _receive(slot)
            answer = answer or {"status": "failed", "error": f"its process {_ending(slot.process)}"}
            slot.run = None
            if answer["status"] != "finished":
                _end(slot.process)
                slot.process = _start(sweep, slot.share)
            if answer["status"] == "in use":
                in_use.append(answer["error"])
                continue
            if answer["status"] == "stopped" or (stopping and answer["status"] == "failed"):
                continue
            write_outcome(run, **answer)
            for lost in _depending(run, waiting) if answer["status"] == "failed" else ():
                waiting.remove(lost)
                write_outcome(lost, status="failed", error=f"its warm start failed, see {run.folder / LOG}")
            show([slot.run for slot in slots if slot.run], run)
            if answer["status"] == "finished":
                check(run)
        show([slot.run for slot in slots if slot.run], None)
    return stopping, in_use


def _answering(slots: Sequence[Slot], seconds: float = 0.5) -> list[Slot]:
    """The slots whose processes have said something or ended, after a wait."""
    with selectors.DefaultSelector() as selector:
        for slot in slots:
            selector.register(slot.process.stdout, selectors.EVENT_READ, slot)
        return [key.data for key, _ in selector.select(seconds)]


def _next(waiting: Sequence[Run], every: Sequence[Run]) -> Run | None:
    """The first run whose warm start is finished."""
    unfinished = {run.folder for run in every if run.kind == "sft" and outcome(run) is None}
    return next((run for run in waiting if run.needs not in unfinished), None)


def _depending(run: Run, waiting: Sequence[Run]) -> list[Run]:
    return [other for other in waiting if other.needs == run.folder]


def _send(sweep: Sweep, slot: Slot, run: Run, job: str) -> None:
    log = sweep.folder / LOG if job == "check" else run.folder / LOG
    line = {"job": job, "run": run.kind, "config": to_dict(run.config), "argv": sys.argv}
    line |= {"folder": str(run.folder), "needs": run.needs is not None, "log": str(log)}
    with contextlib.suppress(BrokenPipeError):  # it has died, which its closed stdout says
        slot.process.stdin.write(json.dumps(line).encode() + b"\n")
        slot.process.stdin.flush()


def _receive(slot: Slot) -> dict[str, Any] | None:
    """The end of a job, None if the process ended instead."""
    line = slot.process.stdout.readline()
    return json.loads(line) if line else None


def _ending(process: subprocess.Popen) -> str:
    code = process.wait()
    if code >= 0:
        return f"ended with exit status {code}"
    hint = " (out of memory?)" if code == -signal.SIGKILL else ""
    return f"was ended by {signal.Signals(-code).name}{hint}"


@contextlib.contextmanager
def _slots(sweep: Sweep, shares: Sequence[Share]) -> Iterator[list[Slot]]:
    """Worker processes with these shares of the machine; at the end they are closed, or killed after an error."""
    sweep.folder.mkdir(parents=True, exist_ok=True)
    slots = [Slot(_start(sweep, share), share) for share in shares]
    try:
        yield slots
    except BaseException:
        for slot in slots:
            slot.process.kill()
        raise
    finally:
        for slot in slots:
            _end(slot.process)


def _start(sweep: Sweep, share: Share) -> subprocess.Popen:
    """A worker process, with a compilation cache that all share, and in a session that the terminal's Ctrl-C spares."""
    environment = {
        # What is compiled for one number of cores is not what is compiled for another.
        "JAX_COMPILATION_CACHE_DIR": str(sweep.folder / "compiled" / str(len(share.cores))),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        **os.environ,
        **share.variables,
        "PYTHONPATH": os.pathsep.join(path or str(Path.cwd()) for path in sys.path),
    }
    with (sweep.folder / LOG).open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", _WORKER, *map(str, share.cores)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=environment,
            start_new_session=True,
        )


def _end(process: subprocess.Popen) -> None:
    """Lets a process end, for a while."""
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


def shares(at_once: int) -> list[Share]:
    """Equal parts of the devices or CPU cores. Raises ConfigError if there are fewer of them than runs at a time."""
    if at_once < 1:
        raise ConfigError(f"--at_once must be 1 or more, not {at_once}")
    if at_once == 1:
        return [Share()]
    probe = subprocess.run([sys.executable, "-c", _PROBE], capture_output=True, text=True, check=False)
    if probe.returncode:
        raise RunError(f"JAX finds no devices: {(probe.stderr.strip().splitlines() or ['no reason given'])[-1]}")
    platform, number = json.loads(probe.stdout.splitlines()[-1])
    if platform not in ("cpu", "gpu"):
        raise ConfigError(f"--at_once = {at_once} divides GPUs or CPU cores, and this machine has {platform}s; set 1")
    if platform == "gpu":
        places = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(number)))).split(",")
    else:
        places = cpu_cores()
    each = len(places) // at_once
    if not each:
        what = "GPUs" if platform == "gpu" else "CPU cores"
        raise ConfigError(f"--at_once = {at_once} is more than this machine's {len(places)} {what}")
    parts = [places[i * each : (i + 1) * each] for i in range(at_once)]
    if platform == "gpu":
        return [Share({"CUDA_VISIBLE_DEVICES": ",".join(part)}) for part in parts]
    return [Share(cores=tuple(part)) for part in parts]


@contextlib.contextmanager
def _progress(sweep: Sweep, every: Sequence[Run]) -> Iterator[Show]:
    """A function that shows the progress, from the runs that are being made and the one that ended, if any.

    On a terminal there is a bar over the runs of reinforcement learning; elsewhere there are lines, when a run ends and
    at most once a minute in between.
    """
    trained = [run for run in every if run.kind == "rl"]
    count = lambda: sum(outcome(run) is not None for run in trained)  # noqa: E731
    ended, initial, start, printed = count(), count(), time.monotonic(), time.monotonic()
    print(f"sweep: {len(sweep.variants)} variants x {len(sweep.seeds)} seeds, {initial}/{len(trained)} runs made",
          file=sys.stderr, flush=True)  # fmt: skip
    with bar(len(trained), initial, "sweep", "run") as opened:

        def show(active: Sequence[Run], run: Run | None) -> None:
            nonlocal ended, printed
            ended = count() if run else ended
            made = ended + sum(_share_done(run) for run in active if run.kind == "rl")
            elapsed = time.monotonic() - start
            rest = elapsed / (made - initial) * (len(trained) - made) if made > initial else None
            if not opened.disable:
                opened.n = round(max(made, opened.n), 2)
                opened.refresh()
            due = opened.disable and time.monotonic() - printed > _SECONDS_BETWEEN_LINES
            if run or due:
                printed = time.monotonic()
                known = [
                    f"sweep {made:.1f}/{len(trained)} runs" if due and not run else f"sweep {ended}/{len(trained)}"
                ]
                known += [_said(sweep, run)] if run else []
                known += [f"{tqdm.format_interval(elapsed)} elapsed"]
                known += [f"{tqdm.format_interval(rest)} left"] if rest else []
                tqdm.write(", ".join(known), file=sys.stderr)
                sys.stderr.flush()

        yield show


def _said(sweep: Sweep, run: Run) -> str:
    """One line on the end of a run."""
    found = outcome(run) or {}
    what = f"{sweep.variants[run.variant].label}, seed {run.config.seed}" if run.kind == "rl" else run.folder.name
    what = what if run.kind == "rl" else f"warm start {what}"
    if found.get("status") == "failed":
        return f"{what}: FAILED: {found['error']}"
    return f"{what}: {found.get('seconds', 0.0):.0f} s"


def _share_done(run: Run) -> float:
    """Share of the steps that a run has made so far, from the last whole line of its metrics."""
    try:
        with (run.folder / "metrics.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            *lines, _ = file.read().split(b"\n")
        return json.loads(lines[-1])["step"] / run.num_steps
    except (OSError, ValueError, IndexError, KeyError):
        return 0.0
