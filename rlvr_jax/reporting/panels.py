"""The panels of a run, by its metrics."""

from collections.abc import Collection, Sequence
from dataclasses import replace

from rlvr_jax.reporting.fixed_panels import FIXED
from rlvr_jax.reporting.panel import ACCURACY, CYCLE, HELD_OUT, NEUTRAL, PASS, TRAIN, Panel, Row, Series

_ROUNDING = 1e-9  # around `Series.dull`


def panels(rows: Sequence[Row]) -> list[Panel]:
    """The panels for which the rows have data, most informative first; series without data are left out."""
    names = {name for row in rows for name in row}
    kept = []
    named = (*_of_rewards(names), *_of_tools(names), *_by_level(names), *_of_demonstrations(names))
    for panel in (*_of_accuracy(rows, names), *named, *FIXED):
        series = tuple(line for line in panel.series if line.metric in names and _tells(line, rows))
        if series:
            kept.append(replace(panel, series=series))
    return kept


def _each(names: Collection[str], begin: str, end: str = "", dull: float | None = None) -> tuple[Series, ...]:
    """A line for each metric `<begin><label><end>`."""
    found = (x for x in names if x.startswith(begin) and x.endswith(end) and len(x) > len(begin) + len(end))
    labels = sorted(x.removeprefix(begin).removesuffix(end) for x in found)
    return tuple(Series(begin + x + end, x, CYCLE[i % len(CYCLE)], dull=dull) for i, x in enumerate(labels))


def _several(lines: tuple[Series, ...]) -> tuple[Series, ...]:
    """The lines, but for a single one, which another panel has."""
    return lines if len(lines) > 1 else ()


def _of_accuracy(rows: Sequence[Row], names: Collection[str]) -> list[Panel]:
    """The panels of the reward, of held-out accuracy and of pass@k."""
    passes = sorted((int(k), name) for name in names for k in [name.removeprefix("eval/pass@")] if k.isdecimal())
    rewards = [Series("train/reward", "train reward", TRAIN, 1.8)]
    if any(row.get("train/accuracy") != row.get("train/reward") for row in rows):
        rewards.append(Series("train/accuracy", "train accuracy (sampled)", ACCURACY, 1.2))
    rewards.append(Series("train/score", "verifier's score (sampled)", "#009E73", 1.2))
    return [
        Panel(
            "Reward and held-out accuracy",
            "mean reward · share right",
            (*rewards, Series("eval/greedy_accuracy", "held-out accuracy (greedy)", HELD_OUT, 2.2)),
            "Mean reward of the sampled training completions, and the share of held-out problems that the greedy "
            "completion solves, with its 95 % interval. Both should rise together; reward that rises alone points to "
            "memorisation or a hacked reward.",
            wide=True,
        ),
        Panel(
            "Held-out accuracy by task",
            "share right",
            _several(_each(names, "task/", "/greedy_accuracy")),
            "Share of each task's held-out problems that the greedy completion solves, with its 95 % interval.",
            scale="share",
        ),
        Panel(
            "Held-out pass@k",
            "share solved",
            tuple(Series(name, f"pass@{k}", PASS[min(i, len(PASS) - 1)]) for i, (k, name) in enumerate(passes)),
            "Chance that at least one of k samples solves a held-out problem, with its 95 % interval. pass@1 nearing "
            "pass@k means that the policy has become sure; a falling pass@k means that it has lost diversity.",
            scale="share",
        ),
    ]


def _of_rewards(names: Collection[str]) -> list[Panel]:
    """The panels of the terms of the reward and of the parts of verdicts."""
    parts = [replace(x, dull=0.0 if x.label.startswith("hack/") else None) for x in _each(names, "part/")]
    return [
        Panel(
            "Reward terms",
            "mean reward",
            _several(_each(names, "train/reward_")),
            "Each named term of the reward. They show which part of the reward is being learned.",
        ),
        Panel(
            "Verifier parts",
            "mean",
            tuple(parts),
            "What the verifier says beside its score, whether it is rewarded or not: one that rises unrewarded shows "
            "by which means the reward is earned.",
        ),
    ]


def _of_tools(names: Collection[str]) -> list[Panel]:
    """The panels of the calls of tools."""
    return [
        Panel(
            "Use of tools",
            "share of episodes",
            _each(names, "tool/", "/episodes"),
            "Share of the episodes in which the policy calls a tool.",
            scale="share",
        ),
        Panel(
            "Success of tools",
            "share of calls",
            _each(names, "tool/", "/success", dull=1.0),
            "Share of the calls of a tool that give an output. Use dies out where calls fail for too long.",
            scale="share",
        ),
        Panel(
            "Mistakes in calls",
            "calls per episode",
            (Series("tool/malformed", "not executed", NEUTRAL, dull=0.0),),
            "Calls that could not be executed because of the policy's mistakes in them.",
        ),
    ]


def _by_level(names: Collection[str]) -> list[Panel]:
    """The panels of a curriculum's levels."""
    found = []
    for what, title, caption in (
        (
            "pass_rate",
            "Pass rate by level",
            "Running share of right samples of each level, by which problems are chosen.",
        ),
        (
            "share",
            "Problems by level",
            "Share of each level in a step. A curriculum goes where half of them fail.",
        ),
    ):
        kind = "stack" if what == "share" else "lines"
        found.append(Panel(title, "share", _each(names, f"curriculum/{what}/"), caption, kind, "share"))
    return found


def _of_demonstrations(names: Collection[str]) -> list[Panel]:
    """The panel of the loss of supervised learning, of all rows and of each source."""
    sources = enumerate(_each(names, "sft/", "/loss"), start=1)
    return [
        Panel(
            "Supervised loss",
            "nats per token",
            (Series("sft/loss", "loss", TRAIN, 2.2), *(replace(x, colour=CYCLE[i % len(CYCLE)]) for i, x in sources)),
            "Cross-entropy of the demonstrations' tokens, also of each source if there are several. It should fall and "
            "flatten out.",
            wide=True,
        )
    ]


def _tells(line: Series, rows: Sequence[Row]) -> bool:
    """False for a line that is dull all along."""
    values = [row[line.metric] for row in rows if line.metric in row]
    return line.dull is None or any(abs(value - line.dull) > _ROUNDING for value in values)
