"""The compiled programs of a run, from shapes alone: nothing is loaded and no array is made."""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from rlvr_jax import parallel
from rlvr_jax.config import supervised_options
from rlvr_jax.learner.batch import Batch
from rlvr_jax.learner.optimizer import make_optimizer
from rlvr_jax.learner.supervised import updates_in_a_call
from rlvr_jax.rollout import slots as device
from rlvr_jax.rollout.batches import prompts_per_batch, sample
from rlvr_jax.rollout.continuous import array_shardings, compiled_functions, ring_widths
from rlvr_jax.rollout.layout import decoded, make_move
from rlvr_jax.rollout.layout import param_shapes as sampler_shapes
from rlvr_jax.rollout.sampling import Draws
from rlvr_jax.training.frozen import find_teacher
from rlvr_jax.training.functions import (
    losses_of,
    make_jitted_score,
    make_jitted_update,
    make_loss,
    packing,
    sampling_config,
)
from rlvr_jax.training.networks import make_optimizers, network_shapes, networks_of, state_shapes, updates_of_step
from rlvr_jax.training.plan import PHASE_OF_UPDATES, evaluates, scored
from rlvr_jax.training.preferences import (
    longest_pairs,
    make_jitted_reference,
    make_jitted_rewards,
    preference_objective,
)
from rlvr_jax.training.setup import Setup
from rlvr_jax.training.sft import longest_rows, sft_objective
from rlvr_jax.training.supervised import make_jitted_updates, stacked_shapes


@dataclass(frozen=True)
class Program:
    """A program of a run.

    Attributes:
      phase: of a step, which it is a part of.
      lower: traces it for its devices.
      mesh: its devices.
      holds: the kinds of `plan.Memory` that are among its arguments or results; none if it reads a part of one.
      calls: in a step; a call with several updates is a part of one in each.
    """

    phase: str
    lower: Callable[[], jax.stages.Lowered]
    mesh: parallel.AnyMesh
    holds: tuple[str, ...]
    calls: int | Fraction = 1

    def compile(self) -> jax.stages.Compiled:
        """Compiles it, with the kernels of its devices.

        Raises:
          OutOfMemoryError: it doesn't fit.
        """
        with parallel.use_mesh(self.mesh):
            lowered = self.lower()
            try:
                return lowered.compile()
            except jax.errors.JaxRuntimeError as error:
                if "RESOURCE_EXHAUSTED" not in str(error):
                    raise
                raise OutOfMemoryError(_needed(str(error))) from error


class OutOfMemoryError(Exception):
    """A program needs more memory than a device has; `needed` bytes, 0 if the compiler does not say."""

    def __init__(self, needed: int) -> None:
        super().__init__(needed)
        self.needed = needed


def _needed(message: str) -> int:
    """Bytes in the compiler's message, such as "Used 38.00G of 15.75G hbm"."""
    for pattern in (r"Used ([\d.]+)([KMGT])", r"\(([\d.]+)([KMGT])\) exceeds"):
        if found := re.search(pattern, message):
            return int(float(found[1]) * 2 ** (10 * (1 + "KMGT".index(found[2]))))
    return 0


def programs(setup: Setup) -> Iterator[Program]:
    """The programs of a step of a run: those of reinforcement learning with the one of greedy evaluation, and those of
    a supervised run with what scores its pairs."""
    if setup.run == "rl":
        yield from _of_updates(setup)
        yield from _of_sampler(setup)
    else:
        yield from _of_supervised(setup)


