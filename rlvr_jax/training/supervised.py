"""A supervised run: rows of data, a loss, and updates. Its cases are `sft.py` and `preferences.py`."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from rlvr_jax import parallel
from rlvr_jax.config import supervised_options
from rlvr_jax.learner.batch import Batch
from rlvr_jax.learner.losses import Loss
from rlvr_jax.learner.optimizer import make_optimizer, make_schedule
from rlvr_jax.learner.step import Learner, train_step
from rlvr_jax.learner.supervised import updates_in_a_call
from rlvr_jax.policy import Params
from rlvr_jax.training import checkpoints, preemption
from rlvr_jax.training.plan import lines, memory_of_run
from rlvr_jax.training.record import Clock, open_record, report
from rlvr_jax.training.setup import Setup
from rlvr_jax.training.start import check_start, start
from rlvr_jax.training.versions import with_versions, write_versions
from rlvr_jax.training.workdir import open_workdir


@dataclass(frozen=True)
class Objective:
    """An update of a supervised run.

    Attributes:
      network: that is trained, "policy" or "reward".
      loss: of its updates.
      prepared: (states, batch) -> the batch with further columns, before each update and in the same program.
    """

    network: str
    loss: Loss
    prepared: Callable[[Any, Batch], Batch] | None = None


@dataclass(frozen=True)
class Supervised:
    """The parts of a supervised run that its kind decides.

    Attributes:
      objective: of its updates.
      batches: a function of the network's parameters at step 0, as a function that reads them only if it has to; it
        returns the function from the numbers of updates so far and in the next call to the batches of that, stacked.
      evaluate: (learner, whether the run ends) -> metrics of held-out data, after each checkpoint.
      facts: metrics of step 0.
    """

    objective: Objective
    batches: Callable[[Callable[[], Params]], Callable[[int, int], Batch]]
    evaluate: Callable[[Learner, bool], Mapping[str, float]] | None = None
    facts: Mapping[str, float | int] = field(default_factory=dict)


def supervise(setup: Setup, run: Supervised, workdir: Path) -> Path:
    """Starts or resumes a supervised run; returns its report. Errors are those of `rlvr_jax.training.loop.train`.

    A compiled call has several updates, because an update of a small policy takes less time than its dispatch.
    """
    config, processes, network = setup.config, setup.processes, run.objective.network
    options = supervised_options(config, setup.run)
    setup = with_versions(setup, workdir)
    memory = lines(memory_of_run(setup), setup)
    check_start(setup, workdir)
    optimizers = {network: make_optimizer(options.optimizer, options.num_steps)}
    learning_rate = make_schedule(options.optimizer, options.num_steps)
    with (
        open_workdir(workdir, config, setup.run, processes=processes),
        preemption.watch(processes) as signal_arrived,
        parallel.use_mesh(setup.mesh),
        checkpoints.open_manager(workdir, processes=processes) as manager,
        processes.ending_together(),
    ):
        write_versions(setup, workdir)
        done = manager.latest_step() or 0
        if processes.index == 0 and done != options.num_steps:
            print(*memory, sep="\n", file=sys.stderr, flush=True)
        learner, _ = start(setup, optimizers, manager, jax.random.key(config.seed))
        if done == options.num_steps:
            return report(workdir, processes)

        def initial() -> Params:
            if done == 0:
                return learner.states[network].params
            shapes = jax.tree.map(
                lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), learner.states[network].params
            )
            return checkpoints.restore_params(manager, shapes, 0, network)

        update = make_jitted_updates(run.objective, optimizers, options.optimizer.microbatches)
        batches_from = run.batches(initial)
        count = updates_in_a_call(options, done)
        batches = batches_from(done, count)
        speed = "time/sft_tokens_per_second" if setup.run == "sft" else "time/train_tokens_per_second"
        with open_record(workdir, config, options.num_steps, done, setup.run, processes) as record:
            if done == 0 and (run.facts or run.evaluate):
                record.write({"step": 0, **run.facts, **(run.evaluate(learner, False) if run.evaluate else {})})
            saved: dict[str, float] = {}
            for last in range(done + count, options.num_steps + 1, count):
                clock = Clock()
                states, metrics = update(learner.states, batches)
                learner = Learner(states)
                tokens = int(np.sum(batches.segment_ids > 0))
                if last < options.num_steps:
                    batches = batches_from(last, count)  # while the device computes
                metrics = jax.device_get(metrics)
                if last == count > 1:
                    record.write({"step": 1} | {name: float(values[0]) for name, values in metrics.items()})
                row = {"step": last} | {name: float(np.mean(values)) for name, values in metrics.items()}
                row["train/learning_rate"] = float(learning_rate(last - 1))
                row["train/skipped_steps"] = int(learner.states[network].skipped)
                row["time/step"] = clock.total()
                row[speed] = tokens / clock.total()
                due = last % options.save_every == 0 or last == options.num_steps
                if due and run.evaluate:
                    row |= run.evaluate(learner, last == options.num_steps)
                record.write(row | saved)
                saved = checkpoints.end_step(
                    manager, learner, last, due, signal_arrived(), config.training.max_skipped_in_a_row
                )
    return report(workdir, processes)


def make_jitted_updates(
    objective: Objective, optimizers: Mapping[str, optax.GradientTransformation], microbatches: int
) -> jax.stages.Wrapped:
    """The jitted function (states, stacked batches) -> (states, metrics of each), which donates the states."""
    return _jitted_updates(objective, tuple(optimizers.items()), microbatches)


@lru_cache(maxsize=32)  # the runs of a process share compiled functions
def _jitted_updates(
    objective: Objective, optimizers: tuple[tuple[str, optax.GradientTransformation], ...], microbatches: int
) -> jax.stages.Wrapped:
    step = partial(train_step, objective.loss, dict(optimizers), microbatches)
    if objective.prepared is not None:
        step = partial(_prepared, objective.prepared, step)
    return jax.jit(partial(jax.lax.scan, step), donate_argnums=0)


def _prepared(prepared: Callable[[Any, Batch], Batch], step: Callable, states: Any, batch: Batch) -> Any:
    return step(states, prepared(states, batch))


def stacked(setup: Setup, batch: Batch, count: int) -> Batch:
    """The rows of `count` updates, one after the other, along a new first axis, on the devices."""
    batch = jax.tree.map(lambda x: x.reshape(count, -1, *x.shape[1:]), batch)
    return parallel.put(batch, _stacked_sharding(setup))


def stacked_shapes(setup: Setup, batch: Batch, count: int) -> Batch:
    """The shapes of `stacked`, from the rows of one update."""
    of = partial(jax.ShapeDtypeStruct, sharding=_stacked_sharding(setup))
    return jax.tree.map(lambda x: of((count, *x.shape), x.dtype), batch)


def _stacked_sharding(setup: Setup) -> jax.sharding.NamedSharding:
    return jax.sharding.NamedSharding(setup.mesh, jax.sharding.PartitionSpec(None, ("data", "fsdp")))
