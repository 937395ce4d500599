"""The compiled functions of a run: rollout, training step, scoring."""

from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache, partial
from types import MappingProxyType
from typing import Any, Literal, no_type_check

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Float, Int

from rlvr_jax import parallel, policy
from rlvr_jax.device_rules import check_update
from rlvr_jax.kernels.platform import target_platform
from rlvr_jax.learner import objectives
from rlvr_jax.learner.aggregation import group_tokens
from rlvr_jax.learner.batch import SCORED, Batch, split
from rlvr_jax.learner.credit import has_critic, next_kl_coef, penalises_kl, with_advantages
from rlvr_jax.learner.critic import action_values, critic_loss
from rlvr_jax.learner.entropy import by_covariance, by_entropy, coefficient, next_coefficient
from rlvr_jax.learner.losses import Loss
from rlvr_jax.learner.packing import pack, unpack
from rlvr_jax.learner.samples import Samples
from rlvr_jax.learner.scores import Scorer, score
from rlvr_jax.learner.step import Learner, train_step
from rlvr_jax.policy import Params, PolicyConfig
from rlvr_jax.rollout.collector import Collector, Jobs
from rlvr_jax.rollout.memory import fitting, prompt_bytes, slot_bytes, weight_bytes
from rlvr_jax.rollout.playing import Limits
from rlvr_jax.rollout.policies import Policies
from rlvr_jax.rollout.requests import Turns
from rlvr_jax.rollout.sampler import Sampler, SamplingConfig
from rlvr_jax.training.frozen import find_asked, find_teacher
from rlvr_jax.training.networks import networks_of, warmup_steps
from rlvr_jax.training.setup import Setup

Scored = Literal["logprobs", "entropy", "values"]


def make_loss(setup: Setup) -> Loss:
    """The loss chosen by the config."""
    config, teacher = setup.config, None
    if config.algorithm.loss == "distillation":
        teacher = find_teacher(setup).shape
    lengths = config.rollout.temperature, config.rollout.episode_length
    return objectives.make_loss(setup.policy, config.algorithm, *lengths, teacher, config.rollout.max_sequences)


@no_type_check  # as a pytree it may hold shapes or shardings, too
@struct.dataclass
class Metrics(Mapping):
    """Numbers by name, in one array, so that they take one transfer.

    Attributes:
      names: in order.
      array: the number of each.
    """

    names: tuple[str, ...] = struct.field(pytree_node=False)
    array: Float[Array, "names"]

    def __getitem__(self, name: str) -> Float[Array, ""]:
        if name not in self.names:
            raise KeyError(name)
        return self.array[self.names.index(name)]

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def make_training(
    setup: Setup,
    optimizers: Mapping[str, optax.GradientTransformation],
    loss: Loss,
    frozen: Mapping[str, Params] | None = None,
) -> Callable[[Learner, Batch, Mapping[str, float], int], tuple[Learner, list[list[Metrics]]]]:
    """All updates of a step: a function (learner, batch, metrics, step) -> (learner, metrics of each by network).

    The batch is split into minibatches, each of which updates the policy and the critic, if there is one; then follow
    the other epochs. In the first steps, those of the warm-up, only the critic is updated. A reference policy that
    moves and adaptive coefficients come last; they follow "train/kl_episode" of the metrics, and the entropy of the
    first update.
    """
    config, algorithm = setup.config, setup.config.algorithm
    losses = losses_of(setup, loss)
    updates = {
        name: make_update(setup, {name: optimizers[name]}, losses[name], options.microbatches, frozen)
        for name, options in networks_of(config).items()
    }

    def run(
        learner: Learner, batch: Batch, metrics: Mapping[str, float], step: int
    ) -> tuple[Learner, list[list[Metrics]]]:
        states, found = dict(learner.states), []
        trained = [name for name in updates if name != "policy" or step > warmup_steps(config)]
        for minibatch in split(batch, algorithm.minibatches) * algorithm.epochs:
            found.append([])
            for name in trained:
                columns = {column: minibatch.columns[column] for column in losses[name].needs}
                updated, described = updates[name]({name: states[name]}, minibatch.replace(columns=columns))
                states |= updated
                found[-1].append(described)
        first = ChainMap(*found[0])
        if "entropy_coef" in learner.others and "train/entropy" in first:
            metrics = {**metrics, "train/entropy": float(first["train/entropy"])}
        return _followed(setup, learner.replace(states=states), metrics, step), found

    return run


