"""The compiled functions of a run: rollout, training step, scoring, evaluation."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from rlvr_jax import parallel, tasks
from rlvr_jax.errors import ConfigError
from rlvr_jax.evaluation.evaluate import Judge, evaluate
from rlvr_jax.learner.aggregation import token_weights
from rlvr_jax.learner.batch import Batch
from rlvr_jax.learner.packing import pack, unpack
from rlvr_jax.learner.step import Loss, TrainState, score, train_step
from rlvr_jax.policy import Params
from rlvr_jax.rollout import engine
from rlvr_jax.rollout.sampler import SamplingConfig
from rlvr_jax.tasks import Task
from rlvr_jax.training.record import sample_rows
from rlvr_jax.training.setup import Setup

_DRAWS_PER_PROBLEM = 50  # to find different held-out problems


def make_update(setup: Setup, optimizer: optax.GradientTransformation, loss: Loss, microbatches: int) -> Callable:
    """The training step (state, batch) -> (state, metrics) of `layout`'s batches; the given state's memory is reused.

    It weighs the actions of the batch and packs its rows on the host, and calls a jitted function.
    """
    aggregation, length = setup.config.algorithm.aggregation, setup.config.rollout.max_response_length
    jitted, options = make_jitted_update(setup, optimizer, loss, microbatches), _packing(setup)

    def update(state: TrainState, batch: Batch) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
        batch = batch.replace(weights=token_weights(aggregation, np.asarray(batch.action_mask), length))
        return jitted(state, pack(batch, *options) if options else batch)

    return update


def make_jitted_update(
    setup: Setup, optimizer: optax.GradientTransformation, loss: Loss, microbatches: int
) -> jax.stages.Wrapped:
    """The part of `make_update` on the device: it takes batches that are weighed and packed."""
    step = partial(train_step, setup.policy, loss, optimizer, microbatches, setup.config.rollout.temperature)
    return jax.jit(step, in_shardings=(None, parallel.batch_sharding(setup.mesh)), donate_argnums=0)


def make_score(setup: Setup) -> Callable:
    """The function (params, batch) -> log-probability of each action; packs as `make_update` does."""

    def logprobs(params: Params, batch: Batch) -> Float[Array, "batch response"]:
        return score(setup.policy, params, batch, setup.config.rollout.temperature)[0]

    batch = parallel.batch_sharding(setup.mesh)
    of_rows = jax.jit(logprobs, in_shardings=(None, batch), out_shardings=batch)
    options = _packing(setup)
    if not options:
        return of_rows
    return lambda params, batch: unpack(np.asarray(of_rows(params, pack(batch, *options))), batch, *options)


def _packing(setup: Setup) -> tuple[int, int] | None:
    """The options of `pack` and `unpack`, or None for rows that are not packed."""
    config = setup.config
    if config.training.packing == "none":
        return None
    return config.rollout.group_size, config.training.packing_multiple


def make_stream(setup: Setup, group_size: int, batch_size: int) -> engine.Stream:
    """The sampler of a run, which hands out samples as they end.

    Args:
      setup: of the run.
      group_size: samples of each prompt.
      batch_size: prompts in a device batch, if there are no slots.
    """
    rollout = setup.config.rollout
    sampling = SamplingConfig(
        group_size=group_size,
        max_response_length=rollout.max_response_length,
        stop_tokens=setup.stop_tokens,
        pad_token=setup.tokenizer.pad_token_id,
        top_k=rollout.top_k,
        top_p=rollout.top_p,
        policy_temperature=rollout.temperature,
        slots=rollout.slots,
        chunk=rollout.chunk,
        prefill_chunk=rollout.prefill_chunk,
    )
    batch, params = parallel.batch_sharding(setup.mesh), setup.param_shardings
    length = rollout.max_prompt_length
    return engine.make_stream(setup.policy, sampling, setup.tokenizer, length, batch_size, params, batch)


def _heldout_examples(task: Task, count: int) -> list[tasks.Example]:
    """The first `count` held-out problems of which no two have the same prompt; the same for every seed.

    All of them, if the task has fewer.
    """
    length = task.num_examples("heldout")
    count = count if length is None else min(count, length)
    found: dict[str, tasks.Example] = {}
    for position in range(_DRAWS_PER_PROBLEM * count):
        example = tasks.example_at(task, "heldout", 0, position)
        found.setdefault(example.prompt, example)
        if len(found) == count:
            break
    return list(found.values())


def make_evaluation(setup: Setup, stream: engine.Stream, judge: Judge) -> Callable:
    """A function (params, step, key) -> (metrics, rows of samples) over the held-out problems of all tasks.

    They don't depend on the seed, so that runs can be compared. `stream` is the one of training, which also samples
    for pass@k if its groups have the right size: that saves a compilation.

    Raises:
      ConfigError: no task has held-out problems.
    """
    config = setup.config.evaluation
    of_tasks = [_heldout_examples(task, config.problems) for task in setup.tasks.values()]
    examples = [example for found in of_tasks for example in found]
    if not examples:
        raise ConfigError(f"config.tasks: none of {', '.join(setup.tasks)} has held-out problems")
    pass_examples = [example for found in of_tasks for example in found[: config.pass_problems]]
    shown = {example.id for found in of_tasks for example in found[: config.shown]}
    greedy = engine.collected(make_stream(setup, 1, config.batch_size))
    if config.pass_samples != setup.config.rollout.group_size:
        stream = make_stream(setup, config.pass_samples, setup.config.rollout.prompts)
    rollout = engine.collected(stream)

    def run(params: Params, step: int, key: Key[Array, ""]) -> tuple[dict[str, float], list[dict[str, Any]]]:
        metrics, trajectories, verdicts = evaluate(
            params, examples, pass_examples, greedy, rollout, judge, key, config.ks
        )
        rows = sample_rows(step, "heldout", trajectories, verdicts)
        return metrics, [row for row in rows if row["example"] in shown]

    return run
