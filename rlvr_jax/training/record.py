"""The record of a run: rows of metrics and samples, its progress, TensorBoard, Weights & Biases."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped

from rlvr_jax.config import Config, to_dict
from rlvr_jax.errors import RunError
from rlvr_jax.learner.advantages import zero_signal_groups
from rlvr_jax.learner.rewards import Rewards
from rlvr_jax.reporting import jsonl, tensorboard
from rlvr_jax.reporting.progress import progress
from rlvr_jax.reporting.report import write_report
from rlvr_jax.reporting.weights_and_biases import weights_and_biases
from rlvr_jax.rollout.trajectory import Trajectory
from rlvr_jax.verifiers.verdict import Verdict

_log = logging.getLogger(__name__)

METRICS, SAMPLES = "metrics.jsonl", "samples.jsonl"

Sink = Callable[[Mapping[str, Any]], None]  # takes a row of metrics


@dataclass(frozen=True)
class Record:
    """The sinks of a run's rows: its two files always, and others."""

    workdir: Path
    sinks: tuple[Sink, ...]

    def write(self, row: Mapping[str, Any], samples: Sequence[Mapping[str, Any]] = ()) -> None:
        """Writes one step. Raises OSError, which names the file, if the disk is full."""
        jsonl.append(self.workdir / METRICS, [row])
        jsonl.append(self.workdir / SAMPLES, samples)
        for sink in self.sinks:
            sink(row)


@contextlib.contextmanager
def open_record(workdir: Path, config: Config, num_steps: int, done: int, description: str) -> Iterator[Record]:
    """Opens the files to go on after step `done`; what they hold of later steps is dropped, they are made again.

    Step 0 is the evaluation before the first update; a run that has no checkpoint after it makes it again, too. If the
    run ends by an error, a signal or an interrupt, its report is written nevertheless.

    Raises:
      RunError: a file is damaged; the message names it and the line. Or a sink of `config.reporting` can't be opened.
      OSError: a file can't be written.
    """
    last = done if done > 0 else -1
    try:
        jsonl.truncate_after(workdir / METRICS, last)
        jsonl.truncate_after(workdir / SAMPLES, last)
    except ValueError as error:
        raise RunError(str(error)) from error
    with contextlib.ExitStack() as stack:
        sinks = [stack.enter_context(_open_sink(name, workdir, config, last)) for name in config.reporting]
        sinks.append(stack.enter_context(progress(num_steps, done, description)))
        try:
            yield Record(workdir, tuple(sinks))
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to tell
                write_report(workdir)
            raise


def _open_sink(name: str, workdir: Path, config: Config, last: int) -> contextlib.AbstractContextManager[Sink]:
    if name == "wandb":
        return weights_and_biases(workdir, to_dict(config))
    return tensorboard.events(workdir, purge_step=last + 1)


class Clock:
    """Seconds since it was made, split into laps."""

    def __init__(self):
        self.start = self.last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        """Ends a lap, and adds it to earlier ones of its name."""
        now = time.perf_counter()
        self.laps[name], self.last = self.laps.get(name, 0.0) + now - self.last, now

    def total(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.start


def warn_unjudged(step: int, rewards: Rewards) -> None:
    """Says on the log how many samples of a step could not be judged, and why the first one could not, if any."""
    errors = [verdict.error for verdict in rewards.verdicts if verdict.error is not None]
    if errors:
        _log.warning(
            "step %d: %d of %d samples could not be judged and are left out; the first: %s",
            step, len(errors), len(rewards.verdicts), errors[0],
        )  # fmt: skip


def describe(
    trajectories: Sequence[Trajectory],
    rewards: Rewards,
    updates: Sequence[Mapping[str, Any]],
    laps: Mapping[str, float],
) -> dict[str, float | int]:
    """The metrics of a training step, but for its evaluation.

    Args:
      trajectories, rewards: of the step's samples.
      updates: what each update said of itself.
      laps: seconds of each phase.
    """
    tokens = sum(len(trajectory.tokens) for trajectory in trajectories)
    judged = rewards.judged.reshape(-1)
    groups = np.repeat(np.arange(len(rewards.values)), rewards.values.shape[1])
    of_verdicts = {
        "reward": rewards.values.reshape(-1),
        **{f"reward_{name}": term.reshape(-1) for name, term in rewards.terms.items()},
        "accuracy": np.array([verdict.score == 1 for verdict in rewards.verdicts]),
    }
    return {
        **_means("train", of_verdicts, judged),
        "train/response_length": tokens / len(trajectories),
        "train/truncated": float(np.mean([trajectory.finish_reason == "length" for trajectory in trajectories])),
        "train/zero_signal_groups": zero_signal_groups(of_verdicts["reward"], groups, judged),
        "verify/errors": int(np.sum(~judged)),
        **_by_task(trajectories, {name: of_verdicts[name] for name in ("reward", "accuracy")}, judged),
        **{name: float(np.mean([metrics[name] for metrics in updates])) for name in updates[0]},
        "train/logprob_gap": float(updates[0]["train/logprob_gap"]),  # the later ones follow an update
        "time/rollout_tokens_per_second": tokens / laps["time/rollout"],
        "time/train_tokens_per_second": tokens / laps["time/train"],
    }


def _means(
    group: str, values: Mapping[str, Shaped[np.ndarray, "samples"]], of: Bool[np.ndarray, "samples"]
) -> dict[str, float]:
    """The mean of each of the values over those samples; nothing where there are none."""
    return {
        f"{group}/{name}": float(np.mean(value[of], dtype=np.float64)) for name, value in values.items() if of.any()
    }


def _by_task(
    trajectories: Sequence[Trajectory],
    of_verdicts: Mapping[str, Shaped[np.ndarray, "samples"]],
    judged: Bool[np.ndarray, "samples"],
) -> dict[str, float]:
    """`task/<task>/*` of each task that has samples."""
    names = np.array([trajectory.example.task for trajectory in trajectories])
    lengths = {"response_length": np.array([len(trajectory.tokens) for trajectory in trajectories])}
    found = {}
    for task in sorted(set(names.tolist())):
        found |= _means(f"task/{task}", of_verdicts, (names == task) & judged)
        found |= _means(f"task/{task}", lengths, names == task)
    return found


def sample_rows(
    step: int,
    split: str,
    trajectories: Sequence[Trajectory],
    verdicts: Sequence[Verdict],
    rewards: Rewards | None = None,
) -> list[dict[str, Any]]:
    """Rows of samples.jsonl; its fields are described in docs/metrics.md."""
    values = [None] * len(trajectories)
    if rewards is not None:
        pairs = zip(rewards.values.flat, rewards.judged.flat, strict=True)
        values = [float(value) if judged else None for value, judged in pairs]
    return [
        {
            "step": step,
            "split": split,
            "example": trajectory.example.id,
            "task": trajectory.example.task,
            "prompt": trajectory.example.prompt,
            "completion": trajectory.text,
            "reference": trajectory.example.reference,
            "gold": trajectory.example.gold or None,
            "score": verdict.score,
            "reward": values[i],
            "answer": verdict.answer,
            "reason": verdict.reason,
            "error": verdict.error,
            "finish_reason": trajectory.finish_reason,
            "length": len(trajectory.tokens),
        }
        for i, (trajectory, verdict) in enumerate(zip(trajectories, verdicts, strict=True))
    ]


def report(workdir: Path) -> Path:
    """Writes the run's report; raises RunError, which names it, if a file that it is made from is damaged."""
    try:
        return write_report(workdir)
    except ValueError as error:
        raise RunError(str(error)) from error
