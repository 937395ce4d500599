"""Trials of verifiers, rewards, advantages and losses before a run starts."""

from collections.abc import Mapping
from dataclasses import replace

import jax
import numpy as np

from rlvr_jax import named
from rlvr_jax.config import Config
from rlvr_jax.errors import ConfigError, error_text
from rlvr_jax.learner.advantages import advantages
from rlvr_jax.learner.batch import COLUMNS, layout
from rlvr_jax.learner.credit import by_action, has_critic, has_states, has_tracker
from rlvr_jax.learner.losses import Loss, Sums
from rlvr_jax.learner.objectives import LOSSES, make_loss
from rlvr_jax.learner.rewards import TERMS, reward
from rlvr_jax.learner.samples import make_samples
from rlvr_jax.policy import PolicyConfig, shapes_with_adapters
from rlvr_jax.rollout.episode import Group, empty_episode
from rlvr_jax.rollout.playing import Source
from rlvr_jax.sandbox.engine import open_sandbox
from rlvr_jax.sandbox.host import SandboxError
from rlvr_jax.tasks import Example, Task
from rlvr_jax.training.problems import first_example
from rlvr_jax.verifiers import verify
from rlvr_jax.verifiers.pool import Job, Pool
from rlvr_jax.verifiers.verdict import Verdict


def check_reward(config: Config, sources: Mapping[str, Source], pool: Pool | None = None) -> tuple[str, ...]:
    """Tries the verifiers and the reward on empty completions.

    Every verdict has all parts of its verifier, so judging an empty completion reveals the available terms.

    Args:
      config: of the run.
      sources: its tasks and their environments.
      pool: for user-defined verifiers, with its limits; None for this process, without limits.

    Returns:
      The names of the parts that verdicts have.

    Raises:
      ConfigError: a verifier or term can't be used; names its file and line.
    """
    groups = []
    for label, source in sources.items():
        task, example = source.task, first_example(source.task)
        if named.is_name(task.verifier):
            verdict = _try_verifier(label, task, example, pool or Pool(0))
        else:
            verdict = verify(task.verifier, "", example.reference, **task.verifier_options)
            if verdict.error and task.verifier != "judge":  # which a judge answers later
                raise ConfigError(
                    f"config.tasks.{label}: its verifier {task.verifier!r} can't judge {example.id}: {verdict.error}"
                )
        verdict = replace(verdict, parts={**verdict.parts, **dict.fromkeys(source.env.parts, 0.0)})
        for key, names in (("reward_models", config.reward_models), ("judges", config.judges)):
            if taken := {*names} & {*verdict.parts, *TERMS}:
                raise ConfigError(
                    f"config.{key}: {', '.join(sorted(taken))} is the name of another term of the reward; choose "
                    "another name"
                )
            verdict = replace(verdict, parts={**verdict.parts, **dict.fromkeys(names, 0.0)})
        groups.append(Group(example, (empty_episode(example),), (verdict,)))
    verdicts = [group.verdicts[0] for group in groups]
    rewards = reward(config.reward, groups, seconds=config.verifier.timeout)
    for before, after in zip(verdicts, rewards.verdicts, strict=True):
        if after.error and not before.error:
            raise ConfigError(f"config.reward: on an empty completion {after.error}")
    return tuple(sorted({name for verdict in verdicts for name in verdict.parts}))


def check_algorithm(config: Config, policy: PolicyConfig) -> None:
    """Tries the advantage and the loss of the config.

    Raises:
      ConfigError: one can't be used; names its key, file and line.
    """
    algorithm, rollout = config.algorithm, config.rollout
    try:
        key = "advantage"
        if algorithm.advantage != "baseline":
            rewards, groups = np.array([1, 0, 0.5, 0.5, 0], np.float32), np.array([0, 0, 1, 1, 2], np.int32)
            advantages(algorithm, make_samples(rewards, groups, groups < 2), config.verifier.timeout)
        key = "loss"
        loss = make_loss(policy, algorithm, rollout.temperature, rollout.episode_length)
        if algorithm.loss not in LOSSES:
            _try_loss(config, policy, loss)
    except ValueError as error:
        name = repr(getattr(algorithm, key))
        raise ConfigError(f"config.algorithm.{key} = {name}: {str(error).removeprefix(f'{name}: ')}") from error


