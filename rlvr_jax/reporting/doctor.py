"""Findings about a run from its curves, in plain words, with the config keys to change."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

Row = Mapping[str, Any]
Mean = Callable[[str], float]  # of a metric, over some rows

_FEW, _MANY = 0.05, 0.95  # of an accuracy
_SILENT = 0.8  # share of groups without signal: less than a fifth of the work is used
_COLLAPSED = 0.1  # of the entropy at the start
_FLAT = 0.05  # nats a token: nearly every token is certain
_CLIPPED = 0.2  # share of actions without a gradient
_GAP = 0.5  # nats: more than rounding to bfloat16 makes of log-probs
_CUT_OFF = 0.25  # share of episodes
_ALIKE = 0.5  # of the accuracy: samples that are cut off by design are right about as often as others
_FAR = 0.5  # nats a token from the reference
_WORSE = -0.1  # explained variance
# Baselines to which equal rewards of a group are a signal.
_NOT_OF_GROUPS = ("value", "none", "batch_mean", "greedy", "tracker", "monte_carlo")
_UNJUDGED = 0.01  # share of episodes
_PARTS, _LOST = 8, 0.05  # of the run, of the accuracy or score
_CLEAR = 3.0  # standard errors of a difference, which is the largest of several
_HACKED = 0.05  # share of programs
_HIDDEN = 0.2  # between the shares of visible and hidden tests that pass
HARDLY = 0.05  # share of a tool's calls that work, below which the tool and not the policy may be at fault
_EARLY = 10  # steps after which an untrained policy may still ramble
_LONGER = 3.0  # times the length at the start


@dataclass(frozen=True)
class Finding:
    """Something that the curves suggest.

    Attributes:
      title: in a few words.
      text: the numbers, and what they mean.
      keys: of the config, to change; the most useful first.
    """

    title: str
    text: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class _Run:
    """The curves of a run: means of metrics over its first and its last steps, all rows, its config, its
    logged samples, and the number of its training steps."""

    start: Mean
    end: Mean
    rows: Sequence[Row]
    config: Mapping[str, Any]
    samples: Sequence[Row] = ()
    steps: int = 0


def findings(rows: Sequence[Row], config: Mapping[str, Any], samples: Sequence[Row] = ()) -> list[Finding]:
    """Findings about a run of reinforcement learning, the most serious first; empty if there are none.

    Args:
      rows: of metrics.jsonl, names as in docs/metrics.md.
      config: of config.json.
      samples: rows of samples.jsonl.
    """
    trained = [row for row in rows if "train/response_length" in row]
    if not trained:
        return []
    window = max(1, min(len(trained) // 4, 50))
    run = _Run(_mean_of(trained[:window]), _mean_of(trained[-window:]), rows, config, samples, len(trained))
    return [found for look in _LOOKS if (found := look(run))]


def _mean_of(rows: Sequence[Row]) -> Mean:
    """Metric -> its mean over these rows, or NaN without any, with which no comparison holds."""

    def mean(name: str) -> float:
        values = [row[name] for row in rows if isinstance(row.get(name), int | float)]
        return float(np.mean(values)) if values else float("nan")

    return mean


def _skipped(run: _Run) -> Finding | None:
    count = run.rows[-1].get("train/skipped_steps", 0)
    if count > 0:
        return Finding(
            "updates were skipped",
            f"{count} updates were left out because a gradient was not finite.",
            ("optimizer.learning_rate", "optimizer.clip_norm"),
        )
    return None


def _unjudged(run: _Run) -> Finding | None:
    rollout = run.config.get("rollout", {})
    errors = [row["verify/errors"] for row in run.rows if "verify/errors" in row]
    count, sampled = sum(errors), len(errors) * rollout.get("prompts", 0) * rollout.get("group_size", 0)
    if sampled and count / sampled > _UNJUDGED:
        return Finding(
            "unjudged samples",
            f"{count} of {sampled} samples could not be judged and were left out; the reasons are in the samples' "
            "column `error` and in the log.",
            ("verifier.timeout", "verifier.memory_mib"),
        )
    return None


def _failing_tools(run: _Run) -> Finding | None:
    names = sorted({key.split("/")[1] for row in run.rows for key in row if re.fullmatch("tool/[^/]+/success", key)})
    shares = {name: _share_of_calls(run.rows, name) for name in names}
    failing = {name: share for name, share in shares.items() if share < HARDLY}
    if not failing:
        return None
    few = max(failing.values())
    title = "a tool hardly ever works" if few else "a tool never works"
    share = "Every call" if not few else f"{1 - few:.1%} of the calls"
    calls = [call for row in run.samples for call in row.get("calls") or ()]
    errors = [call["error"] for call in calls if call["tool"] in failing and "error" in call]
    first = f" The first of the logged samples: {errors[0]}." if errors else ""
    return Finding(
        title,
        f"{share} of {', '.join(failing)} failed; the calls of the report's episodes have the reasons.{first}",
        ("tasks", "verifier.timeout", "verifier.memory_mib"),
    )


def _share_of_calls(rows: Sequence[Row], tool: str) -> float:
    """The share of a tool's calls in all steps that worked."""
    pairs = [(row.get(f"tool/{tool}/calls", 1.0), row.get(f"tool/{tool}/success")) for row in rows]
    calls, worked = np.array([(x, x * share) for x, share in pairs if share is not None]).reshape(-1, 2).sum(0)
    return float(worked / calls) if calls else 1.0


