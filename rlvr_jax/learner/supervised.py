"""Settings of supervised runs: their data, their loss, their updates."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from rlvr_jax.learner.optimizer import OptimizerConfig

PreferenceLoss = Literal["dpo", "dpo_norm", "ipo", "simpo", "kto", "bradley_terry"]


@dataclass(frozen=True)
class SourceConfig:
    """A file of chats or preferences, see docs/preferences.md.

    Attributes:
      file: a .jsonl, .json, .csv or .parquet file, or a folder of a Hugging Face data set, whose split "train" is read.
      weight: its relative share of the training rows.
    """

    file: str = ""
    weight: float = 1.0


@dataclass(frozen=True)
class SftConfig:
    """Supervised learning: of chats, or of a task's demonstrations as a warm start.

    Attributes:
      sources: files of chats by name, mixed by their weights; without any the tasks' demonstrations.
      tasks: weights of the tasks whose demonstrations are imitated; empty for those of `config.tasks`.
      roles: of the messages that are trained on.
      turns: "all" trains on all messages of these roles, "last" on the last message of a chat only.
      packing: whether several chats share a row, each attending to itself alone: the same updates with less padding.
      overlong: "truncate" chats longer than `rollout.max_prompt_length + max_response_length`, or "drop" them.
      num_steps: updates.
      batch_size: demonstrations or chats per update.
      updates_per_call: most updates in one compiled call, and between log lines: the greatest number up to it is taken
        that divides `num_steps` and, where there are checkpoints before the end, `save_every`.
      save_every: updates between checkpoints.
      optimizer: its optimizer.
    """

    sources: Mapping[str, SourceConfig] = field(default_factory=dict)
    tasks: Mapping[str, float] = field(default_factory=dict)
    roles: tuple[Literal["assistant", "user", "system", "tool"], ...] = ("assistant",)
    turns: Literal["all", "last"] = "all"
    packing: bool = True
    overlong: Literal["truncate", "drop"] = "truncate"
    num_steps: int = 1400
    batch_size: int = 64
    updates_per_call: int = 100
    save_every: int = 700
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(learning_rate=3e-3, warmup_steps=50, decay="linear")
    )


@dataclass(frozen=True)
class PreferencesConfig:
    """Learning from preferences: the policy, or a reward model (`loss` "bradley_terry").

    Attributes:
      loss: one of `rlvr_jax.learner.preferences.LOSSES`.
      beta: of the loss: the strength of the pull to the reference policy, or for "simpo" the scale of rewards.
      label_smoothing: the share of pairs that are taken to be labelled wrongly, for "dpo" and "dpo_norm".
      margin: factor of each pair's margin (1 if its record has none), which the chosen completion has to win by: the
        gamma of "simpo", and 0 for no margins.
      centring: weight of the squared sum of a pair's rewards, for "bradley_terry".
      desirable, undesirable: weights of good and bad completions, for "kto".
      sources: files of preferences by name, mixed by their weights.
      heldout_share: share of the prompts of each source that is held out, by their hash.
      packing: "prefix_tree" trains on one row for each pair, which holds its prompt once, "none" on two.
      overlong: "truncate" completions longer than `rollout.max_response_length`, or "drop" their pairs.
      num_steps: updates.
      batch_size: pairs per update, or single completions for "kto".
      updates_per_call: most updates in one compiled call, and between log lines: the greatest number up to it is taken
        that divides `num_steps` and, where there are checkpoints before the end, `save_every`.
      save_every: updates between checkpoints, each with an evaluation on the held-out pairs.
      optimizer: its optimizer.
    """

    loss: PreferenceLoss = "dpo"
    beta: float = 0.1
    label_smoothing: float = 0.0
    margin: float = 0.0
    centring: float = 0.0
    desirable: float = 1.0
    undesirable: float = 1.0
    sources: Mapping[str, SourceConfig] = field(default_factory=dict)
    heldout_share: float = 0.05
    packing: Literal["none", "prefix_tree"] = "prefix_tree"
    overlong: Literal["truncate", "drop"] = "truncate"
    num_steps: int = 1000
    batch_size: int = 64
    updates_per_call: int = 10
    save_every: int = 500
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(learning_rate=5e-7, warmup_steps=100, decay="linear")
    )


def updates_in_a_call(options: SftConfig | PreferencesConfig, done: int = 0) -> int:
    """The updates of one compiled call after `done` ones: the greatest number up to `updates_per_call` that meets every
    checkpoint and the last update."""
    saved = options.save_every if options.save_every < options.num_steps else 0
    common = math.gcd(options.num_steps, saved, done)
    return next(count for count in range(min(options.updates_per_call, common), 0, -1) if common % count == 0)