def _of_updates(setup: Setup) -> Iterator[Program]:
    config, loss = setup.config, make_loss(setup)
    minibatches, columns = config.algorithm.minibatches, scored(setup)
    optimizers, holds = make_optimizers(config), {"policy": ("parameters", "moments"), "critic": ("critic",)}
    losses, teacher = losses_of(setup, loss), find_teacher(setup)
    for network, options in networks_of(config).items():
        optimizer, params = optimizers[network], network_shapes(setup.policy, setup.mesh, network)
        one = losses[network]
        update = make_jitted_update(setup, {network: optimizer}, one, options.microbatches)
        states = {network: state_shapes(optimizer, params, setup.mesh, options.offload)}
        frozen = [{"teacher": network_shapes(teacher.shape, setup.mesh)}] if one.frozen else []
        lower = partial(update.lower, states, batch_shapes(setup, minibatches, one.needs), *frozen)
        phase, calls = PHASE_OF_UPDATES[network], updates_of_step(config)
        yield Program(phase, lower, setup.mesh, (*holds[network], "batch"), calls)
        of, phase = ("values", "values") if network == "critic" else ("logprobs", "scoring")
        if phase in columns:
            parts = options.microbatches * minibatches
            lower = partial(make_jitted_score(setup, of).lower, params, batch_shapes(setup, parts, ()))
            read = () if network == "critic" else ("parameters", "batch")
            yield Program(phase, lower, setup.mesh, read, len(columns[phase]) * parts)