def losses_of(setup: Setup, loss: Loss) -> dict[str, Loss]:
    """The loss of each network, given that of the policy."""
    critic = has_critic(setup.config.algorithm)
    return {"policy": loss} | ({"critic": critic_loss(setup.policy, setup.config.critic.clip)} if critic else {})


def make_update(
    setup: Setup,
    optimizers: Mapping[str, optax.GradientTransformation],
    loss: Loss,
    microbatches: int,
    frozen: Mapping[str, Params] | None = None,
) -> Callable:
    """One update (states, batch) -> (states, metrics), which donates the states.

    It packs the rows of the batch on the host and calls a jitted function.
    `frozen` has the parameters of `loss.frozen`.

    Raises:
      ConfigError: the updates of this config can't be divided into microbatches.
    """
    check_update(setup.config, setup.mesh.shape["data"] * setup.mesh.shape["fsdp"], loss.rows_together)
    jitted, options = make_jitted_update(setup, optimizers, loss, microbatches), packing(setup)
    rows = parallel.batch_sharding(setup.mesh)
    others = [{name: (frozen or {})[name] for name in loss.frozen}] if loss.frozen else []
    if not options:
        return lambda states, batch: jitted(states, parallel.put(batch, rows), *others)
    return lambda states, batch: jitted(states, parallel.put(pack(batch, *options), rows), *others)


def make_jitted_update(
    setup: Setup, optimizers: Mapping[str, optax.GradientTransformation], loss: Loss, microbatches: int
) -> jax.stages.Wrapped:
    """The jitted function of `make_update`, for packed batches; with `loss.frozen` these parameters come third."""
    return _jitted_update(loss, tuple(optimizers.items()), microbatches, parallel.batch_sharding(setup.mesh))


@lru_cache(maxsize=32)  # the runs of a process share compiled functions
def _jitted_update(
    loss: Loss,
    optimizers: tuple[tuple[str, optax.GradientTransformation], ...],
    microbatches: int,
    rows: jax.sharding.NamedSharding,
) -> jax.stages.Wrapped:
    def step(states: Any, batch: Batch, *frozen: Mapping[str, Params]) -> tuple[Any, Metrics]:
        states, metrics = train_step(loss, dict(optimizers), microbatches, states, batch, *frozen)
        array = jax.lax.with_sharding_constraint(jnp.stack(list(metrics.values())), parallel.replicated(rows.mesh))
        return states, Metrics(tuple(metrics), array)

    return jax.jit(step, in_shardings=(None, rows, *[None] * bool(loss.frozen)), donate_argnums=0)


def scored_columns(setup: Setup, loss: Loss) -> tuple[str, ...]:
    """The columns that take a forward pass each, before a step's advantages."""
    algorithm = setup.config.algorithm
    needs = {*loss.needs, *["reference"] * penalises_kl(algorithm), *["values"] * has_critic(algorithm)}
    return tuple(name for name in SCORED if name in needs)


def make_scorers(
    setup: Setup, reference: Params | None, frozen: Mapping[str, Params] | None = None
) -> Callable[[Learner, int], dict[str, Scorer]]:
    """The function from the state before a step's first update, and the step's number, to its scorers.

    Args:
      setup: of the run.
      reference: the trained parameters of a reference policy that stays; None for the base policy, without adapters,
        or one that moves.
      frozen: with the "teacher", if it is the reference policy.
    """
    if setup.config.algorithm.reference == "teacher":
        of_teacher = make_score(setup, "logprobs", find_teacher(setup).shape)
    algorithm, seed, group_rows = setup.config.algorithm, setup.config.seed, setup.config.rollout.group_rows
    logprobs, entropy, values = (make_score(setup, of) for of in ("logprobs", "entropy", "values"))

    def of_reference(learner: Learner, batch: Batch) -> Float[np.ndarray, "batch action"]:
        if algorithm.reference == "teacher":
            return of_teacher(frozen["teacher"], batch)
        params, kept = learner.policy.params, learner.others.get("reference", reference)
        if kept is None:
            return logprobs(policy.base(params), batch)
        return logprobs(policy.with_trainable(params, parallel.moved_to("device", kept)), batch)

    def of_entropy(learner: Learner, batch: Batch) -> Float[np.ndarray, "batch action"]:
        coef = coefficient(algorithm, *(float(learner.others["entropy_coef"][x]) for x in ("value", "entropy")))
        return np.full(batch.action_mask.shape, coef, np.float32)

    return lambda learner, step: {
        "reference": partial(of_reference, learner),
        "proximal": lambda batch: logprobs(learner.policy.params, batch),
        "values": lambda batch: values(learner.states["critic"].params, batch),
        "group_tokens": partial(group_tokens, group_rows=group_rows),
        "selected": partial(by_covariance, algorithm, seed, step),
        "entropy_coef": partial(of_entropy, learner),
        "uncertain": lambda batch: by_entropy(algorithm, batch, entropy(learner.policy.params, batch)),
    }


