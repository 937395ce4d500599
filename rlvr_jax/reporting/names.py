"""The names of metrics, as docs/metrics.md lists them."""

import difflib
from collections.abc import Iterable
from fnmatch import fnmatchcase

# Of each group; `*` stands for the names of a config, such as those of its tasks or the terms of its reward.
_GROUPS = {
    "train": (
        *("reward", "reward_*", "accuracy", "score", "response_length", "response_length_right"),
        *("response_length_wrong", "surprisal_right", "surprisal_wrong", "truncated", "turns", "sequences", "finish/*"),
        *("lag", "max_lag", "entropy", "entropy_positive", "entropy_negative", "entropy_coef", "kl", "kl_k1"),
        *("kl_sample", "policy_kl", "log_ratio", "ratio_p*", "loss", "clip_fraction", "clip_low", "clip_high"),
        *("clip_dual", "importance_raw", "importance_chi2", "importance_q*", "importance_sample"),
        *("importance_sample_chi2", "effective_actions", "effective_samples", "importance_weight"),
        *("importance_masked", "grad_norm", "learning_rate", "zero_signal_groups", "zero_signal_positive", "kept"),
        *("advantage_mean", "advantage_std", "advantage_max", "advantage_zero", "teacher_divergence", "teacher_kl"),
        *("logprob_gap", "logprob_gap_mean", "logprob_correlation", "probability_gap"),
        *("skipped_steps", "kl_episode", "kl_reward_coef", "unfiltered_reward", "unfiltered_accuracy"),
        *("greedy_reward", "tracked_reward", "state_value"),
    ),
    "critic": ("value", "return", "explained_variance", "loss", "clip_fraction", "grad_norm"),
    "curriculum": (*("pass_rate/*", "share/*", "problems", "pass_rate", "outside", "left_out", "stage"),),
    "replay": ("groups", "age", "size"),
    "rollout": ("draws", "states", "occupancy", "received_bytes"),
    "part": ("*",),
    "tool": ("*/calls", "*/episodes", "*/success", "*/tokens", "malformed", "outcome/*"),
    "judge": ("*/unjudged",),
    "verify": ("errors",),
    "sft": ("loss", "*/loss"),
    "data": ("*/rows", "*/left_out", "*/heldout", "*/length", "*/longest", "*/truncated"),
    "preferences": (
        *("loss", "accuracy", "margin", "chosen_reward", "rejected_reward", "good_reward", "bad_reward"),
        *("chosen_logprob", "rejected_logprob", "good_logprob", "bad_logprob", "log_ratio", "baseline"),
    ),
    "eval": (
        *("greedy_accuracy", "pass@*", "judge/*", "*_low", "*_high", "response_length", "errors"),
        *("preference_accuracy", "preference_pairs", "preference_margin", "calibration_error"),
        *("longer_chosen", "longer_preferred", "length_correlation"),
    ),
    "task": (
        *("*/reward", "*/accuracy", "*/response_length", "*/turns", "*/*/reward", "*/greedy_accuracy", "*/pass@*"),
        *("*/*_low", "*/*_high", "*/dropped_prompts"),
    ),
    "time": (
        *("rollout", "verify", "train", "tool/*", "layout", "evaluate", "save", "step", "rollout_tokens_per_second"),
        *("train_tokens_per_second", "sft_tokens_per_second"),
    ),
}
NAMES = tuple(f"{group}/{name}" for group, names in _GROUPS.items() for name in names)


def is_known(metric: str) -> bool:
    """True if a run may log this metric."""
    return any(fnmatchcase(metric, name) for name in NAMES)


def nearest(metric: str, names: Iterable[str] = NAMES) -> list[str]:
    """The names, best first, that a misspelt one may stand for; at most 3."""
    return difflib.get_close_matches(metric, list(names), n=3)