def _of_supervised(setup: Setup) -> Iterator[Program]:
    """The updates of a call, and for preferences a microbatch of the reference policy and one of the evaluation."""
    options, pairs = supervised_options(setup.config, setup.run), setup.run == "preferences"
    objective = preference_objective(setup) if pairs else sft_objective(setup)
    network, microbatches = objective.network, options.optimizer.microbatches
    optimizer = make_optimizer(options.optimizer, options.num_steps)
    params, count = network_shapes(setup.policy, setup.mesh, network), updates_in_a_call(options)
    states = {network: state_shapes(optimizer, params, setup.mesh, options.optimizer.offload)}
    batch = longest_pairs(setup, options.batch_size) if pairs else longest_rows(setup)
    update = make_jitted_updates(objective, {network: optimizer}, microbatches)
    lower = partial(update.lower, states, stacked_shapes(setup, batch, count))
    yield Program("update", lower, setup.mesh, ("parameters", "moments", "batch"), Fraction(1, count))
    if not pairs:
        return
    of = partial(jax.ShapeDtypeStruct, sharding=parallel.batch_sharding(setup.mesh))
    part = jax.tree.map(lambda x: of(x.shape, x.dtype), longest_pairs(setup, options.batch_size // microbatches))
    if "scoring" in scored(setup):
        lower = partial(make_jitted_reference(setup).lower, params, part.replace(columns={}))
        yield Program("scoring", lower, setup.mesh, ("parameters", "batch"), microbatches)
    if evaluates(setup):
        lower = partial(make_jitted_rewards(setup).lower, params, part)
        yield Program("evaluation", lower, setup.mesh, ("parameters", "batch"))


def batch_shapes(setup: Setup, parts: int, columns: tuple[str, ...]) -> Batch:
    """The shapes of a step's batch, or of one of `parts` equal parts, packed as the config says."""
    rollout, packed = setup.config.rollout, packing(setup)
    group, multiple = packed or (1, 0)
    rows = rollout.prompts * rollout.group_rows // group // parts
    actions = group * rollout.max_response_length
    ids = jax.ShapeDtypeStruct((rows, rollout.max_prompt_length + actions), jnp.int32)
    numbers = jax.ShapeDtypeStruct((rows, actions), jnp.float32)
    return Batch(
        tokens=ids,
        positions=ids,
        segment_ids=ids,
        predictors=jax.ShapeDtypeStruct((rows, actions), jnp.int32),
        action_mask=numbers,
        samples=jax.ShapeDtypeStruct((rows,), jnp.float32),
        columns=dict.fromkeys(columns, numbers),
        parents=ids if packed else None,
        branches=None if not packed or multiple else (rollout.max_prompt_length, rollout.max_response_length),
    )


def _of_sampler(setup: Setup) -> Iterator[Program]:
    shape, mesh, sampling = setup.policy, setup.sampling_mesh, sampling_config(setup)
    given = network_shapes(setup.policy, setup.mesh)
    move = make_move(shape, setup.param_shardings, mesh)
    yield Program("move", partial(move.lower, given), mesh, ("parameters", "sampler"))
    params, shape = sampler_shapes(shape, mesh), decoded(shape, mesh)
    config, rollout = setup.config, setup.config.rollout
    if sampling.slots:
        yield from _of_slots(setup, params)
        return
    batch = sampling.batch_size
    arguments = params, *_prompt_shapes(setup, batch, sampling.group_size)
    calls = -(-rollout.prompts // batch)
    yield Program("rollout", partial(sample.lower, shape, sampling, *arguments), mesh, ("sampler",), calls)
    number = config.evaluation.problems * len(config.tasks)
    batch = prompts_per_batch(shape, sampling, mesh, number, 1, sampling.prompt_length)
    arguments = params, *_prompt_shapes(setup, batch, 1)
    calls = -(-number // batch)
    yield Program("evaluation", partial(sample.lower, shape, sampling, *arguments), mesh, ("sampler",), calls)


def _prompt_shapes(setup: Setup, prompts: int, group: int) -> tuple[Any, Any, Draws]:
    sampling = sampling_config(setup)
    of = partial(jax.ShapeDtypeStruct, sharding=parallel.batch_sharding(setup.sampling_mesh))
    length, rows = sampling.prompt_length, prompts * group
    draws = _draw_shapes(of, rows, sampling.max_stop_tokens)
    return of((prompts, length), jnp.int32), of((prompts, length), jnp.bool_), draws


def _draw_shapes(of: Callable, rows: int, stop_tokens: int) -> Draws:
    words = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0))).shape
    return Draws(
        key=of((rows, *words), jnp.uint32),
        drawn=of((rows,), jnp.int32),
        limit=of((rows,), jnp.int32),
        temperature=of((rows,), jnp.float32),
        stop_tokens=of((rows, stop_tokens), jnp.int32),
    )


def _of_slots(setup: Setup, params: Any) -> Iterator[Program]:
    """A chunk of decoding at the largest width, and a piece of prefill."""
    mesh, sampling = setup.sampling_mesh, sampling_config(setup)
    shape = decoded(setup.policy, mesh)
    functions, rollout = compiled_functions(shape, sampling, mesh), setup.config.rollout
    placed = lambda x: jax.tree.map(_with_sharding, x, array_shardings(shape, mesh, x))  # noqa: E731
    of = partial(jax.ShapeDtypeStruct, sharding=parallel.batch_sharding(mesh))
    tail = device.Tail(of((sampling.slots,), jnp.int32), _draw_shapes(of, sampling.slots, sampling.max_stop_tokens))
    width = ring_widths(sampling, mesh)[-1]
    slots = placed(jax.eval_shape(lambda params, tail: device.empty_slots(shape, params, width, tail), params, tail))
    samples = rollout.prompts * rollout.group_rows
    chunks = math.ceil(samples / sampling.slots) * -(-sampling.max_response_length // sampling.chunk)
    yield Program("rollout", partial(functions.decode.lower, params, slots), mesh, ("sampler",), chunks)
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    prompts = -(-sampling.slots // (sampling.group_size * shards)) * shards
    empty = lambda params: device.empty_rows(shape, params, prompts, sampling.prompt_length)  # noqa: E731
    rows = placed(jax.eval_shape(empty, params))
    piece = min(sampling.prefill_chunk, sampling.prompt_length)
    arguments = params, rows, of((prompts, piece), jnp.int32), of((prompts,), jnp.int32)
    calls = -(-rollout.prompts // prompts) * -(-sampling.prompt_length // piece)
    yield Program("prefill", partial(functions.append.lower, *arguments), mesh, ("sampler",), calls)


def _with_sharding(x: jax.ShapeDtypeStruct, sharding: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)