def make_score(setup: Setup, of: Scored = "logprobs", shape: PolicyConfig | None = None) -> Callable:
    """The function (params, batch) -> log-probability of each action, entropy, or the critic's value before it.

    The network has the policy's architecture, or `shape`. It packs as `make_update` does, and takes the rows in as many
    parts as an update, so that it needs no more memory.
    """
    jitted, options, config = make_jitted_score(setup, of, shape), packing(setup), setup.config
    sharding = parallel.batch_sharding(setup.mesh)
    optimizer = config.critic.optimizer if of == "values" else config.optimizer
    parts = config.algorithm.minibatches * optimizer.microbatches

    def run(params: Params, batch: Batch) -> Float[np.ndarray, "batch action"]:
        batch = batch.replace(columns={})  # unused, and would be copied to the device
        rows = pack(batch, *options) if options else batch
        scored = [parallel.readable(jitted(params, parallel.put(part, sharding))) for part in split(rows, parts)]
        scores = np.concatenate(jax.device_get(scored))
        return unpack(scores, batch, *options) if options else scores

    return run


def make_jitted_score(setup: Setup, of: Scored = "logprobs", shape: PolicyConfig | None = None) -> jax.stages.Wrapped:
    """The jitted function of `make_score`, for a part of the packed rows."""
    return _jitted_score(
        shape or setup.policy, setup.config.rollout.temperature, of, parallel.batch_sharding(setup.mesh)
    )


@lru_cache(maxsize=32)  # the runs of a process share compiled functions
def _jitted_score(config: PolicyConfig, temperature: float, of: Scored, rows: jax.sharding.Sharding):
    def scores(params: Params, batch: Batch) -> Float[Array, "batch action"]:
        logprobs, entropy = score(config, params, batch, temperature)
        return logprobs if of == "logprobs" else entropy

    function = partial(action_values, config) if of == "values" else scores
    return jax.jit(function, in_shardings=(None, rows), out_shardings=rows)


def make_credit(setup: Setup) -> Callable[..., tuple[Batch, dict[str, float]]]:
    """The function (learner, batch, episodes, samples) -> (batch, metrics) of `credit.with_advantages`."""
    config = setup.config

    def run(learner: Learner, batch: Batch, episodes: Int[np.ndarray, "batch"], samples: Samples):
        coef = learner.others.get("kl_coef", {"value": config.algorithm.kl_reward_coef})
        limits = float(coef["value"]), config.verifier.timeout
        return with_advantages(config.algorithm, batch, episodes, samples, *limits)

    return run


def _followed(setup: Setup, learner: Learner, metrics: Mapping[str, float], step: int) -> Learner:
    """The state with what follows the networks: a reference policy that moves, adaptive coefficients.

    Args:
      setup: of the run.
      learner: after the updates of the step.
      metrics: of the step, with "train/kl_episode" for that of the KL penalty, and unless the policy was not trained,
        "train/entropy" for that of the entropy.
      step: of the run.
    """
    algorithm, rollout, others = setup.config.algorithm, setup.config.rollout, dict(learner.others)
    number = lambda x: parallel.put(np.asarray(x, np.float32), parallel.replicated(setup.mesh))  # noqa: E731
    if "reference" in others and step % algorithm.reference_every == 0:
        trained = policy.trainable(learner.policy.params)
        others["reference"] = _moved(others["reference"], trained, algorithm.reference_share)
    if "kl_coef" in others:
        coef, samples = float(others["kl_coef"]["value"]), rollout.prompts * rollout.group_size
        coef = next_kl_coef(algorithm, coef, metrics["train/kl_episode"], samples)
        others["kl_coef"] = {"value": number(coef)}
    if "entropy_coef" in others and "train/entropy" in metrics:
        entropy = float(metrics["train/entropy"])
        coef = next_coefficient(algorithm, float(others["entropy_coef"]["value"]), entropy)
        others["entropy_coef"] = {"value": number(coef), "entropy": number(entropy)}
    return learner.replace(others=others)


