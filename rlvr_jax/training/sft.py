"""The supervised warm start on a task's demonstrations."""

import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np

from rlvr_jax import parallel, tasks
from rlvr_jax.config import Config
from rlvr_jax.errors import ConfigError
from rlvr_jax.learner.batch import Batch, layout
from rlvr_jax.learner.losses import imitation
from rlvr_jax.learner.optimizer import make_optimizer, make_schedule
from rlvr_jax.learner.step import Learner, train_step
from rlvr_jax.parallel import Processes
from rlvr_jax.text.tokenizers import encode_batch
from rlvr_jax.training import checkpoints, preemption
from rlvr_jax.training.demonstrations import responses
from rlvr_jax.training.plan import lines, memory_of_run
from rlvr_jax.training.record import Clock, open_record
from rlvr_jax.training.setup import Setup, check_demonstrations, make_setup, training_mixture
from rlvr_jax.training.start import check_start, start
from rlvr_jax.training.workdir import open_workdir


def sft(config: Config, workdir: Path, processes: Processes | None = None) -> None:
    """Starts or resumes training on demonstrations; errors are those of `rlvr_jax.training.loop.train`.

    A compiled call has several updates, because an update of a small policy takes less time than its dispatch.
    """
    processes = processes or Processes()
    setup, options = make_setup(config, run="sft", processes=processes), config.sft
    check_demonstrations(setup)
    memory = lines(memory_of_run(setup, "sft"), setup)
    check_start(setup, workdir)
    first = _batches(setup, 0)  # before anything is written: fails if a demonstration is too long
    optimizer = make_optimizer(options.optimizer, options.num_steps)
    learning_rate = make_schedule(options.optimizer, options.num_steps)
    with (
        open_workdir(workdir, config, "sft", processes=processes),
        preemption.watch(processes) as signal_arrived,
        parallel.use_mesh(setup.mesh),
        checkpoints.open_manager(workdir, processes=processes) as manager,
        processes.ending_together(),
    ):
        done = manager.latest_step() or 0
        if processes.index == 0 and done != options.num_steps:
            print(*memory, sep="\n", file=sys.stderr, flush=True)
        loss, optimizers = imitation(setup.policy), {"policy": optimizer}
        learner, _ = start(setup, optimizers, manager, jax.random.key(config.seed))
        if done == options.num_steps:
            return
        step = partial(train_step, loss, optimizers, options.optimizer.microbatches)
        update = jax.jit(partial(jax.lax.scan, step), donate_argnums=0)
        batches = _batches(setup, done) if done else first
        with open_record(workdir, config, options.num_steps, done, "warm start", processes) as record:
            for last in range(done + options.updates_per_call, options.num_steps + 1, options.updates_per_call):
                clock = Clock()
                states, metrics = update(learner.states, batches)
                learner = Learner(states)
                tokens = int(np.sum(batches.segment_ids))
                if last < options.num_steps:
                    batches = _batches(setup, last)  # while the device computes
                metrics = jax.device_get(metrics)
                row = {"step": last} | {name: float(np.mean(values)) for name, values in metrics.items()}
                row["train/learning_rate"] = float(learning_rate(last - 1))
                row["train/skipped_steps"] = int(learner.policy.skipped)
                row["time/step"] = clock.total()
                record.write(row | {"time/sft_tokens_per_second": tokens / clock.total()})
                due = last % options.save_every == 0 or last == options.num_steps
                checkpoints.end_step(
                    manager, learner, last, due, signal_arrived(), config.training.max_skipped_in_a_row
                )


def _batches(setup: Setup, first: int) -> Batch:
    """The batches of updates `first`, `first` + 1, ... of one call, stacked."""
    config = setup.config
    mixture = training_mixture(setup, "sft")
    count, size = config.sft.updates_per_call, config.sft.batch_size
    examples = [
        example
        for step in range(first, first + count)
        for example in tasks.batch(mixture, "train", config.seed, step, size)
    ]
    prompts = encode_batch(setup.tokenizer, [example.prompt for example in examples])
    tokens, trained = zip(*responses(setup, examples), strict=True)
    try:
        rows = layout(prompts, tokens, config.rollout.max_prompt_length, config.rollout.max_response_length)
    except ValueError as error:
        raise ConfigError(f"config.rollout: {error}") from error
    rows.action_mask[rows.action_mask > 0] = np.concatenate(trained)
    rows = jax.tree.map(lambda x: x.reshape(count, size, *x.shape[1:]), rows)
    sharding = jax.sharding.NamedSharding(setup.mesh, jax.sharding.PartitionSpec(None, ("data", "fsdp")))
    return parallel.put(rows, sharding)
