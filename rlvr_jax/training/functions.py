"""The compiled functions of a run: rollout, training step, scoring, evaluation."""

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import jax
import numpy as np
import optax
from jaxtyping import Array, Float, Key

from rlvr_jax import parallel, policy, tasks
from rlvr_jax.config_rules import check_update
from rlvr_jax.errors import ConfigError
from rlvr_jax.evaluation.evaluate import evaluate
from rlvr_jax.learner import losses
from rlvr_jax.learner.aggregation import group_tokens
from rlvr_jax.learner.batch import Batch, split
from rlvr_jax.learner.entropy import by_covariance, by_entropy
from rlvr_jax.learner.losses import Loss
from rlvr_jax.learner.packing import pack, unpack
from rlvr_jax.learner.scores import Scorer, score
from rlvr_jax.learner.step import train_step
from rlvr_jax.policy import Params
from rlvr_jax.rollout.collector import Collector, Jobs
from rlvr_jax.rollout.memory import fitting, prompt_bytes, slot_bytes
from rlvr_jax.rollout.playing import Limits
from rlvr_jax.rollout.requests import Turns
from rlvr_jax.rollout.sampler import Sampler, SamplingConfig
from rlvr_jax.tasks import Task
from rlvr_jax.training.record import sample_rows
from rlvr_jax.training.setup import Setup

_DRAWS_PER_PROBLEM = 50  # to find different held-out problems


def make_loss(setup: Setup) -> Loss:
    """The loss chosen by the config."""
    config = setup.config
    rollout = config.rollout
    return losses.make_loss(setup.policy, config.algorithm, rollout.temperature, rollout.max_response_length)


def make_update(
    setup: Setup, optimizers: Mapping[str, optax.GradientTransformation], loss: Loss, microbatches: int
) -> Callable:
    """The training step (states, batch) -> (states, metrics), which donates the states.

    It packs the rows of the batch on the host and calls a jitted function.

    Raises:
      ConfigError: the updates of this config can't be divided into microbatches.
    """
    check_update(setup.config, setup.mesh.shape["data"] * setup.mesh.shape["fsdp"], loss.rows_together)
    jitted, options = make_jitted_update(setup, optimizers, loss, microbatches), _packing(setup)
    rows = parallel.batch_sharding(setup.mesh)
    if not options:
        return lambda states, batch: jitted(states, parallel.put(batch, rows))
    return lambda states, batch: jitted(states, parallel.put(pack(batch, *options), rows))


def make_jitted_update(
    setup: Setup, optimizers: Mapping[str, optax.GradientTransformation], loss: Loss, microbatches: int
) -> jax.stages.Wrapped:
    """The jitted function of `make_update`, for packed batches."""
    step = partial(train_step, loss, optimizers, microbatches)
    return jax.jit(step, in_shardings=(None, parallel.batch_sharding(setup.mesh)), donate_argnums=0)


def make_scorers(setup: Setup, reference: Params | None) -> Callable[[Params, int], dict[str, Scorer]]:
    """The function from the policy's parameters before a step's first update, and its number, to its scorers.

    Args:
      setup: of the run.
      reference: the initial values of the trained parameters; None for the base policy, without adapters.
    """
    algorithm, logprobs, entropy = setup.config.algorithm, make_score(setup), make_score(setup, "entropy")

    def of_reference(params: Params, batch: Batch) -> Float[np.ndarray, "batch action"]:
        frozen = policy.base(params) if reference is None else policy.with_trainable(params, reference)
        return logprobs(frozen, batch)

    return lambda params, step: {
        "reference": partial(of_reference, params),
        "proximal": partial(logprobs, params),
        "group_tokens": partial(group_tokens, group_size=setup.config.rollout.group_size),
        "selected": partial(by_covariance, algorithm, setup.config.seed, step),
        "uncertain": lambda batch: by_entropy(algorithm, batch, entropy(params, batch)),
    }


def make_score(setup: Setup, of: Literal["logprobs", "entropy"] = "logprobs") -> Callable:
    """The function (params, batch) -> log-probability of each action, or entropy; packs as `make_update` does.

    It takes the rows in as many parts as an update, so that it needs no more memory.
    """
    jitted, options, config = make_jitted_score(setup, of), _packing(setup), setup.config
    sharding = parallel.batch_sharding(setup.mesh)
    parts = config.algorithm.minibatches * config.optimizer.microbatches

    def run(params: Params, batch: Batch) -> Float[np.ndarray, "batch action"]:
        batch = batch.replace(columns={})  # unused, and would be copied to the device
        rows = pack(batch, *options) if options else batch
        scored = [parallel.readable(jitted(params, parallel.put(part, sharding))) for part in split(rows, parts)]
        scores = np.concatenate(jax.device_get(scored))
        return unpack(scores, batch, *options) if options else scores

    return run


