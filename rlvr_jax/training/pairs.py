"""Preference pairs from the responses of several policies to the same training problems."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from rlvr_jax import tasks
from rlvr_jax.config import Config
from rlvr_jax.evaluation.pairs import Asked, Response
from rlvr_jax.evaluation.suites import Suite, with_suite
from rlvr_jax.judges.prompts import text_of
from rlvr_jax.parallel import Processes
from rlvr_jax.rollout.episode import Group
from rlvr_jax.tasks.decontamination import find_matches
from rlvr_jax.training.evaluating import opened_policy
from rlvr_jax.training.judging import make_judging, scored_by
from rlvr_jax.training.problems import make_task
from rlvr_jax.training.reward_models import make_model_scores
from rlvr_jax.training.setup import training_mixture
from rlvr_jax.training.workdir import read_config
from rlvr_jax.verifiers.pool import Pool

_MOST_HELDOUT = 10_000  # problems of an unbounded task that are compared


def is_run(source: str) -> bool:
    """True for the workdir of a run, False for a checkpoint."""
    return (Path(source).expanduser() / "metrics.jsonl").is_file()


def config_of(source: str, base: Config, by: str) -> Config:
    """The config with which a policy answers: its own, but for tasks, limits and scores, which are those of `base`.

    Raises:
      ConfigError: `by` is no judge or reward model of `base`.
    """
    base = scored_by(base, by)
    own = read_config(Path(source).expanduser()) if is_run(source) else dataclasses.replace(base, pretrained=source)
    plain = with_suite(own, Suite(base.tasks))
    models = {by: base.reward_models[by]} if by in base.reward_models else {}
    judges = {name: judge for name, judge in base.judges.items() if name == by or _owns(base, name)}
    same = {name: getattr(base, name) for name in ("data", "rollout", "verifier")}
    return dataclasses.replace(plain, **same, judges=judges, reward_models=models, reward=((by or "score", 1.0),))


def _owns(config: Config, judge: str) -> bool:
    """True if a task leaves its verdicts to this judge."""
    named = [task.verifier_options.get("judge", judge) for task in config.tasks.values() if task.verifier == "judge"]
    return judge in named


def sampled(
    config: Config,
    source: str,
    pool: Pool,
    processes: Processes,
    *,
    problems: int,
    samples: int,
    temperature: float,
    seed: int,
    folder: Path | None,
) -> list[Group]:
    """The responses of one policy, with their verdicts, with the scores of judges and reward models as parts.

    Args:
      config: of `config_of`.
      source: of the policy.
      pool: for verifiers and tools.
      processes: of this program.
      problems: of the training mixture, the first ones of `seed`.
      samples: of each.
      temperature: of the samples.
      seed: of problems and samples.
      folder: of the records of judges.

    Raises:
      ConfigError, CheckpointError: the policy can't be read, or can't play these tasks.
    """
    workdir = Path(source).expanduser() if is_run(source) else None
    why = "pairs are made of answers of one turn"
    with opened_policy(config, workdir, pool, processes, one_turn=why) as (setup, collector, _):
        judging, of_models = make_judging(setup, folder), make_model_scores(setup)
        examples = tasks.batch(training_mixture(setup), "train", seed, 0, problems)
        unique = list({(x.task, x.id): x for x in examples}.values())
        collector.start("pairs", unique, samples, jax.random.key(seed), temperature)
        return judging.all(of_models(judging.verdicts(collector.take("pairs"))))


def asked_of(groups: Mapping[str, Sequence[Group]], by: str, leaks: Mapping[str, str] | None = None) -> list[Asked]:
    """The problems with the responses of all policies, by name of the policy; in the order of the first."""
    found: dict[str, tuple[Any, list[Response]]] = {}
    for policy, of_policy in groups.items():
        for group in of_policy:
            example = group.example
            _, responses = found.setdefault(example.id, (example.problem or example.prompt, []))
            for episode, verdict in zip(group.episodes, group.verdicts, strict=True):
                score = None if verdict.error else verdict.parts[by] if by else verdict.score
                responses.append(Response(policy, episode.text, score, episode.length))
    return [Asked(id, prompt, tuple(of), id in (leaks or {})) for id, (prompt, of) in found.items()]


def heldout_prompts(config: Config, suite: Suite) -> list[tuple[str, str]]:
    """(id, prompt) of the held-out problems of a suite.

    Raises:
      ConfigError: a task of the suite can't be made.
    """
    config, found = with_suite(config, suite), []
    for label in suite.tasks:
        task = make_task(config, label)
        count = task.num_examples("heldout")
        examples = [task.example("heldout", i) for i in range(_MOST_HELDOUT if count is None else count)]
        found += [(f"{label}: {example.id}", text_of(example.prompt)) for example in examples]
    return list(dict(found).items())


def leaked(groups: Sequence[Group], config: Config, suite: Suite) -> dict[str, str]:
    """The ids of the problems that leak a held-out one of a suite, each with its id; see `tasks.decontamination`.

    Raises:
      ConfigError: as `heldout_prompts`.
    """
    own = {group.example.id: text_of(group.example.problem or group.example.prompt) for group in groups}
    matches = find_matches(list(own.items()), heldout_prompts(config, suite))
    return {match.train_id: match.heldout_id for match in matches}
