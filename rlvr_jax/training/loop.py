"""The training loop: sample, verify, reward, advantage, update, log, evaluate, save.

A step is a function of the config and the checkpointed state, so a run that is killed and resumed ends with the same
bits as an uninterrupted one.
"""

import contextlib
import sys
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from rlvr_jax import parallel
from rlvr_jax.config import Config
from rlvr_jax.learner.advantages import describe as describe_signal
from rlvr_jax.learner.advantages import signal
from rlvr_jax.learner.batch import Batch, in_groups, make_batch
from rlvr_jax.learner.correction import weight_quantiles
from rlvr_jax.learner.rewards import of_groups
from rlvr_jax.learner.samples import samples_of
from rlvr_jax.learner.scores import Scorer, fill
from rlvr_jax.learner.step import Learner
from rlvr_jax.parallel import Processes
from rlvr_jax.parallel.host import long_lived_objects
from rlvr_jax.rollout.collector import Collector
from rlvr_jax.rollout.sampler import Sampler
from rlvr_jax.rollout.streams import fold_in, stream_of
from rlvr_jax.training import checkpoints, preemption
from rlvr_jax.training.frozen import find_teacher
from rlvr_jax.training.functions import (
    Metrics,
    make_asked,
    make_collector,
    make_credit,
    make_loss,
    make_sampler,
    make_scorers,
    make_training,
    scored_columns,
)
from rlvr_jax.training.heldout import make_evaluation
from rlvr_jax.training.history import History, advanced, drift
from rlvr_jax.training.judging import FOLDER, describe_judges, make_judging
from rlvr_jax.training.networks import learning_rate, make_optimizers
from rlvr_jax.training.plan import lines, memory_of_run
from rlvr_jax.training.profiling import traces
from rlvr_jax.training.record import (
    Clock,
    describe,
    describe_updates,
    doubling,
    open_record,
    report,
    sample_rows,
    throughput,
    warn_unjudged,
)
from rlvr_jax.training.reward_models import make_model_scores
from rlvr_jax.training.rollouts import Rollout, Rollouts
from rlvr_jax.training.setup import Setup, make_setup
from rlvr_jax.training.start import check_start, origin, start
from rlvr_jax.training.tool_metrics import describe_tools, tools_of, warn_failing_tools
from rlvr_jax.training.versions import with_versions, write_versions
from rlvr_jax.training.watchdog import watchdog
from rlvr_jax.training.workdir import open_workdir
from rlvr_jax.verifiers.pool import Pool

# The random streams of a run: fold_in(key(seed), one of these).
INIT, SAMPLE, EVALUATE = range(3)
_LOGGED_GROUPS = 2  # of a training step, in samples.jsonl, without `training.all_samples`


@dataclass(frozen=True)
class _Run:
    """The functions and settings that the steps of a run share.

    Attributes:
      setup: of the run.
      begin: names the phase that begins, for the watchdog.
      sampler: of the policy, with the collector and the rollouts that use it.
      columns: of a batch that take a forward pass each, and come before its advantages.
      needs: the columns that the loss reads.
      scorers, credit, update: see `make_scorers`, `make_credit` and `make_training`.
      evaluate: step -> metrics and rows of samples.jsonl, beside what is in flight.
      is_news: share of unjudged samples -> whether it is worth a warning.
      tool_news: by tool, share of failed calls -> the same.
    """

    setup: Setup
    begin: Callable[[str], None]
    sampler: Sampler
    collector: Collector
    rollouts: Rollouts
    columns: Sequence[str]
    needs: Sequence[str]
    scorers: Callable[[Learner, int], Mapping[str, Scorer]]
    credit: Callable[..., tuple[Batch, dict[str, float]]]
    update: Callable[..., tuple[Learner, list[list[Metrics]]]]
    evaluate: Callable[[int], tuple[dict[str, float], list[dict[str, Any]]]]
    is_news: Callable[[float], bool]
    tool_news: Mapping[str, Callable[[float], bool]]