def make_jitted_score(setup: Setup, of: Literal["logprobs", "entropy"] = "logprobs") -> jax.stages.Wrapped:
    """The jitted function of `make_score`, for a part of the packed rows."""

    def scores(params: Params, batch: Batch) -> Float[Array, "batch action"]:
        logprobs, entropy = score(setup.policy, params, batch, setup.config.rollout.temperature)
        return logprobs if of == "logprobs" else entropy

    rows = parallel.batch_sharding(setup.mesh)
    return jax.jit(scores, in_shardings=(None, rows), out_shardings=rows)


def _packing(setup: Setup) -> tuple[int, int] | None:
    """The options of `pack` and `unpack`, or None without packing."""
    config = setup.config
    if config.training.packing == "none":
        return None
    return config.rollout.group_size, config.training.packing_multiple


def make_sampler(setup: Setup) -> Sampler:
    """The sampler of a run."""
    return Sampler(setup.policy, sampling_config(setup), setup.sampling_mesh)


def sampling_config(setup: Setup) -> SamplingConfig:
    """The sampler's settings, with a batch or slots that fit into the memory of a device, if that is known.

    Multi-turn environments get slots, so that contexts are not prefilled again.
    """
    rollout, mesh, memory = setup.config.rollout, setup.sampling_mesh, setup.sampling_memory
    place = mesh.shape["tensor"], parallel.devices_of(mesh)[0].platform
    lengths = rollout.max_prompt_length, rollout.max_response_length
    batch_size, slots = rollout.batch_size or rollout.prompts, rollout.slots
    if not slots and not all(source.env.one_turn for source in setup.sources.values()):
        slots = rollout.prompts * rollout.group_size
        if memory:
            each = slot_bytes(setup.policy, lengths[0], sum(lengths), rollout.group_size, *place)
            slots = fitting(slots, each, memory, mesh.shape["data"])
    elif not rollout.batch_size and memory:
        each = prompt_bytes(setup.policy, *lengths, rollout.group_size, *place)
        batch_size = fitting(batch_size, each, memory, mesh.shape["data"])
    return SamplingConfig(
        prompt_length=lengths[0],
        max_response_length=lengths[1],
        group_size=rollout.group_size,
        batch_size=batch_size,
        memory=memory,
        top_k=rollout.top_k,
        top_p=rollout.top_p,
        policy_temperature=rollout.temperature,
        filtered_logprobs=setup.config.algorithm.correction != "none",
        max_stop_tokens=len(setup.stop_tokens),
        slots=slots,
        chunk=rollout.chunk,
        prefill_chunk=rollout.prefill_chunk,
    )


def make_collector(setup: Setup, sampler: Turns, pool: Jobs) -> Collector:
    """The collector of a run's episodes."""
    rollout = setup.config.rollout
    limits = Limits(
        prompt=rollout.max_prompt_length,
        response=rollout.max_response_length,
        turn=rollout.max_turn_length,
        turns=rollout.max_turns,
        stop_tokens=setup.stop_tokens,
        seconds=setup.config.verifier.timeout,
    )
    return Collector(sampler, pool, setup.sources, setup.tokenizer, limits, setup.processes)


def _heldout_examples(task: Task, count: int) -> list[tasks.Example]:
    """The first `count` distinct held-out problems, or all if the task has fewer; independent of the seed."""
    length = task.num_examples("heldout")
    count = count if length is None else min(count, length)
    found: dict[tuple[str, str], tasks.Example] = {}
    for position in range(_DRAWS_PER_PROBLEM * count):
        example = tasks.example_at(task, "heldout", 0, position)
        # With environments, problems with the same prompt may differ.
        found.setdefault((example.prompt, json.dumps(example.reference, sort_keys=True)), example)
        if len(found) == count:
            break
    return list(found.values())


def make_evaluation(setup: Setup) -> Callable:
    """A function (collector, step, key) -> (metrics, rows of samples) over the held-out problems of all tasks.

    These don't depend on the seed, so that runs are comparable.

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

    def run(collector: Collector, step: int, key: Key[Array, ""]) -> tuple[dict[str, float], list[dict[str, Any]]]:
        metrics, greedy = evaluate(collector, examples, pass_examples, config.pass_samples, key, config.ks)
        rows = sample_rows(step, "heldout", [group for group in greedy if group.example.id in shown], setup.tokenizer)
        return metrics, rows

    return run