def _no_signal(run: _Run) -> Finding | None:
    silent, accuracy = run.end("train/zero_signal_groups"), run.end("train/accuracy")
    if not silent >= _SILENT or run.config.get("algorithm", {}).get("baseline") in _NOT_OF_GROUPS:
        return None
    numbers = f"In {silent:.0%} of the groups all rewards are equal, so they teach nothing; accuracy is {accuracy:.2f}."
    if accuracy <= _FEW:
        why = "The problems are too hard for this policy: easier ones, partial credit, a warm start or larger groups."
        return Finding(
            "no signal: too hard",
            f"{numbers} {why}",
            ("tasks", "reward", "init_from", "rollout.group_size", "curriculum.sampling"),
        )
    if accuracy >= _MANY:
        why = "Little is left to learn here: harder problems, or stop."
        return Finding("no signal: too easy", f"{numbers} {why}", ("tasks", "curriculum.high", "training.num_steps"))
    why = "The samples of a prompt are alike: a higher temperature, or more of them."
    return Finding("no signal: samples alike", f"{numbers} {why}", ("rollout.temperature", "rollout.group_size"))


def _collapsed(run: _Run) -> Finding | None:
    before, after = run.start("train/entropy"), run.end("train/entropy")
    if after < _COLLAPSED * before and after < _FLAT and run.end("train/accuracy") < _MANY:
        return Finding(
            "entropy collapsed",
            f"It fell from {before:.3f} to {after:.3f} nats a token while problems are still missed: the policy has "
            "stopped to explore. A higher upper clip, a KL term or a smaller learning rate keeps it open.",
            ("algorithm.clip_high", "algorithm.kl_coef", "optimizer.learning_rate"),
        )
    return None


def _clipped(run: _Run) -> Finding | None:
    share = run.end("train/clip_fraction")
    if share > _CLIPPED:
        return Finding(
            "many ratios are clipped",
            f"{share:.0%} of the actions have no gradient, because the policy has moved far from the one that sampled.",
            ("optimizer.learning_rate", "algorithm.minibatches", "training.max_lag"),
        )
    return None


def _gap(run: _Run) -> Finding | None:
    largest = max((row.get("train/logprob_gap", 0.0) for row in run.rows), default=0.0)
    if largest > _GAP and not run.end("train/lag") > 0:
        return Finding(
            "sampler and trainer disagree",
            f"The log-probs of an action differ by up to {largest:.2f} nats under the same parameters; rounding in "
            "bfloat16 makes less.",
            ("policy.dtype", "rollout.top_p", "rollout.top_k"),
        )
    return None


def _cut_off(run: _Run) -> Finding | None:
    share, accuracy = run.end("train/truncated"), run.end("train/accuracy")
    limits = ("rollout.max_response_length", "rollout.max_turns")
    if run.steps < _EARLY:
        return None
    # Of those cut off at least (accuracy - (1 - share)) / share are right: so many if all others are.
    if share > _CUT_OFF and not accuracy - (1 - share) >= _ALIKE * accuracy * share > 0:
        return Finding(
            "responses at the limit",
            f"{share:.0%} of the episodes are cut off by a limit of tokens or turns, and can hardly be right.",
            (*(limits[::-1] if 2 * run.end("train/finish/turns") > share else limits), "reward"),
        )
    return None


def _critic(run: _Run) -> Finding | None:
    explained = run.end("critic/explained_variance")
    if explained < _WORSE and run.end("train/accuracy") < _MANY:
        return Finding(
            "the critic does not help",
            f"Its values explain {explained:.0%} of the variance of the returns: a constant would be better. It learns "
            "too slowly to follow the policy, or too fast; some steps of its own before the policy moves may help.",
            ("critic.optimizer.learning_rate", "critic.warmup_steps", "critic.clip"),
        )
    return None


