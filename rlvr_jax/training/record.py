"""The record of a run: rows of metrics and samples, its progress, TensorBoard, Weights & Biases."""

import contextlib
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from rlvr_jax.config import Config, to_dict
from rlvr_jax.envs import CallRecord
from rlvr_jax.errors import RunError
from rlvr_jax.learner.rewards import Rewards
from rlvr_jax.parallel import Processes
from rlvr_jax.reporting import jsonl, tensorboard
from rlvr_jax.reporting.progress import progress
from rlvr_jax.reporting.report import REPORT, write_report
from rlvr_jax.reporting.weights_and_biases import weights_and_biases
from rlvr_jax.rollout.episode import TRAINED, Episode, Group, flattened
from rlvr_jax.rollout.requests import RolloutStats
from rlvr_jax.text.tokenizers import decode
from rlvr_jax.verifiers.verdict import Verdict

_log = logging.getLogger(__name__)

METRICS, SAMPLES = "metrics.jsonl", "samples.jsonl"
_BY_SIGN = ("train/entropy_positive", "train/entropy_negative")  # of actions by the sign of their advantage
_OF_FIRST = (
    "train/logprob_gap",
    "train/logprob_gap_mean",
    "train/logprob_correlation",
    "train/probability_gap",
)  # of a step's updates

Sink = Callable[[Mapping[str, Any]], None]  # takes a row of metrics


@dataclass(frozen=True)
class Record:
    """The sinks of a run's rows: its two files and the writers of the config; none but in the first process."""

    workdir: Path | None
    sinks: tuple[Sink, ...] = ()

    def write(self, row: Mapping[str, Any], samples: Sequence[Mapping[str, Any]] = ()) -> None:
        """Writes one step. Raises OSError, which names the file, if the disk is full."""
        if self.workdir is None:
            return
        jsonl.append(self.workdir / METRICS, [row])
        jsonl.append(self.workdir / SAMPLES, samples)
        for sink in self.sinks:
            sink(row)


@contextlib.contextmanager
def open_record(
    workdir: Path, config: Config, num_steps: int, done: int, description: str, processes: Processes | None = None
) -> Iterator[Record]:
    """Opens the files to continue after step `done`; rows of later steps are dropped, to be written again.

    Step 0 is the evaluation before the first update; without a later checkpoint it is repeated, too. The report is also
    written if the run ends by an error, a signal or an interrupt.

    Raises:
      RunError: a file is damaged; the message names it and the line. Or a sink of `config.reporting` can't be opened.
      OSError: a file can't be written.
    """
    if processes and processes.index > 0:
        yield Record(None)
        return
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
            with contextlib.suppress(Exception):  # the first error is the one to report
                write_report(workdir)
            raise


def _open_sink(name: str, workdir: Path, config: Config, last: int) -> contextlib.AbstractContextManager[Sink]:
    if name == "wandb":
        return weights_and_biases(workdir, to_dict(config))
    return tensorboard.events(workdir, purge_step=last + 1)


