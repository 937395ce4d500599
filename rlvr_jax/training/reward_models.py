"""Trained reward models as terms of the reward: frozen copies on the devices, which score episodes in batches.

The score of an episode is a part of its verdict, under the model's name in `config.reward_models`. It is normalised by
the mean and the standard deviation of the rewards of held-out completions, which are stored with the model.
"""

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from rlvr_jax import parallel
from rlvr_jax.errors import ConfigError
from rlvr_jax.learner.batch import Batch, layout
from rlvr_jax.learner.preferences import rewards_of
from rlvr_jax.policy import Params, PolicyConfig
from rlvr_jax.rollout.episode import Group
from rlvr_jax.training.frozen import find_frozen
from rlvr_jax.training.setup import Setup
from rlvr_jax.training.workdir import HELDOUT


@dataclasses.dataclass(frozen=True)
class RewardModel:
    """A reward model that can be loaded.

    Attributes:
      name: of the reward's term.
      shape: its architecture.
      mean, std: of the rewards of held-out completions; 0 and 1 if they are unknown.
      load: a function that reads its parameters onto the devices of the run.
    """

    name: str
    shape: PolicyConfig
    mean: float
    std: float
    load: Callable[[], Params]


def find_reward_models(setup: Setup, names: Sequence[str] | None = None) -> list[RewardModel]:
    """The reward models of `config.reward_models` (or those of `names`), checked, without reading their parameters.

    Raises:
      ConfigError: one is no reward model, can't be read, or has another vocabulary than the policy.
    """
    found = []
    for name, source in setup.config.reward_models.items():
        if names is not None and name not in names:
            continue
        key = f"config.reward_models.{name}"
        model = find_frozen(setup, source, key, "reward")
        try:
            statistics = _statistics(Path(source).expanduser())
        except ConfigError as error:
            raise ConfigError(f"{key}: {error}") from error
        found.append(RewardModel(name, model.shape, *statistics, model.load))
    return found


def _statistics(folder: Path) -> tuple[float, float]:
    path = folder / HELDOUT
    if not path.is_file():
        return 0.0, 1.0
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        mean, std = float(told["reward_mean"]), float(told["reward_std"])
        if not (math.isfinite(mean) and 0 <= std < math.inf):
            raise ValueError(f"{mean} and {std}")
        return mean, std or 1.0
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise ConfigError(
            f"{path} is damaged, it lacks the mean and standard deviation of rewards: {error!r}"
        ) from None


def make_model_scores(setup: Setup, names: Sequence[str] | None = None) -> Callable[[Sequence[Group]], list[Group]]:
    """The function that adds the scores of reward models to the verdicts of groups, as parts; of all without `names`.

    Raises:
      ConfigError: see `find_reward_models`.
      CheckpointError: the arrays of a checkpoint are damaged.
    """
    models = find_reward_models(setup, names)
    scorers = {model.name: _scorer(setup, model) for model in models}

    def scored(groups: Sequence[Group]) -> list[Group]:
        windows = [episode.sequences[-1] for group in groups for episode in group.episodes]
        columns = {name: scorer(windows) for name, scorer in scorers.items()}
        found, start = [], 0
        for group in groups:
            parts = [
                {name: float(column[start + i]) for name, column in columns.items()} for i in range(len(group.episodes))
            ]
            start += len(group.episodes)
            verdicts = tuple(
                dataclasses.replace(verdict, parts={**verdict.parts, **part})
                for verdict, part in zip(group.verdicts, parts, strict=True)
            )
            found.append(dataclasses.replace(group, verdicts=verdicts))
        return found

    return scored if models else list


def _scorer(setup: Setup, model: RewardModel) -> Callable[[Sequence[Any]], Float[np.ndarray, "episodes"]]:
    """The normalised rewards of context windows: a function of these, in batches of a fixed size."""
    rollout, algorithm, sharding = setup.config.rollout, setup.config.algorithm, parallel.batch_sharding(setup.mesh)
    devices = setup.mesh.shape["data"] * setup.mesh.shape["fsdp"]
    rows = rollout.prompts * rollout.group_size // (algorithm.minibatches * setup.config.optimizer.microbatches)
    rows = -(-rows // devices) * devices
    params = model.load()

    def rewards(params: Params, batch: Batch) -> Float[Array, "batch"]:
        return rewards_of(model.shape, params, batch)

    jitted = jax.jit(rewards, in_shardings=(None, sharding))

    def scorer(windows: Sequence[Any]) -> Float[np.ndarray, "episodes"]:
        found = []
        for start in range(0, len(windows), rows):
            part = list(windows[start : start + rows])
            part += part[:1] * (rows - len(part))
            prompts, responses = [x.prompt for x in part], [x.response for x in part]
            batch = layout(prompts, responses, rollout.max_prompt_length, rollout.max_response_length)
            found.append(np.asarray(parallel.readable(jitted(params, parallel.put(batch, sharding)))))
        return (np.concatenate(found)[: len(windows)].astype(np.float64) - model.mean) / model.std

    return scorer