def train(config: Config, workdir: Path, pool: Pool, processes: Processes | None = None) -> Path:
    """Starts or resumes reinforcement learning, and returns the path of the report.

    For a finished run only the report is written.

    Args:
      config: of the run.
      workdir: for checkpoints, metrics, samples and the report.
      pool: the verifier processes of this host.
      processes: of the run, see `rlvr_jax.parallel.connected`; by default this one alone.

    Raises:
      ConfigError: the config can't run, or the workdir belongs to another one.
      RunError: another process uses the workdir.
      CheckpointError: a checkpoint can't be written or read.
      DivergedError: too many consecutive updates were not finite; the checkpoints are intact.
      OSError: the disk is full, or the workdir is not writable.
      PreemptedError: SIGTERM or SIGINT arrived, and the state is saved.
    """
    processes = processes or Processes()
    setup = with_versions(make_setup(config, pool=pool, processes=processes), workdir)
    memory = lines(memory_of_run(setup), setup)
    check_start(setup, workdir)
    options, num_steps = config.training, config.training.num_steps
    keep = options.keep_checkpoints, options.keep_every, options.keep_best

    with (
        open_workdir(workdir, config, "rl", setup.sandbox, processes),
        preemption.watch(processes) as signal_arrived,
        parallel.use_mesh(setup.mesh),
        checkpoints.open_manager(workdir, *keep, processes) as manager,
        long_lived_objects() as freeze_objects,
        watchdog(options.watchdog, options.watchdog_ends, processes) as begin,
        processes.ending_together(),
    ):
        begin("start")
        write_versions(setup, workdir)
        done = manager.latest_step() or 0
        if processes.index == 0 and done != num_steps:
            begins = () if done else (origin(config),)
            print(*memory, *begins, sep="\n", file=sys.stderr, flush=True)
        if done == num_steps:
            start(setup, make_optimizers(config), manager, jax.random.key(0))  # its newest checkpoint can be read
            return report(workdir, processes)
        run, learner, history = _begun(setup, workdir, pool, manager, begin)

        with (
            open_record(workdir, config, num_steps, done, "training", processes) as record,
            traces(workdir / "profile", options.profiled) as trace,
        ):
            if done == 0:
                metrics, samples = run.evaluate(0)
                dropped = {f"task/{task}/dropped_prompts": count for task, count in setup.dropped.items()}
                record.write({"step": 0} | metrics | dropped, samples)
            saved: dict[str, float] = {}

            for step in range(done + 1, num_steps + 1):
                trace(step)
                clock = Clock()
                learner, history, rollout, row = _step(run, learner, history, step, clock)
                evaluated = step % config.evaluation.every == 0 or step == num_steps
                samples = []
                if options.all_samples or evaluated or step == 1:
                    samples = _logged(run, step, rollout)
                if evaluated:
                    begin(f"evaluation after step {step}")
                    metrics, heldout = run.evaluate(step)
                    row, samples = row | metrics, samples + heldout
                    clock.lap("time/evaluate")
                record.write(row | saved | clock.laps | {"time/step": clock.total()}, samples)

                if step == done + 1:
                    freeze_objects()
                begin(f"saving of step {step}")
                due = step % options.save_every == 0 or step == num_steps
                saved = checkpoints.end_step(
                    manager, learner, step, due, signal_arrived(), options.max_skipped_in_a_row,
                    partial(run.rollouts.state, history), row.get("eval/greedy_accuracy"),
                )  # fmt: skip
    return report(workdir, processes)


def _begun(
    setup: Setup, workdir: Path, pool: Pool, manager: ocp.CheckpointManager, begin: Callable[[str], None]
) -> tuple[_Run, Learner, History]:
    """A run at its newest checkpoint, or at its start."""
    done, key_of = manager.latest_step() or 0, partial(fold_in, stream_of(jax.random.key(setup.config.seed)))
    optimizers, loss = make_optimizers(setup.config), make_loss(setup)
    columns = scored_columns(setup, loss)
    key = jax.random.wrap_key_data(key_of(INIT, 0))
    learner, reference = start(setup, optimizers, manager, key, "reference" in columns)
    sampler = make_sampler(setup)
    sampler.set_params(learner.policy.params, done)
    asked = make_asked(setup)
    collector = make_collector(setup, sampler, pool, asked)
    judging, of_models = make_judging(setup, workdir / FOLDER), make_model_scores(setup)
    scored = lambda groups: judging.all(of_models(judging.verdicts(groups)))  # noqa: E731
    rollouts = Rollouts(setup, collector, partial(key_of, SAMPLE), scored)
    arrays_of = lambda shapes: checkpoints.restore_arrays(manager, shapes, done)  # noqa: E731
    history = rollouts.put_back(checkpoints.restore_host(manager, done), arrays_of)
    teacher = find_teacher(setup)
    frozen = {"teacher": teacher.load()} if teacher else {}
    evaluate = make_evaluation(setup, judging)
    run = _Run(
        setup, begin, sampler, collector, rollouts, columns, loss.needs,
        scorers=make_scorers(setup, reference, frozen),
        credit=make_credit(setup),
        update=make_training(setup, optimizers, loss, frozen),
        evaluate=lambda step: evaluate(
            make_collector(setup, sampler.beside(), pool, asked), step, key_of(EVALUATE, step)
        ),
        is_news=doubling(),
        tool_news=defaultdict(doubling),
    )  # fmt: skip
    return run, learner, history


