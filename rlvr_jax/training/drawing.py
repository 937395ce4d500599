"""Judged samples of a policy on training problems, in parts that can be drawn by themselves."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from rlvr_jax import tasks
from rlvr_jax.config import Config
from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.critic import CriticConfig
from rlvr_jax.learner.rewards import Rewards, joined, reward
from rlvr_jax.parallel import Processes
from rlvr_jax.rollout.episode import Group
from rlvr_jax.tasks import Example
from rlvr_jax.tasks.curriculum import CurriculumConfig
from rlvr_jax.training.evaluating import opened_policy
from rlvr_jax.training.judging import FOLDER, make_judging
from rlvr_jax.training.reward_models import make_model_scores
from rlvr_jax.training.setup import Setup, training_mixture
from rlvr_jax.verifiers.pool import Pool

_OF_A_KEY = 4096  # episodes whose random streams come from one key
_AT_ONCE = 1024  # episodes of a part
_HINTED = 2**31  # the random streams of hinted samples: fold_in(the key, this)


@dataclass(frozen=True)
class Draws:
    """Samples to be drawn.

    Attributes:
      setup: of the policy.
      step: of its checkpoint.
      problems: different ones.
      parts: their indices, in order.
      draw: (indices of a part, or of some of it, what changes their problems or None) -> groups and their rewards. A
        changed problem has random streams of its own.
    """

    setup: Setup
    step: int
    problems: list[Example]
    parts: list[Sequence[int]]
    draw: Callable[[Sequence[int], Callable[[Example], Example] | None], tuple[list[Group], Rewards]]


@contextlib.contextmanager
def opened_draws(
    config: Config,
    workdir: Path | None,
    pool: Pool,
    processes: Processes | None = None,
    *,
    problems: int = 512,
    samples: int = 8,
    temperature: float | None = None,
    step: int | None = None,
    seed: int = 0,
    number: int = 0,
) -> Iterator[Draws]:
    """Samples of a policy, with the scores of reward models and judges.

    Args:
      config: whose tasks, limits, reward and reward models hold.
      workdir: of the run whose policy it is; None for the one that the config starts from.
      pool: for verifiers.
      processes: of this program.
      problems: to draw from the training tasks; equal ones count once.
      samples: of each.
      temperature: of the samples; None for that of the config.
      step: of the checkpoint; the newest by default.
      seed: of problems and samples.
      number: of the set among those of the same policy or loop: each has the next problems.

    Raises:
      ConfigError, CheckpointError: the config can't run, a task has several turns, or the policy can't be read.
    """
    rollout = dataclasses.replace(config.rollout, group_size=samples)
    if temperature is not None:
        rollout = dataclasses.replace(rollout, temperature=temperature)
    # Nothing is trained, so any sizes and filters of samples are allowed.
    method = AlgorithmConfig(baseline="none", scale="none", proximal="recompute", correction="token_tis")
    others = {"algorithm": method, "critic": CriticConfig(), "curriculum": CurriculumConfig(), "teacher": ""}
    config = dataclasses.replace(config, rollout=rollout, **others)
    why = "a set of samples has one answer to each problem"
    with opened_policy(config, workdir, pool, processes, step, one_turn=why) as (setup, collector, found_step):
        examples = tasks.batch(training_mixture(setup), "train", seed, number, problems)
        distinct = list({(x.task, x.prompt, repr(x.reference)): x for x in examples}.values())
        judging, of_models = make_judging(setup, workdir and workdir / FOLDER), make_model_scores(setup)
        key = jax.random.fold_in(jax.random.key(seed), number)
        of_a_key, at_once = (max(1, count // samples) for count in (_OF_A_KEY, _AT_ONCE))

        def draw(
            indices: Sequence[int], change: Callable[[Example], Example] | None = None
        ) -> tuple[list[Group], Rewards]:
            first = indices[0] - indices[0] % of_a_key
            own = jax.random.fold_in(key, first)
            asked = [distinct[i] if change is None else change(distinct[i]) for i in indices]
            numbers, own = [i - first for i in indices], own if change is None else jax.random.fold_in(own, _HINTED)
            collector.start("samples", asked, samples, own, rollout.temperature, numbers=numbers)
            judged = judging.all(of_models(judging.verdicts(collector.take("samples"))))
            return judged, reward(config.reward, judged, setup.parts, config.verifier.timeout, setup.processes)

        ends = range(0, len(distinct), of_a_key)
        blocks = [range(start, min(start + of_a_key, len(distinct))) for start in ends]
        parts = [block[i : i + at_once] for block in blocks for i in range(0, len(block), at_once)]
        yield Draws(setup, found_step, distinct, parts, draw)


def sample(
    config: Config, workdir: Path | None, pool: Pool, processes: Processes | None = None, **options: Any
) -> tuple[Setup, list[Group], Rewards]:
    """All samples at once; arguments as of `opened_draws`."""
    with opened_draws(config, workdir, pool, processes, **options) as draws:
        drawn = [draws.draw(part, None) for part in draws.parts]
    return draws.setup, [group for groups, _ in drawn for group in groups], joined([rewards for _, rewards in drawn])