def _far(run: _Run) -> Finding | None:
    kl = run.end("train/kl")
    if kl > _FAR:
        return Finding(
            "far from the reference",
            f"The KL divergence to the reference policy is {kl:.2f} nats a token: look whether the text is still "
            "readable, and whether the reward is what you want.",
            ("algorithm.kl_coef", "optimizer.learning_rate", "reward"),
        )
    return None


def _longer(run: _Run) -> Finding | None:
    before, after = run.start("train/response_length"), run.end("train/response_length")
    if after > _LONGER * before and run.end("train/accuracy") <= run.start("train/accuracy"):
        return Finding(
            "longer, but not better",
            f"Responses grew from {before:.0f} to {after:.0f} tokens without a gain in accuracy.",
            ("reward", "algorithm.aggregation"),
        )
    return None


def _heldout(run: _Run) -> Finding | None:
    evaluated = [row for row in run.rows if "eval/greedy_accuracy_high" in row]
    if len(evaluated) < 2:
        return None
    first, last = evaluated[0], evaluated[-1]
    gained = run.end("train/accuracy") - run.start("train/accuracy")
    if last["eval/greedy_accuracy_high"] < first["eval/greedy_accuracy_low"]:
        return Finding(
            "worse on held-out problems",
            f"Greedy accuracy fell from {first['eval/greedy_accuracy']:.3f} to {last['eval/greedy_accuracy']:.3f}, "
            f"while that of training samples changed by {gained:+.3f}.",
            ("optimizer.learning_rate", "reward", "training.num_steps"),
        )
    return None


def _parted(run: _Run) -> Finding | None:
    """The reward rises while what the verifier says falls from its best: of all tasks together, or of one."""
    for reward, gold, what in _golds(run.rows):
        rows = [row for row in run.rows if all(isinstance(row.get(name), int | float) for name in (reward, gold))]
        if len(rows) < 2 * _PARTS:
            continue
        parts = [rows[i * len(rows) // _PARTS : (i + 1) * len(rows) // _PARTS] for i in range(_PARTS)]
        best = max(parts, key=lambda part: _mean_of(part)(gold))
        high, low = _mean_of(best)(gold), _mean_of(parts[-1])(gold)
        gained = _mean_of(parts[-1])(reward) - _mean_of(best)(reward)
        noise = np.hypot(*(np.std([row[gold] for row in part]) / np.sqrt(len(part)) for part in (best, parts[-1])))
        if high - low > max(_LOST, _CLEAR * noise) and gained > 0:
            return Finding(
                f"reward and {what} part",
                f"Since {what} was best, at {high:.2f}, the reward has risen by {gained:.2f} and {what} has fallen by "
                f"{high - low:.2f}: the policy earns the reward by other means than being right. Read the samples of "
                "the last steps.",
                ("reward", "algorithm.kl_coef", "training.num_steps"),
            )
    return None


def _golds(rows: Sequence[Row]) -> list[tuple[str, str, str]]:
    """Rewards beside what the verifier says: (metric of the reward, of the verifier, its name), all tasks first."""
    names = {name for row in rows for name in row}
    tasks = sorted(name.split("/")[1] for name in names if re.fullmatch("task/[^/]+/accuracy", name))
    pairs = [("train/reward", "train/accuracy", "accuracy"), ("train/reward", "train/score", "the verifier's score")]
    if len(tasks) > 1:
        pairs += [(f"task/{task}/reward", f"task/{task}/accuracy", f"accuracy of {task}") for task in tasks]
    return pairs


def _hacked(run: _Run) -> Finding | None:
    """Programs aim at their tests: a detector says so, or those that are not shown fail."""
    names = sorted({key for row in run.rows for key in row if key.startswith("part/hack/")} - {"part/hack/any"})
    shares = {name.removeprefix("part/hack/"): run.end(name) for name in names}
    seen = {name: share for name, share in shares.items() if share > run.start(f"part/hack/{name}") + _HACKED}
    if seen:
        told = ", ".join(f"{name} in {share:.0%}" for name, share in seen.items())
        return Finding(
            "programs aim at their tests",
            f"Detectors find more hacks than at the start: {told} of the programs. Read some of them before you punish "
            "them.",
            ("reward", "tasks"),
        )
    visible, hidden = run.end("part/visible"), run.end("part/hidden")
    if visible - hidden > _HIDDEN:
        return Finding(
            "visible and hidden tests part",
            f"{visible:.0%} of the visible tests pass, and {hidden:.0%} of the hidden ones: the policy may have "
            "learned the tests. Read the programs, and reward the hidden tests.",
            ("reward", "tasks"),
        )
    return None


_LOOKS = (
    _skipped,
    _unjudged,
    _failing_tools,
    _parted,
    _hacked,
    _heldout,
    _no_signal,
    _critic,
    _collapsed,
    _gap,
    _clipped,
    _cut_off,
    _far,
    _longer,
)