class Clock:
    """Seconds since construction, split into laps."""

    def __init__(self):
        self.start = self.last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str, within: Mapping[str, float] | None = None) -> None:
        """Ends a lap, and adds it to earlier ones of its name, but for the seconds `within` that have other names."""
        now, within = time.perf_counter(), within or {}
        for part, seconds in {name: now - self.last - sum(within.values()), **within}.items():
            self.laps[part] = self.laps.get(part, 0.0) + seconds
        self.last = now

    def total(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.start


def doubling() -> Callable[[float], bool]:
    """A function that says whether a share is worth another warning: the first above 0, and then one of more than twice
    the last that was."""
    last = 0.0

    def is_news(share: float) -> bool:
        nonlocal last
        if share <= 2 * last:
            return False
        last = share
        return True

    return is_news


def warn_unjudged(step: int, rewards: Rewards, is_news: Callable[[float], bool]) -> None:
    """Logs the number of unjudged samples of a step and the first error, if their share is news; see `doubling`."""
    errors = [verdict.error for verdict in rewards.verdicts if verdict.error is not None]
    if is_news(len(errors) / max(len(rewards.verdicts), 1)):
        _log.warning(
            "step %d: %d of %d samples could not be judged and are left out; the first: %s (verify/errors counts those "
            "of every step; this is said again if their share doubles)",
            step, len(errors), len(rewards.verdicts), printable(errors[0]),
        )  # fmt: skip


def printable(text: str) -> str:
    """The text without what a policy may have written for the terminal."""
    return "".join(x if x.isprintable() else " " for x in text)


def describe(groups: Sequence[Group], rewards: Rewards, version: int) -> dict[str, float | int]:
    """The metrics of a step's episodes, without demonstrations.

    Args:
      groups, rewards: of the episodes.
      version: of the policy before this step's updates.
    """
    episodes, _, _ = flattened(groups)
    own = np.array([not episode.is_demonstration for episode in episodes])
    judged, sampled = rewards.judged & own, [episode for episode, ours in zip(episodes, own, strict=True) if ours]
    lengths = np.array([episode.length for episode in sampled])
    spans = [(i, span) for i, episode in enumerate(sampled) for span in episode.spans if span.author == "policy"]
    ages = [(count, version - x) for _, span in spans for count, x in span.versions]
    known = [(i, span.logprobs) for i, span in spans if span.logprobs is not None]
    owners = np.repeat(*np.array([(i, len(x)) for i, x in known], int).reshape(-1, 2).T)
    nats = -np.bincount(owners, np.concatenate([np.zeros(0), *(x for _, x in known)]), len(sampled))
    of_verdicts = {
        "reward": rewards.values,
        **{f"reward_{name}": term for name, term in rewards.terms.items()},
        "accuracy": np.array([verdict.score == 1 for verdict in rewards.verdicts]),
    }
    if "score" not in rewards.terms:  # the verifier beside other rewards, such as a learned one
        of_verdicts["score"] = np.array([verdict.score for verdict in rewards.verdicts])
    return {
        **_means("train", of_verdicts, judged),
        **_parts([verdict for verdict, counts in zip(rewards.verdicts, judged.tolist(), strict=True) if counts]),
        **_by_outcome(lengths, nats, of_verdicts["accuracy"][own], judged[own]),
        "train/response_length": float(np.mean(lengths)),
        "train/truncated": sum(episode.cut_off for episode in sampled) / len(sampled),
        "train/turns": sum(len(episode.turns) for episode in sampled) / len(sampled),
        "train/sequences": sum(len(episode.sequences) for episode in sampled) / len(sampled),
        **_finishes(sampled),
        "train/lag": sum(count * age for count, age in ages) / max(int(np.sum(lengths)), 1),
        "train/max_lag": max((age for count, age in ages if count), default=0),
        "verify/errors": int(np.sum(~rewards.judged)),
        **_by_task(episodes, {name: of_verdicts[name] for name in ("reward", "accuracy")}, judged),
    }


def _finishes(episodes: Sequence[Episode]) -> dict[str, float]:
    """`train/finish/*`: the share of episodes of each finish reason but "stop", of those that occur."""
    counts = Counter(episode.finish_reason for episode in episodes if episode.finish_reason != "stop")
    return {f"train/finish/{reason}": count / len(episodes) for reason, count in sorted(counts.items())}


def describe_updates(updates: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, float]:
    """The metrics of a step's updates, from those that the networks of each returned: means, but the first one's
    difference between trainer and sampler, since the policies of the later updates are no longer the one that sampled.
    The entropy of actions of which there are none is left out: `train_step` gives 0 for an empty mean."""
    networks = zip(*updates, strict=True)
    values = {name: [metrics[name] for metrics in network] for network in networks for name in network[0]}
    first = {name: float(values[name][0]) for name in _OF_FIRST if name in values}  # a loss of the user's may have none
    values |= {name: [x for x in values[name] if x != 0] for name in _BY_SIGN if name in values}
    return {name: float(sum(x) / len(x)) for name, x in values.items() if x} | first


def throughput(cost: RolloutStats, trained: float, laps: Mapping[str, float]) -> dict[str, float]:
    """The metrics of speed of a training step.

    Args:
      cost: of the step's sampling, which with a lag is that of later steps' samples.
      trained: tokens that the policy sampled in the step's episodes.
      laps: seconds of each phase.
    """
    return {
        "rollout/occupancy": cost.occupancy,
        "time/rollout_tokens_per_second": cost.active_slot_steps / laps["time/rollout"],
        "time/train_tokens_per_second": trained / laps["time/train"],
    }


def _means(
    group: str, values: Mapping[str, Shaped[np.ndarray, "episodes"]], of: Bool[np.ndarray, "episodes"]
) -> dict[str, float]:
    """The mean of each of the values over these episodes; empty without any."""
    return {
        f"{group}/{name}": float(np.mean(value[of], dtype=np.float64)) for name, value in values.items() if of.any()
    }


def _parts(verdicts: Sequence[Verdict]) -> dict[str, float]:
    """The mean of each part of the verdicts, whether it is rewarded or not, over those that have it."""
    found: dict[str, list[float]] = {}
    for verdict in verdicts:
        for name, value in verdict.parts.items():
            found.setdefault(name, []).append(value)
    return {f"part/{name}": sum(values) / len(values) for name, values in sorted(found.items())}


def _by_outcome(
    lengths: Int[np.ndarray, "episodes"],
    nats: Float[np.ndarray, "episodes"],
    right: Bool[np.ndarray, "episodes"],
    judged: Bool[np.ndarray, "episodes"],
) -> dict[str, float]:
    """Mean length of right and of wrong episodes, and their surprisal: the mean of -log p over their sampled tokens.

    Over the policy's own samples its expectation is their entropy, that of the policy that sampled.

    Args:
      lengths: sampled tokens of each.
      nats: the sum of -log p over them.
      right, judged: whether it is.
    """
    found = {}
    for name, chosen in (("right", right & judged), ("wrong", ~right & judged)):
        if tokens := int(lengths[chosen].sum()):
            found[f"train/response_length_{name}"] = float(np.mean(lengths[chosen]))
            found[f"train/surprisal_{name}"] = float(nats[chosen].sum() / tokens)
    return found


def _by_task(
    episodes: Sequence[Episode],
    of_verdicts: Mapping[str, Shaped[np.ndarray, "episodes"]],
    judged: Bool[np.ndarray, "episodes"],
) -> dict[str, float]:
    """`task/<task>/*` of each task that has episodes, and `task/<task>/<role>/reward` of each role in games."""
    roles = np.array([episode.role for episode in episodes])
    names = np.array([episode.example.task for episode in episodes])
    lengths = {
        "response_length": np.array([episode.length for episode in episodes]),
        "turns": np.array([len(episode.turns) for episode in episodes]),
    }
    found = {}
    for task in sorted(set(names.tolist())):
        found |= _means(f"task/{task}", of_verdicts, (names == task) & judged)
        found |= _means(f"task/{task}", lengths, names == task)
        for role in sorted(set(roles[names == task].tolist()) - {""}):
            own = {"reward": of_verdicts["reward"]}
            found |= _means(f"task/{task}/{role}", own, (names == task) & (roles == role) & judged)
    return found


def sample_rows(
    step: int, split: str, groups: Sequence[Group], tokenizer: Any, rewards: Rewards | None = None
) -> list[dict[str, Any]]:
    """Rows of samples.jsonl; its fields are described in docs/metrics.md."""
    episodes, verdicts, _ = flattened(groups)
    values, terms = [None] * len(episodes), [None] * len(episodes)
    if rewards is not None:
        verdicts, judged = rewards.verdicts, rewards.judged.tolist()
        values = [value if there else None for value, there in zip(rewards.values.tolist(), judged, strict=True)]
        names, columns = list(rewards.terms), [column.tolist() for column in rewards.terms.values()]
        of_rows = zip(*columns, strict=True)
        terms = [dict(zip(names, x, strict=True)) if y else None for x, y in zip(of_rows, judged, strict=True)]
    return [
        {
            "step": step,
            "split": split,
            "example": episode.example.id,
            "task": episode.example.task,
            "prompt": episode.example.prompt,
            "completion": _transcript(episode, tokenizer),
            "reference": episode.example.reference,
            "gold": episode.example.gold or None,
            "score": verdict.score,
            "reward": values[i],
            "terms": terms[i],
            "answer": verdict.answer,
            "reason": verdict.reason,
            "error": verdict.error,
            "finish_reason": episode.finish_reason,
            "length": episode.length,
            "turns": len(episode.turns),
            "spans": _spans(episode, tokenizer),
            "calls": [_without_seconds(call) for call in episode.calls],
        }
        for i, (episode, verdict) in enumerate(zip(episodes, verdicts, strict=True))
    ]


def _spans(episode: Episode, tokenizer: Any) -> list[dict[str, Any]] | None:
    """The texts after the prompt, by author, of an episode of several turns, context windows or with calls of tools.

    Those of the episodes that it has asked for come last.
    """
    windows = sorted(episode.sequences, key=lambda window: window.depth > 0)
    spans = [(span, window.depth) for window in windows for span in window.spans][1:]
    if len(spans) < 2 and not episode.calls:
        return None
    texts = decode(tokenizer, [span.tokens for span, _ in spans])
    return [
        {"author": span.author, "text": text, "tokens": len(span.tokens), "trained": span.author in TRAINED}
        | ({"depth": depth} if depth else {})
        for (span, depth), text in zip(spans, texts, strict=True)
    ]


def _without_seconds(call: CallRecord) -> dict[str, Any]:
    """A call as it is in two runs of the same config."""
    told = {"turn": call.turn, "tool": call.tool, "outcome": call.outcome, "characters": call.characters}
    return told | ({"error": call.error} if call.error else {})


def _transcript(episode: Episode, tokenizer: Any) -> str:
    """The policy's turns, with observations and the prompts of new context windows between them in [[ ]]."""
    own = [window for window in episode.sequences if not window.depth]
    spans = [span for window in own for span in window.spans][1:]
    told = [span.tokens for span in spans if span.author in ("env", "prompt")]  # those forced are in the turns
    texts = iter([f"[[{text.strip()}]]" for text in decode(tokenizer, told)])
    said = list(episode.turns)
    return "\n".join(said[:1] + [f"{next(texts, '')}\n{turn}" for turn in said[1:]] + list(texts))


def report(workdir: Path, processes: Processes | None = None, out: Path | None = None) -> Path:
    """Writes the report (see `write_report`) in the first process; a RunError names a damaged file."""
    if processes and processes.index > 0:
        return workdir / REPORT
    try:
        return write_report(workdir, out)
    except ValueError as error:
        raise RunError(str(error)) from error
