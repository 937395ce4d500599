"""Suites: sets of tasks that policies are evaluated on and compared by."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from rlvr_jax.config import Config, TaskConfig, from_dict, overridden, to_dict
from rlvr_jax.errors import ConfigError
from rlvr_jax.hf.families import LENGTH

_OF_TRAINING = (
    *("reward", "reward_models", "teacher", "algorithm", "critic", "curriculum", "optimizer", "sft", "preferences"),
)


@dataclass(frozen=True)
class Suite:
    """Tasks with their prompts, environments and limits.

    Attributes:
      tasks: by label, as in `config.tasks`. The same task under two labels, with and without a tool for example, is
        compared row by row.
      unseen: whether no choice may be made by its results: a second evaluation of a run is warned of (Lambert et al.
        2024, Tulu 3, arXiv:2411.15124, section 2.2, who keep a development and an unseen suite apart).
      changes: of other keys of the config, by full name, such as "rollout.max_response_length".
    """

    tasks: Mapping[str, TaskConfig]
    unseen: bool = False
    changes: Mapping[str, Any] = field(default_factory=dict)


def suite_of(data: Mapping[str, Any], where: str) -> Suite:
    """A suite from plain data: `tasks`, and optionally `unseen` and `changes`.

    Raises:
      ConfigError: it has no tasks, other keys, or keys that a task lacks; names `where`.
    """
    wrong = [
        f"has no key {key!r}; the keys are tasks, unseen, changes" for key in data.keys() - Suite.__annotations__.keys()
    ]
    tasks, unseen, changes = data.get("tasks"), data.get("unseen", False), data.get("changes", {})
    if not isinstance(tasks, Mapping) or not tasks:
        wrong.append("needs tasks, as in config.tasks")
    if not isinstance(unseen, bool):
        wrong.append(f"has unseen = {unseen!r}, which must be true or false")
    if not isinstance(changes, Mapping):
        wrong.append(f"has changes = {changes!r}, which must name keys of the config")
    if wrong:
        raise ConfigError(f"{where} {wrong[0]}")
    try:
        return Suite(from_dict({"tasks": tasks}).tasks, unseen, dict(changes))
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def read_suite(path: Path) -> Suite:
    """The suite of a JSON file. Raises ConfigError if it can't be read or is none."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--suite={path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"--suite={path} is not valid JSON: {error}") from error
    if not isinstance(data, Mapping):
        raise ConfigError(f"--suite={path} holds {type(data).__name__}, not an object with the key tasks")
    return suite_of(data, f"--suite={path}")


def check_lengths(config: Config) -> None:
    """Refuses the config of `with_suite` if its lengths, which are those of the suite, do not fit the run's policy.

    Raises:
      ConfigError: with the keys and numbers.
    """
    rollout, window = config.rollout, config.policy.max_length or LENGTH
    if not config.pretrained and rollout.max_prompt_length + rollout.max_response_length > window:
        raise ConfigError(
            "the suite is for larger policies: its config.rollout.max_prompt_length + max_response_length = "
            f"{rollout.max_prompt_length} + {rollout.max_response_length} is longer than the window of this one, "
            f"config.policy.max_length = {window}; evaluate without a suite, or with one of your own whose `changes` "
            "set smaller lengths"
        )


def with_suite(config: Config, suite: Suite, given: Collection[str] = ()) -> Config:
    """The config with the tasks of a suite, and without what is said of its own tasks or of training.

    Args:
      config: of a run.
      suite: of the tasks.
      given: keys of the config that the user has set for this evaluation, by full name, which the suite leaves alone.

    Raises:
      ConfigError: a key of `changes` does not exist.
    """
    fresh = {name: getattr(Config(), name) for name in _OF_TRAINING}
    data = to_dict(replace(config, tasks=suite.tasks, **fresh))
    return from_dict(overridden(data, {key: x for key, x in suite.changes.items() if key not in given}))