@partial(jax.jit, donate_argnums=0)
def _moved(reference: Params, params: Params, share: float | Float[Array, ""]) -> Params:
    """`share` of the way from the reference policy to the policy, all the way to the bit."""

    def moved(old: Array, new: Array) -> Array:
        mixed = old + (new.astype(jnp.float32) - old.astype(jnp.float32)) * share
        return jnp.where(share == 1, new, mixed.astype(old.dtype))

    return jax.tree.map(moved, reference, params)


def packing(setup: Setup) -> tuple[int, int] | None:
    """The options of `pack` and `unpack`, or None without packing.

    Attention in plain JAX, that of CPU, reads rows by the columns of their responses; a kernel skips blocks of padding,
    of which there are more behind all responses than between them.
    """
    training, rollout = setup.config.training, setup.config.rollout
    if training.packing == "none":
        return None
    with parallel.use_mesh(setup.mesh):
        plain = target_platform() == "cpu"
    whole = rollout.group_size * rollout.max_response_length
    return rollout.group_size, training.packing_multiple or (0 if plain else whole)


def make_sampler(setup: Setup) -> Sampler:
    """The sampler of a run."""
    return Sampler(setup.policy, sampling_config(setup), setup.sampling_mesh, setup.config.rollout.in_flight)


def make_asked(setup: Setup) -> dict[str, Sampler]:
    """The samplers of the policies that environments ask, by their sources. Raises as `frozen.find_frozen`."""
    found = {}
    for source, network in find_asked(setup).items():
        found[source] = Sampler(network.shape, sampling_config(setup), setup.sampling_mesh)
        found[source].set_params(network.load(), 0)
    return found


def sampling_config(setup: Setup) -> SamplingConfig:
    """The sampler's settings, with a batch or slots that fit into the memory of a device, if that is known.

    Multi-turn environments get slots, so that contexts are not prefilled again. Policies that environments ask have as
    many, with keys and values of their own, beside their parameters.
    """
    rollout, mesh, memory = setup.config.rollout, setup.sampling_mesh, setup.sampling_memory
    place = mesh.shape["tensor"], parallel.devices_of(mesh)[0].platform
    lengths = rollout.max_prompt_length, rollout.max_response_length
    batch_size, slots = rollout.batch_size or rollout.prompts, rollout.slots
    asked = [network.shape for network in find_asked(setup).values()]
    if memory:
        memory = max(1, memory - sum(weight_bytes(shape, place[0]) for shape in asked))
    if not slots and _has_turns(setup):
        slots = rollout.prompts * rollout.group_size
        if memory:
            sizes = lengths[0], sum(lengths), rollout.group_size
            each = sum(slot_bytes(shape, *sizes, *place) for shape in (setup.policy, *asked))
            slots = fitting(slots, each, memory, mesh.shape["data"])
    elif not rollout.batch_size and memory:
        each = sum(prompt_bytes(x, *lengths, rollout.group_size, *place) for x in (setup.policy, *asked))
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
        max_stop_tokens=len(setup.stop_tokens)
        + max((len(source.ends) for source in setup.sources.values()), default=0),
        slots=slots,
        chunk=rollout.chunk,
        prefill_chunk=rollout.prefill_chunk,
    )


def _has_turns(setup: Setup) -> bool:
    """True if episodes may have several turns; of a setup without problems, by the names of their environments."""
    if setup.sources:
        return not all(source.env.one_turn for source in setup.sources.values())
    return any(task.environment != "single_turn" for task in setup.config.tasks.values())


def make_collector(
    setup: Setup, sampler: Turns, pool: Jobs, asked: Mapping[str, Sampler] = MappingProxyType({})
) -> Collector:
    """The collector of a run's episodes, whose environments may ask other policies."""
    sampler = Policies(sampler, asked) if asked else sampler
    rollout = setup.config.rollout
    limits = Limits(
        prompt=rollout.max_prompt_length,
        response=rollout.max_response_length,
        turn=rollout.max_turn_length,
        turns=rollout.max_turns,
        sequences=rollout.max_sequences,
        stop_tokens=setup.stop_tokens,
        seconds=setup.config.verifier.timeout,
    )
    return Collector(sampler, pool, setup.sources, setup.tokenizer, limits, setup.processes, rollout.patience)
