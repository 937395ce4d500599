"""Validity rules of the settings of supervised runs; `config_rules.py` has those of single numbers."""

import math
import re
from collections.abc import Iterator

from rlvr_jax.config import Config, SupervisedRun, supervised_options

RUNS: tuple[SupervisedRun, ...] = ("sft", "preferences")
LABEL = r"[A-Za-z0-9_.-]+"  # of tasks and sources, which are parts of names of metrics


def rules(c: Config) -> Iterator[tuple[bool, str]]:
    """(Is it wrong, message) of each rule."""
    for name in RUNS:
        s, where = supervised_options(c, name), f"config.{name}"
        for key, source in s.sources.items():
            yield (
                not re.fullmatch(LABEL, key),
                f"{where}.sources.{key}: the name of a source is made of letters, digits, _ . and -",
            )
            yield not source.file, f"{where}.sources.{key}.file is empty: name a file, or a folder of a data set"
            yield (
                not 0 <= source.weight < math.inf,
                f"{where}.sources.{key}.weight must be 0 or more and finite, not {source.weight}",
            )
        yield (
            bool(s.sources) and not any(source.weight > 0 for source in s.sources.values()),
            f"{where}.sources: none has a weight above 0",
        )
    yield (
        bool(c.sft.sources) and bool(c.sft.tasks),
        "config.sft.sources and config.sft.tasks are both set; chats of files or demonstrations of tasks are learned",
    )
    for name, value in c.sft.tasks.items():
        yield (
            name not in c.tasks,
            f"config.sft.tasks names {name!r}, which is not in config.tasks: {', '.join(c.tasks)}",
        )
        yield (
            not 0 < value < math.inf,
            f"config.sft.tasks.{name} must be a weight above 0 and finite, not {value!r}",
        )
    for key in c.reward_models:
        yield (
            not re.fullmatch(LABEL, key),
            f"config.reward_models.{key}: the name of a reward model is made of letters, digits, _ . and -",
        )
    p = c.preferences
    yield not c.sft.roles, "config.sft.roles is empty: nothing would be trained on"
    yield not 0 <= p.heldout_share < 1, f"config.preferences.heldout_share must be in [0, 1), not {p.heldout_share}"
    yield (
        not 0 <= p.label_smoothing < 0.5,
        f"config.preferences.label_smoothing must be in [0, 0.5), not {p.label_smoothing}",
    )
    used = {"label_smoothing": ("dpo", "dpo_norm"), "centring": ("bradley_terry",)}
    used["margin"] = ("dpo", "dpo_norm", "simpo", "bradley_terry")
    for key, losses in used.items():
        yield (
            getattr(p, key) != 0 and p.loss not in losses,
            f"config.preferences.{key} = {getattr(p, key)} has no effect on config.preferences.loss = {p.loss!r}; it "
            f"is for {', '.join(losses)}",
        )
    for key in ("desirable", "undesirable"):
        yield (
            getattr(p, key) != 1 and p.loss != "kto",
            f"config.preferences.{key} = {getattr(p, key)} has no effect on config.preferences.loss = {p.loss!r}; it "
            "is for kto",
        )
    yield (
        p.loss == "bradley_terry" and not p.heldout_share,
        "config.preferences.loss = 'bradley_terry' needs held-out pairs, whose rewards normalise those of the model; "
        "set config.preferences.heldout_share above 0",
    )
    yield (
        p.loss == "bradley_terry" and c.policy.lora.rank > 0,
        f"config.preferences.loss = 'bradley_terry' trains a whole decoder, and config.policy.lora.rank = "
        f"{c.policy.lora.rank} adapters; set rank=0",
    )