def check_episodes(config: Config, sources: Mapping[str, Source]) -> None:
    """Raises ConfigError if the algorithm or the curriculum asks for what a task to train on can't have."""
    algorithm = config.algorithm
    states = has_states(algorithm)
    by_problem = "curriculum.by = 'problem'" * (config.curriculum.by == "problem")
    by_problem = "algorithm.baseline = 'tracker'" if has_tracker(algorithm) else by_problem
    for name, source in sources.items():
        if source.env.credit is not None and by_action(algorithm):
            raise ConfigError(
                f"config.tasks.{name}.environment gives questions rewards of their own, which are for advantages of "
                f"whole sequences, and config.algorithm.baseline = {algorithm.baseline!r} has those of actions; use "
                "another baseline"
            )
        if by_problem and config.tasks[name].weight > 0 and source.task.num_examples("train") is None:
            raise ConfigError(
                f"config.{by_problem} is for problems that come again, and those of config.tasks.{name} are ever new; "
                "use a finite task, another baseline, or config.curriculum.by = 'level'"
            )
        if config.tasks[name].weight == 0 or not (states or algorithm.demonstrations):
            continue
        why = "baseline = 'monte_carlo'" if states else f"demonstrations = {algorithm.demonstrations}"
        if not source.env.one_turn:
            raise ConfigError(
                f"config.algorithm.{why} is for episodes of one turn, and config.tasks.{name}.environment = "
                f"{config.tasks[name].environment!r} may have several; use another baseline, or demonstrations = 0"
            )
        if algorithm.demonstrations and source.task.demonstration is None:
            raise ConfigError(
                f"config.algorithm.{why}: the task config.tasks.{name} has none; set demonstrations = 0, or its weight "
                "to 0 beside other tasks"
            )


def _try_loss(config: Config, policy: PolicyConfig, loss: Loss) -> None:
    """Traces a loss, which computes nothing. Raises ValueError if it can't be used."""
    name, rollout = config.algorithm.loss, config.rollout
    known = [name for name in COLUMNS if name not in ("values", "returns") or has_critic(config.algorithm)]
    if unknown := [column for column in loss.needs if column not in known]:
        raise ValueError(f"it needs the columns {', '.join(unknown)}; there are {', '.join(known)}")
    rows = [[0]] * loss.rows_together
    batch = layout(rows, rows, rollout.max_prompt_length, rollout.max_response_length)
    batch = batch.with_columns(**dict.fromkeys(loss.needs, batch.action_mask))
    params = {"policy": shapes_with_adapters(policy)}
    try:
        sums = jax.eval_shape(loss.sums, params, batch)
    except (Exception, SystemExit) as error:
        raise ValueError(f"{named.raised_at(error, name)}: {error_text(error)}") from error
    if not isinstance(sums, Sums):
        raise ValueError(f"{named.where(name)}: its sums are {type(sums).__name__}, not rlvr_jax.learner.losses.Sums")
    reported = [{k: x for k, x in y.items() if not k.startswith("_")} for y in (sums.means, sums.largest)]
    shapes = [getattr(x, "shape", ()) for x in jax.tree.leaves((sums.loss, sums.weight, reported))]
    if any(shapes):
        raise ValueError(f"{named.where(name)}: its sums have the shapes {shapes}; all must be single numbers")


def _try_verifier(label: str, task: Task, example: Example, pool: Pool) -> Verdict:
    """The verdict of a user-defined verifier on an empty completion.

    Raises:
      ConfigError: it fails on a short completion; names its file and line.
    """
    name, key = task.verifier, f"config.tasks.{label}.verifier"
    try:
        named.check_arguments(name, "completion", "reference", **task.verifier_options)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from None
    texts = ("", "?")
    verdicts = pool.judge([Job(name, text, example.reference, task.verifier_options) for text in texts])
    for text, verdict in zip(texts, verdicts, strict=True):
        if verdict.error:
            place = "" if ", line " in verdict.error else f"{named.where(name)}: "
            raise ConfigError(
                f"{key}: {place}{name!r} on the completion {text!r} of {example.id}: {verdict.error}. "
                "It should score unparsable completions 0; a sample with an error is left out of training"
            )
    return verdicts[0]


def sandbox_engine(sources: Mapping[str, Source]) -> str:
    """The sandbox engine for model-written code, found by trial on this machine; empty if no task has any."""
    engines = set()
    for label, source in sources.items():
        wanted, options = list(source.env.sandboxes), source.task.verifier_options
        if source.task.verifier == "code":
            wanted.append((options.get("engine", "auto"), options.get("packages", ())))
        for engine, packages in wanted:
            try:
                with open_sandbox(engine, packages) as sandbox:
                    engines.add(sandbox.engine)
            except (SandboxError, ValueError) as error:
                raise ConfigError(f"config.tasks.{label}: {error}") from error
    return ", ".join(sorted(engines))
