"""The training loop: sample, verify, reward, advantage, update, log, evaluate, save.

Everything that a step computes is a function of the config and of the state that checkpoints hold, so a run that is
killed and continued ends with the same bits as one that was not.
"""

from functools import partial
from pathlib import Path

import jax
import numpy as np

from rlvr_jax import parallel, tasks
from rlvr_jax.config import Config
from rlvr_jax.learner.advantages import advantages_of
from rlvr_jax.learner.batch import in_groups, make_batch, split
from rlvr_jax.learner.optimizer import make_optimizer, make_schedule
from rlvr_jax.learner.rewards import reward
from rlvr_jax.learner.scores import fill
from rlvr_jax.rollout.judge import judge
from rlvr_jax.training import checkpoints, preemption
from rlvr_jax.training.functions import make_evaluation, make_loss, make_scorers, make_stream, make_update
from rlvr_jax.training.profiling import traces
from rlvr_jax.training.record import Clock, describe, open_record, report, sample_rows, warn_unjudged
from rlvr_jax.training.setup import check_start, make_setup, start, training_mixture
from rlvr_jax.training.workdir import open_workdir
from rlvr_jax.verifiers.pool import Pool

# The integers that name a run's random streams: fold_in(key(seed), one of these).
INIT, SAMPLE, EVALUATE = range(3)
_LOGGED_GROUPS = 2  # of a training step, in samples.jsonl


def train(config: Config, workdir: Path, pool: Pool) -> Path:
    """Runs reinforcement learning, or continues it, and returns the path of its report.

    Of a finished run only the report is written again.

    Args:
      config: of the run.
      workdir: for checkpoints, metrics, samples and the report.
      pool: the verifier processes.

    Raises:
      ConfigError: the config can't run, or the workdir belongs to another one.
      RunError: another process uses the workdir.
      CheckpointError: a checkpoint can't be written or read.
      DivergedError: too many updates in a row were not finite; the checkpoints are good.
      OSError: the disk is full, or the workdir is not writable.
      PreemptedError: SIGTERM or SIGINT has arrived, and the state is saved.
    """
    setup = make_setup(config, pool=pool)
    check_start(setup, workdir)
    num_steps, prompts, minibatches = config.training.num_steps, config.rollout.prompts, config.algorithm.minibatches
    lengths = config.rollout.max_prompt_length, config.rollout.max_response_length
    optimizer = make_optimizer(config.optimizer, num_steps * minibatches)
    learning_rate = make_schedule(config.optimizer, num_steps * minibatches)
    mixture = training_mixture(setup)
    root = jax.random.key(config.seed)
    key_of = lambda stream, step: jax.random.fold_in(jax.random.fold_in(root, stream), step)  # noqa: E731

    with (
        open_workdir(workdir, config, "rl", setup.sandbox),
        preemption.watch() as signal_arrived,
        parallel.use_mesh(setup.mesh),
        checkpoints.open_manager(workdir, config.training.keep_checkpoints) as manager,
    ):
        if setup.memory:
            print(setup.memory, flush=True)
        loss = make_loss(setup)
        state, reference = start(setup, optimizer, manager, key_of(INIT, 0), "reference" in loss.needs)
        done = int(state.updates) // minibatches
        if done == num_steps:
            return report(workdir)
        stream = make_stream(setup, config.rollout.group_size, prompts)
        update = make_update(setup, {"policy": optimizer}, loss, config.optimizer.microbatches)
        scorers = make_scorers(setup, reference)
        evaluate = make_evaluation(setup, stream, partial(judge, pool, setup.tasks))

        with (
            open_record(workdir, config, num_steps, done, "training") as record,
            traces(workdir / "profile", config.training.profile) as trace,
        ):
            if done == 0:
                metrics, samples = evaluate(state.params, 0, key_of(EVALUATE, 0))
                dropped = {f"task/{task}/dropped_prompts": count for task, count in setup.dropped.items()}
                record.write({"step": 0} | metrics | dropped, samples)

            for step in range(done + 1, num_steps + 1):
                trace(step)
                clock = Clock()
                examples = tasks.batch(mixture, "train", config.seed, step - 1, prompts)
                judged, occupancy = [], 0.0
                for ended, stats in stream(state.params, examples, key_of(SAMPLE, step), config.rollout.temperature):
                    clock.lap("time/rollout")
                    judged += zip(ended, judge(pool, setup.tasks, ended), strict=True)  # while others are sampled
                    clock.lap("time/verify")
                    occupancy = stats.occupancy
                trajectories, verdicts = zip(*sorted(judged, key=lambda pair: pair[0].sample), strict=True)

                rewards = reward(config.reward, verdicts, trajectories, config.rollout.group_size)
                warn_unjudged(step, rewards)
                groups, judged = np.repeat(np.arange(prompts), config.rollout.group_size), rewards.judged.reshape(-1)
                values = rewards.values.reshape(-1)
                advantages = advantages_of(config.algorithm, values, groups, judged, config.seed, step)
                batch = make_batch(trajectories, advantages, judged, *lengths)
                batch = in_groups(batch, groups, prompts, config.rollout.group_size)
                batch = fill(loss.needs, batch, scorers(state.params))
                updates = []
                for minibatch in split(batch, minibatches):
                    states, metrics = update({"policy": state}, minibatch)
                    state = states["policy"]
                    updates.append(metrics)
                updates = jax.device_get(updates)
                clock.lap("time/train")

                row = {"step": step} | describe(trajectories, rewards, updates, clock.laps)
                row["train/learning_rate"] = float(learning_rate((step - 1) * minibatches))
                row["rollout/occupancy"] = occupancy
                row["train/skipped_steps"] = int(state.skipped)
                samples = []
                evaluated = step % config.evaluation.every == 0 or step == num_steps
                if evaluated or step == 1:
                    samples = sample_rows(step, "train", trajectories, rewards.verdicts, rewards)
                    samples = samples[: _LOGGED_GROUPS * config.rollout.group_size]
                if evaluated:
                    metrics, heldout = evaluate(state.params, step, key_of(EVALUATE, step))
                    row, samples = row | metrics, samples + heldout
                    clock.lap("time/evaluate")
                record.write(row | clock.laps | {"time/step": clock.total()}, samples)

                due = step % config.training.save_every == 0 or step == num_steps
                checkpoints.end_step(manager, state, step, due, signal_arrived(), config.training.max_skipped_in_a_row)
    return report(workdir)
