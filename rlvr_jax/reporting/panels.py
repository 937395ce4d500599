"""Groups of metrics that are drawn together: a `Panel` is one plot with its caption."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

Row = Mapping[str, Any]

# Colours of Okabe and Ito (2008), distinguishable for colour-blind readers. A metric has the same colour in every
# panel.
_TRAIN, _HELD_OUT, _ACCURACY, _NEUTRAL = "#0072B2", "#D55E00", "#56B4E9", "#8a8f98"
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8a8f98", "#7a5195")
_ROUNDING = 1e-9  # around `Series.dull`
_PASS = ("#f0a878", "#e07f45", "#b85a1e", "#8a3f10", "#5e2a0a", "#3b1a05")


@dataclass(frozen=True)
class Series:
    """One line of a panel; `metric` with the suffixes `_low` and `_high`, where they exist, is drawn as a band.

    A line that never leaves the value `dull` is not drawn.
    """

    metric: str
    label: str
    colour: str
    width: float = 1.6
    reduce: Literal["mean", "max"] = "mean"
    dull: float | None = None


@dataclass(frozen=True)
class Panel:
    """One plot: its lines, the unit of its vertical axis, and an explaining caption."""

    title: str
    unit: str
    series: tuple[Series, ...]
    caption: str
    kind: Literal["lines", "stack"] = "lines"
    scale: Literal["linear", "log", "share"] = "linear"
    wide: bool = False

    @property
    def metrics(self) -> frozenset[str]:
        """Names of all metrics that the panel shows."""
        return frozenset(name + end for name in (line.metric for line in self.series) for end in ("", "_low", "_high"))


def panels(rows: Sequence[Row]) -> list[Panel]:
    """The panels for which the rows have data, most informative first; series without data are left out."""
    names = {name for row in rows for name in row}
    kept = []
    named = (*_of_rewards(names), *_of_tools(names), *_by_level(names), *_of_demonstrations(names))
    for panel in (*_of_accuracy(rows, names), *named, *_FIXED):
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
    rewards = [Series("train/reward", "train reward", _TRAIN, 1.8)]
    if any(row.get("train/accuracy") != row.get("train/reward") for row in rows):
        rewards.append(Series("train/accuracy", "train accuracy (sampled)", _ACCURACY, 1.2))
    rewards.append(Series("train/score", "verifier's score (sampled)", "#009E73", 1.2))
    return [
        Panel(
            "Reward and held-out accuracy",
            "mean reward · share right",
            (*rewards, Series("eval/greedy_accuracy", "held-out accuracy (greedy)", _HELD_OUT, 2.2)),
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
            tuple(Series(name, f"pass@{k}", _PASS[min(i, len(_PASS) - 1)]) for i, (k, name) in enumerate(passes)),
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
            (Series("tool/malformed", "not executed", _NEUTRAL, dull=0.0),),
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
            (Series("sft/loss", "loss", _TRAIN, 2.2), *(replace(x, colour=CYCLE[i % len(CYCLE)]) for i, x in sources)),
            "Cross-entropy of the demonstrations' tokens, also of each source if there are several. It should fall and "
            "flatten out.",
            wide=True,
        )
    ]


def _tells(line: Series, rows: Sequence[Row]) -> bool:
    """False for a line that is dull all along."""
    values = [row[line.metric] for row in rows if line.metric in row]
    return line.dull is None or any(abs(value - line.dull) > _ROUNDING for value in values)


_FIXED = (  # the panels with the same lines in every run
    Panel(
        "Held-out preferences",
        "share right",
        (
            Series("preferences/accuracy", "train", _TRAIN),
            Series("eval/preference_accuracy", "held-out", _HELD_OUT, 2.2),
        ),
        "Share of preferences in which the chosen completion gets the higher reward, on held-out prompts with its 95 % "
        "interval.",
        scale="share",
        wide=True,
    ),
    Panel(
        "Preference loss",
        "loss",
        (Series("preferences/loss", "loss", _TRAIN),),
        "Mean loss of the trained preferences.",
    ),
    Panel(
        "Margin of preferences",
        "reward",
        (
            Series("preferences/margin", "train", _TRAIN),
            Series("eval/preference_margin", "held-out", _HELD_OUT, 2.2),
        ),
        "Mean reward of the chosen completion less that of the rejected one. Training pairs that part further and "
        "further while held-out ones do not are learned by heart.",
    ),
    Panel(
        "Rewards of completions",
        "reward",
        (
            Series("preferences/chosen_reward", "chosen", _TRAIN),
            Series("preferences/rejected_reward", "rejected", _HELD_OUT),
            Series("preferences/good_reward", "good", _TRAIN),
            Series("preferences/bad_reward", "bad", _HELD_OUT),
        ),
        "Mean reward that the model gives trained completions: of a reward model its output, of a policy beta times "
        "the log-ratio to the reference policy (or to none). Both may fall while their difference grows.",
    ),
    Panel(
        "Log-probs of completions",
        "nats",
        (
            Series("preferences/chosen_logprob", "chosen", _TRAIN),
            Series("preferences/rejected_logprob", "rejected", _HELD_OUT),
            Series("preferences/good_logprob", "good", _TRAIN),
            Series("preferences/bad_logprob", "bad", _HELD_OUT),
        ),
        "Mean log-probability of a whole completion under the policy. If that of chosen ones falls far, the policy "
        "moves to answers that are in no pair.",
    ),
    Panel(
        "Response length",
        "tokens",
        (
            Series("train/response_length", "train", _TRAIN),
            Series("eval/response_length", "held-out (greedy)", _HELD_OUT),
            Series("train/response_length_right", "right", "#009E73", 1.0),
            Series("train/response_length_wrong", "wrong", "#CC79A7", 1.0),
        ),
        "Mean length of a completion, also of right and of wrong ones apart. A rise along with accuracy is thinking "
        "aloud; a rise without it is rambling.",
    ),
    Panel(
        "Turns",
        "turns per episode",
        (
            Series("train/turns", "turns", _TRAIN, dull=1.0),
            Series("train/sequences", "context windows", "#009E73", dull=1.0),
        ),
        "Mean number of the policy's turns in an episode, and of its context windows, those of its questions to itself "
        "included.",
    ),
    Panel(
        "Lag of the samples",
        "steps",
        (Series("train/lag", "mean", _TRAIN, dull=0.0), Series("train/max_lag", "largest", "#009E73", dull=0.0)),
        "Lag, in steps, of the policy that sampled a token behind the one trained on it.",
    ),
    Panel(
        "Truncated and clipped",
        "share",
        (
            Series("train/truncated", "truncated", _TRAIN),
            Series("train/clip_fraction", "ratio clipped", "#009E73"),
        ),
        "Share of completions that ran out of tokens (they rarely earn a reward), and share of tokens whose "
        "gradient the clipped ratio removed.",
        scale="share",
    ),
    Panel(
        "Entropy",
        "nats per token",
        (
            Series("train/entropy", "entropy", _TRAIN),
            Series("train/entropy_positive", "A > 0", "#009E73", 1.0),
            Series("train/entropy_negative", "A < 0", "#D55E00", 1.0),
        ),
        "Mean entropy of the policy's next-token distribution, over all tokens and by the sign of their advantage. "
        "Falling to 0 means that exploration has ended.",
    ),
    Panel(
        "Surprisal of right and wrong samples",
        "nats per token",
        (
            Series("train/surprisal_right", "right", "#009E73"),
            Series("train/surprisal_wrong", "wrong", "#CC79A7"),
        ),
        "Mean of -log p over the tokens of samples, an estimate of the policy's entropy where it is right and where it "
        "is wrong. Wrong samples as sure as right ones are mistakes that more samples will not mend.",
    ),
    Panel(
        "KL to the reference policy",
        "nats per token",
        (Series("train/kl", "KL", _TRAIN),),
        "How far the policy has moved from where it started. A sudden rise often comes with a broken policy.",
    ),
    Panel(
        "Move of an update",
        "nats per token",
        (Series("train/policy_kl", "KL", _TRAIN, dull=0.0),),
        "KL divergence from the policy that the ratio is relative to, to the one being trained. It is 0 with one "
        "update in a step; large values mean that the samples are stale, or the learning rate is high.",
    ),
    Panel(
        "Effective samples",
        "share",
        (
            Series("train/effective_actions", "tokens", _TRAIN),
            Series("train/effective_samples", "whole samples", "#009E73"),
            Series("train/importance_masked", "tokens of weight 0", "#D55E00"),
        ),
        "How many equally weighted tokens, and whole samples, the importance weights are worth before they are "
        "truncated. Near 1 they are as good as on-policy; near 0 a few decide. And the tokens that are masked.",
        scale="share",
    ),
    Panel(
        "KL of an episode",
        "nats",
        (Series("train/kl_episode", "KL", _TRAIN),),
        "How far the policy that sampled had moved from the reference policy, summed over an episode's tokens. The "
        "reward is reduced by this, times a coefficient.",
    ),
    Panel(
        "Value of the critic",
        "reward",
        (
            Series("critic/value", "value", "#E69F00"),
            Series("critic/return", "return", _TRAIN),
        ),
        "Mean of what the critic expected of the rest of an episode, and of what came. A lasting gap is a critic "
        "that lags behind or whose values are clipped.",
    ),
    Panel(
        "Explained variance",
        "share",
        (Series("critic/explained_variance", "explained", "#E69F00"),),
        "Share of the returns' variance that the critic's values explain: 1 is perfect, 0 no better than a "
        "constant; below 0 the advantages are noisier than without a critic.",
    ),
    Panel(
        "Loss of the critic",
        "squared reward",
        (Series("critic/loss", "loss", "#E69F00"),),
        "Half of the mean squared difference of value and return, after each update.",
    ),
    Panel(
        "Gradient norm",
        "global norm",
        tuple(Series(f"{run}/grad_norm", "before clipping", _TRAIN) for run in ("train", "sft", "preferences")),
        "Global norm of the gradient before clipping. Spikes are single updates that pull hard; gaps with red "
        "marks were not finite.",
    ),
    Panel(
        "Zero-variance groups",
        "share of groups",
        (Series("train/zero_signal_groups", "share", _TRAIN),),
        "Groups whose samples all earned the same reward, so that their advantages are 0. Near 1, a step teaches "
        "nothing: the problems are too easy or too hard.",
        scale="share",
    ),
    Panel(
        "Stage of the curriculum",
        "stage",
        (Series("curriculum/stage", "open", _TRAIN),),
        "Highest stage of tasks that is open. It rises when all tasks of the stage before are solved often enough.",
    ),
    Panel(
        "Time of a step",
        "seconds",
        (
            Series("time/rollout", "sampling", "#56B4E9"),
            Series("time/verify", "verification", "#E69F00"),
            Series("time/train", "training", "#0072B2"),
            Series("time/layout", "move of parameters", "#CC79A7"),
            Series("time/evaluate", "evaluation", "#c3c7ce"),
        ),
        "Where the seconds of each step went, stacked; parameters move to the sampler after an update. "
        "Compilation falls into the first steps.",
        kind="stack",
    ),
    Panel(
        "Tokens per second",
        "tokens/s",
        (
            Series("time/rollout_tokens_per_second", "sampling", "#56B4E9"),
            Series("time/train_tokens_per_second", "training", "#0072B2"),
            Series("time/sft_tokens_per_second", "supervised training", "#009E73"),
        ),
        "Throughput of sampling and of training, each over its own seconds.",
    ),
    Panel(
        "Log-prob gap, sampler and trainer",
        "nats",
        (Series("train/logprob_gap", "largest difference", _TRAIN, reduce="max"),),
        "Largest absolute difference between the log-probability of a token in the sampler and in the trainer. It "
        "should stay at rounding error, about 1e-5 in float32; with a lag it includes what the policy has learned.",
        scale="log",
    ),
)
