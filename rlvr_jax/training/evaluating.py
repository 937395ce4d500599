"""The evaluation of a policy that is not being trained."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax

from rlvr_jax import own_code, parallel
from rlvr_jax.config import Config, anywhere
from rlvr_jax.errors import ConfigError
from rlvr_jax.evaluation import Evaluation, evaluate
from rlvr_jax.evaluation.results import rows_of
from rlvr_jax.own_code import Code
from rlvr_jax.parallel import Processes
from rlvr_jax.rollout.collector import Collector
from rlvr_jax.training.functions import make_asked, make_collector, make_sampler
from rlvr_jax.training.heldout import heldout_problems
from rlvr_jax.training.judging import FOLDER, make_judging
from rlvr_jax.training.reward_models import make_model_scores
from rlvr_jax.training.setup import Setup, make_setup
from rlvr_jax.training.start import initial_params, load_run
from rlvr_jax.verifiers.judge import JudgeConfig
from rlvr_jax.verifiers.pool import Pool


@dataclass(frozen=True)
class Evaluated:
    """An evaluation with its settings.

    Attributes:
      step: of the policy's checkpoint; 0 without a run.
      problems, samples, seed: as asked for.
      tasks: labels of the tasks.
      seconds: of sampling and judging, compilation included.
      found: the results.
      limits: most tokens of a prompt and of a response.
      dropped: by task, the problems whose prompts are longer.
      code: checksums of the user's functions that the tasks name.
      edits: their files that are not those of the run.
    """

    step: int
    problems: int
    samples: int
    seed: int
    tasks: tuple[str, ...]
    seconds: float
    found: Evaluation
    limits: tuple[int, int]
    dropped: Mapping[str, int]
    code: Code
    edits: Sequence[str]

    def plain(self) -> dict[str, Any]:
        """As JSON data: settings, metrics, cost, and under "values" the results by metric and problem."""
        values = {name: {f"{task}: {id}": x for (task, id), x in of.items()} for name, of in self.found.values.items()}
        settings = {"step": self.step, "problems": self.problems, "samples": self.samples, "seed": self.seed}
        left = {f"task/{task}/dropped_prompts": count for task, count in self.dropped.items()}
        cut = {f"task/{task}/cut_off": share for task, share in self.cut_off().items()}
        costs = {"tokens": self.found.tokens, "seconds": self.seconds}
        code = {"code": self.code} if self.code else {}
        return settings | self.found.metrics | left | cut | costs | code | {"values": values}

    def cut_off(self) -> dict[str, float]:
        """By task, the share of greedy responses that the limit of tokens cut off."""
        ends: dict[str, list[bool]] = {}
        for group in self.found.greedy:
            ends.setdefault(group.example.task, []).append(group.episodes[0].cut_off)
        return {task: sum(of) / len(of) for task, of in ends.items()}

    def notes(self) -> list[str]:
        """What the numbers also depend on, in words."""
        prompt, response = self.limits
        left = [f"{count} of {task}" for task, count in self.dropped.items() if count]
        cut = [f"{share:.0%} of {task}" for task, share in self.cut_off().items() if share]
        errors = self.found.metrics["eval/errors"]
        told = [f"problems left out, with prompts of more than {prompt} tokens: {', '.join(left)}"] * bool(left)
        told += [f"greedy responses cut off after {response} tokens: {', '.join(cut)}"] * bool(cut)
        told += [f"the run was made with another version of {', '.join(self.edits)}"] * bool(self.edits)
        return told + [f"responses that could not be judged, which count as wrong: {errors:.0f}"] * bool(errors)

    def rows(self) -> list[dict[str, Any]]:
        """The responses, a row for each problem, see `rlvr_jax.evaluation.results`."""
        return rows_of(self.found)


@contextlib.contextmanager
def opened_policy(
    config: Config,
    workdir: Path | None,
    pool: Pool,
    processes: Processes | None = None,
    step: int | None = None,
    one_turn: str = "",
) -> Iterator[tuple[Setup, Collector, int]]:
    """A policy that plays: the parts of a run, a collector of its episodes, and the step of its checkpoint.

    Args:
      config: whose tasks and limits hold.
      workdir: of the run whose policy it is; None for the one that the config starts from.
      pool: for verifiers and tools.
      processes: of this program.
      step: of the checkpoint; the newest by default.
      one_turn: why no task with a weight may have several turns, where its training problems are played; without a
        reason none are, and none are needed.

    Raises:
      ConfigError, CheckpointError: the config can't run, or the policy can't be read.
    """
    places = {"pool": pool, "processes": processes or Processes()}
    setup = make_setup(anywhere(config, jax.device_count()), **places, trains=bool(one_turn))
    for label, source in setup.sources.items():
        if one_turn and not source.env.one_turn and config.tasks[label].weight > 0:
            raise ConfigError(
                f"config.tasks.{label}.environment = {config.tasks[label].environment!r} has episodes of several "
                f"turns, and {one_turn}; leave it out, or set the task's weight to 0"
            )
    with parallel.use_mesh(setup.mesh):
        if workdir is None:
            params, step = initial_params(setup, jax.random.key(config.seed)), 0
        else:
            params, step = load_run(setup, workdir, step)
        sampler = make_sampler(setup)
        sampler.set_params(params, step)
        yield setup, make_collector(setup, sampler, pool, make_asked(setup)), step


def evaluate_policy(
    config: Config,
    workdir: Path | None,
    pool: Pool,
    processes: Processes | None = None,
    *,
    problems: int = 256,
    samples: int = 16,
    ks: Sequence[int] = (),
    step: int | None = None,
    seed: int = 0,
    judges: Mapping[str, JudgeConfig] = MappingProxyType({}),
    best_by: Sequence[str] = (),
) -> Evaluated:
    """Greedy accuracy, pass@k and maj@k of a policy on held-out problems.

    Args:
      config: whose tasks and limits hold.
      workdir: of the run whose policy it is; None for the one that the config starts from.
      pool: for verifiers and tools.
      processes: of this program.
      problems: of each task at most, answered greedily and sampled.
      samples: of each problem; 0 for greedy responses alone.
      ks: of pass@k and maj@k; by default the powers of two up to `samples`.
      step: of the checkpoint; the newest by default.
      seed: of the samples.
      judges: by name, which score the greedy responses; those of the config are only asked for the verdicts of tasks
        that leave them to one.
      best_by: reward models of the config and judges by which the best of k samples is chosen.

    Raises:
      ConfigError, CheckpointError: the config can't run, a k is not from 1 to `samples`, or the policy can't be read.
    """
    if wrong := [k for k in ks if not 1 <= k <= samples]:
        raise ConfigError(f"ks: {wrong[0]} is not a number from 1 to the number of samples, {samples}")
    if best_by and not samples:
        raise ConfigError("best_by chooses among samples, of which there are 0")
    ks = tuple(ks) or tuple(2**i for i in range(samples.bit_length()))
    sizes = {"problems": problems, "pass_problems": problems if samples else 0, "pass_samples": max(1, samples)}
    sizes |= {"ks": ks, "shown": 0}
    evaluation, judges = replace(config.evaluation, **sizes), dict(judges)
    config = replace(config, evaluation=evaluation, judges={**config.judges, **judges})
    known = (*config.reward_models, *config.judges)
    if unknown := [name for name in best_by if name not in known]:
        raise ConfigError(
            f"best_by: {unknown[0]!r} is neither a reward model of config.reward_models nor a judge; there are "
            f"{', '.join(known) or 'none'}"
        )
    code = own_code.checksums(config, own_code.OF_TASKS)
    edits = own_code.changed(own_code.recorded(workdir / "environment.json"), code) if workdir else []
    with opened_policy(config, workdir, pool, processes, step) as (setup, collector, step):
        folder = workdir and workdir / FOLDER
        judging = make_judging(setup, folder, tuple(judges))
        asked = make_judging(setup, folder, tuple(best_by))
        best = {name: partial(asked.score, name) for name in asked.names}
        best |= {x: make_model_scores(setup, (x,)) for x in best_by if x in config.reward_models}
        examples, key, began = heldout_problems(setup), jax.random.key(seed), time.perf_counter()
        found = evaluate(collector, *examples, samples, key, ks, majority=True, judging=judging, best_by=best)
        seconds = time.perf_counter() - began
    limits = config.rollout.max_prompt_length, config.rollout.max_response_length
    tasks = tuple(setup.tasks)
    return Evaluated(step, problems, samples, seed, tasks, seconds, found, limits, setup.dropped, code, edits)