def _step(
    run: _Run, learner: Learner, history: History, step: int, clock: Clock
) -> tuple[Learner, History, Rollout, dict[str, float | int]]:
    """Samples, judges and trains: the state after a step, what it was trained on, and its metrics."""
    setup, config, rollouts = run.setup, run.setup.config, run.rollouts
    lengths = config.rollout.max_prompt_length, config.rollout.max_response_length
    run.begin(f"rollout of step {step}")
    before = run.sampler.stats
    with _sampling(clock, run.collector):
        for ahead in range(step, min(step + config.training.max_lag, config.training.num_steps) + 1):
            rollouts.start(ahead, history)
        rollout = rollouts.take(step, history)
    groups, rewards = rollout.groups, rollout.rewards

    run.begin(f"update of step {step}")
    warn_unjudged(step, rewards, run.is_news)
    warn_failing_tools(step, groups, run.tool_news)
    samples = samples_of(groups, rewards, config.rollout.episode_length, rollout.expected)
    found = signal(config.algorithm, samples, config.seed, step)
    rows = make_batch(groups, found, *lengths, rollout.steps)
    batch, episodes = in_groups(rows, rewards.group[rows[1]], config.rollout.prompts, config.rollout.group_rows)
    setup.processes.check_equal(f"the batch of step {step}", batch)
    batch = fill(run.columns, batch, run.scorers(learner, step))
    batch, of_batch = run.credit(learner, batch, episodes, found.samples)
    batch = fill(run.needs, batch, run.scorers(learner, step))
    setup.processes.check_equal(f"the advantages of step {step}", batch.columns)
    moved = drift(setup, history, rollout.outcomes, run.scorers(learner, step))
    learner, updates = run.update(learner, batch, of_batch, step)

    # While the device updates: the metrics that don't need it, the next rollouts.
    row = {"step": step} | describe(*rollout.own, step - 1) | describe_signal(found)
    row |= describe_tools(rollout.own[0], tools_of(setup.sources))
    row |= describe_judges(setup, rollout.own[1].verdicts)
    history, of_history = advanced(config, rollouts.choice, history, step, rollout.outcomes, moved)
    row |= rollout.metrics | of_batch | of_history | weight_quantiles(batch)
    clock.lap("time/train")
    with _sampling(clock, run.collector):
        rollouts.play()
    row |= describe_updates(jax.device_get(updates))
    clock.lap("time/train")
    run.sampler.set_params(learner.policy.params, step)
    clock.lap("time/layout")

    trained = row["train/response_length"] * len(rewards.values)
    row |= throughput(run.sampler.stats - before, trained, clock.laps)
    row["rollout/received_bytes"] = run.sampler.received_bytes
    row["train/learning_rate"] = learning_rate(config, step)
    row["train/skipped_steps"] = int(learner.policy.skipped)
    return learner, history, rollout, row


@contextlib.contextmanager
def _sampling(clock: Clock, collector: Collector) -> Iterator[None]:
    """Its time is that of the rollout, but for what was waited for verdicts and tools."""
    waited = collector.waited
    yield
    clock.lap("time/rollout", {"time/verify": collector.waited - waited})


def _logged(run: _Run, step: int, rollout: Rollout) -> list[dict[str, Any]]:
    """Rows of samples.jsonl: of all groups of a step, or of the first ones."""
    groups = rollout.groups if run.setup.config.training.all_samples else rollout.groups[:_LOGGED_GROUPS]
    rewards = of_groups(rollout.rewards, np.arange(len(groups)))
    return sample_rows(step, "train", groups, run.setup.tokenizer, rewards)
