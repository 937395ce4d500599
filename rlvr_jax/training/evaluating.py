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

from rlvr_jax import parallel
from rlvr_jax.config import Config, anywhere
from rlvr_jax.errors import ConfigError
from rlvr_jax.evaluation import Evaluation, evaluate
from rlvr_jax.evaluation.results import rows_of
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
    """

    step: int
    problems: int
    samples: int
    seed: int
    tasks: tuple[str, ...]
    seconds: float
    found: Evaluation

    def plain(self) -> dict[str, Any]:
        """As JSON data: settings, metrics, cost, and under "values" the results by metric and problem."""
        values = {name: {f"{task}: {id}": x for (task, id), x in of.items()} for name, of in self.found.values.items()}
        settings = {"step": self.step, "problems": self.problems, "samples": self.samples, "seed": self.seed}
        return settings | self.found.metrics | {"tokens": self.found.tokens, "seconds": self.seconds, "values": values}

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
      one_turn: the reason why no training task may have several turns, if none may.

    Raises:
      ConfigError, CheckpointError: the config can't run, or the policy can't be read.
    """
    setup = make_setup(anywhere(config, jax.device_count()), pool=pool, processes=processes or Processes())
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
      samples: of each problem.
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
    ks = tuple(ks) or tuple(2**i for i in range(samples.bit_length()))
    sizes = {"problems": problems, "pass_problems": problems, "pass_samples": samples, "ks": ks, "shown": 0}
    evaluation, judges = replace(config.evaluation, **sizes), dict(judges)
    config = replace(config, evaluation=evaluation, judges={**config.judges, **judges})
    known = (*config.reward_models, *config.judges)
    if unknown := [name for name in best_by if name not in known]:
        raise ConfigError(
            f"best_by: {unknown[0]!r} is neither a reward model of config.reward_models nor a judge; there are "
            f"{', '.join(known) or 'none'}"
        )
    with opened_policy(config, workdir, pool, processes, step) as (setup, collector, step):
        folder = workdir and workdir / FOLDER
        judging = make_judging(setup, folder, tuple(judges))
        asked = make_judging(setup, folder, tuple(best_by))
        best = {name: partial(asked.score, name) for name in asked.names}
        best |= {x: make_model_scores(setup, (x,)) for x in best_by if x in config.reward_models}
        examples, key, began = heldout_problems(setup), jax.random.key(seed), time.perf_counter()
        found = evaluate(collector, *examples, samples, key, ks, majority=True, judging=judging, best_by=best)
        seconds = time.perf_counter() - began
    return Evaluated(step, problems, samples, seed, tuple(setup.tasks), seconds, found)
