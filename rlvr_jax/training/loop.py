"""The training loop: sample, verify, reward, advantage, update, log, evaluate, save.

A step is a function of the config and the checkpointed state, so a run that is killed and resumed ends with the same
bits as an uninterrupted one.
"""

import sys
from functools import partial
from pathlib import Path

import jax

from rlvr_jax import parallel
from rlvr_jax.config import Config
from rlvr_jax.learner.advantages import describe as describe_signal
from rlvr_jax.learner.advantages import signal
from rlvr_jax.learner.batch import in_groups, make_batch
from rlvr_jax.learner.correction import weight_quantiles
from rlvr_jax.learner.samples import samples_of
from rlvr_jax.learner.scores import fill
from rlvr_jax.parallel import Processes
from rlvr_jax.parallel.host import long_lived_objects
from rlvr_jax.training import checkpoints, preemption
from rlvr_jax.training.frozen import find_teacher
from rlvr_jax.training.functions import (
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
from rlvr_jax.training.history import advanced, drift
from rlvr_jax.training.judging import FOLDER, describe_judges, make_judging
from rlvr_jax.training.networks import learning_rate, make_optimizers
from rlvr_jax.training.plan import lines, memory_of_run
from rlvr_jax.training.profiling import traces
from rlvr_jax.training.record import (
    Clock,
    describe,
    describe_updates,
    open_record,
    report,
    sample_rows,
    throughput,
    warn_unjudged,
)
from rlvr_jax.training.reward_models import make_model_scores
from rlvr_jax.training.rollouts import Rollouts
from rlvr_jax.training.setup import make_setup
from rlvr_jax.training.start import check_start, start
from rlvr_jax.training.tool_metrics import describe_tools, tools_of
from rlvr_jax.training.versions import with_versions, write_versions
from rlvr_jax.training.watchdog import watchdog
from rlvr_jax.training.workdir import open_workdir
from rlvr_jax.verifiers.pool import Pool

# The random streams of a run: fold_in(key(seed), one of these).
INIT, SAMPLE, EVALUATE = range(3)
_LOGGED_GROUPS = 2  # of a training step, in samples.jsonl, without `training.all_samples`


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
    optimizers = make_optimizers(config)
    check_start(setup, workdir)
    num_steps, sizes = config.training.num_steps, (config.rollout.prompts, config.rollout.group_rows)
    lengths = config.rollout.max_prompt_length, config.rollout.max_response_length
    keep = config.training.keep_checkpoints, config.training.keep_every, config.training.keep_best
    root = jax.random.key(config.seed)
    key_of = lambda stream, step: jax.random.fold_in(jax.random.fold_in(root, stream), step)  # noqa: E731

    with (
        open_workdir(workdir, config, "rl", setup.sandbox, processes),
        preemption.watch(processes) as signal_arrived,
        parallel.use_mesh(setup.mesh),
        checkpoints.open_manager(workdir, *keep, processes) as manager,
        long_lived_objects() as freeze_objects,
        watchdog(config.training.watchdog, config.training.watchdog_ends, processes) as begin,
        processes.ending_together(),
    ):
        begin("start")
        write_versions(setup, workdir)
        done = manager.latest_step() or 0
        if processes.index == 0 and done != num_steps:
            print(*memory, sep="\n", file=sys.stderr, flush=True)
        loss = make_loss(setup)
        columns = scored_columns(setup, loss)
        learner, reference = start(setup, optimizers, manager, key_of(INIT, 0), "reference" in columns)
        if done == num_steps:
            return report(workdir, processes)
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
        scorers, credit = make_scorers(setup, reference, frozen), make_credit(setup)
        update = make_training(setup, optimizers, loss, frozen)
        evaluate = make_evaluation(setup, judging)
        beside = lambda: make_collector(setup, sampler.beside(), pool, asked)  # noqa: E731  # what is in flight stays as it is

        with (
            open_record(workdir, config, num_steps, done, "training", processes) as record,
            traces(workdir / "profile", config.training.profile) as trace,
        ):
            if done == 0:
                metrics, samples = evaluate(beside(), 0, key_of(EVALUATE, 0))
                dropped = {f"task/{task}/dropped_prompts": count for task, count in setup.dropped.items()}
                record.write({"step": 0} | metrics | dropped, samples)
            saved: dict[str, float] = {}

            for step in range(done + 1, num_steps + 1):
                trace(step)
                begin(f"rollout of step {step}")
                clock, before = Clock(), sampler.stats
                for ahead in range(step, min(step + config.training.max_lag, num_steps) + 1):
                    rollouts.start(ahead, history)
                waited = collector.waited
                rollout = rollouts.take(step, history)
                groups, rewards = rollout.groups, rollout.rewards
                clock.lap("time/rollout", {"time/verify": collector.waited - waited})

                begin(f"update of step {step}")
                warn_unjudged(step, rewards)
                members = samples_of(groups, rewards, config.rollout.episode_length, rollout.expected)
                found = signal(config.algorithm, members, config.seed, step)
                rows = make_batch(groups, found, *lengths, rollout.steps)
                batch, episodes = in_groups(rows, rewards.group[rows[1]], *sizes)
                processes.check_equal(f"the batch of step {step}", batch)
                batch = fill(columns, batch, scorers(learner, step))
                batch, of_batch = credit(learner, batch, episodes, found.samples)
                batch = fill(loss.needs, batch, scorers(learner, step))
                processes.check_equal(f"the advantages of step {step}", batch.columns)
                moved = drift(setup, history, rollout.outcomes, scorers(learner, step))
                learner, updates = update(learner, batch, of_batch, step)
                row = {"step": step} | describe(*rollout.own, step - 1) | describe_signal(found)
                row |= describe_tools(rollout.own[0], tools_of(setup.sources))
                row |= describe_judges(setup, rollout.own[1].verdicts)
                history, of_history = advanced(config, rollouts.choice, history, step, rollout.outcomes, moved)
                row |= rollout.metrics | of_batch | of_history | weight_quantiles(batch)
                clock.lap("time/train")
                waited = collector.waited
                rollouts.play()
                clock.lap("time/rollout", {"time/verify": collector.waited - waited})
                row |= describe_updates(jax.device_get(updates))
                clock.lap("time/train")
                sampler.set_params(learner.policy.params, step)
                clock.lap("time/layout")

                trained = row["train/response_length"] * len(rewards.values)
                row |= throughput(sampler.stats - before, trained, clock.laps)
                row["rollout/received_bytes"] = sampler.received_bytes
                row["train/learning_rate"] = learning_rate(config, step)
                row["train/skipped_steps"] = int(learner.policy.skipped)
                samples = []
                evaluated = step % config.evaluation.every == 0 or step == num_steps
                if config.training.all_samples or evaluated or step == 1:
                    logged = len(groups) if config.training.all_samples else _LOGGED_GROUPS
                    samples = sample_rows(step, "train", groups, setup.tokenizer, rewards)
                    samples = samples[: sum(len(group.episodes) for group in groups[:logged])]
                if evaluated:
                    begin(f"evaluation after step {step}")
                    metrics, heldout = evaluate(beside(), step, key_of(EVALUATE, step))
                    row, samples = row | metrics, samples + heldout
                    clock.lap("time/evaluate")
                record.write(row | saved | clock.laps | {"time/step": clock.total()}, samples)

                if step == done + 1:
                    freeze_objects()
                begin(f"saving of step {step}")
                due = step % config.training.save_every == 0 or step == num_steps
                saved = checkpoints.end_step(
                    manager, learner, step, due, signal_arrived(), config.training.max_skipped_in_a_row,
                    partial(rollouts.state, history), row.get("eval/greedy_accuracy"),
                )  # fmt: skip
    return report(workdir, processes)
