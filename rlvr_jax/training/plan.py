"""The memory that a run needs on each device, by arithmetic: nothing is compiled and no array is made."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rlvr_jax import named, parallel, policy
from rlvr_jax.config import supervised_options
from rlvr_jax.errors import CheckpointError, ConfigError
from rlvr_jax.hf.families import LENGTH
from rlvr_jax.learner.optimizer import OptimizerConfig, make_optimizer
from rlvr_jax.learner.preferences import LOSSES, Preference
from rlvr_jax.learner.supervised import updates_in_a_call
from rlvr_jax.parallel import AnyMesh, MeshConfig
from rlvr_jax.parallel.chips import GIB, memory_of
from rlvr_jax.policy import LoraConfig, PolicyConfig
from rlvr_jax.reporting.curves import short
from rlvr_jax.rollout.layout import decoded
from rlvr_jax.rollout.memory import cache_bytes
from rlvr_jax.rollout.sampling import SamplingConfig
from rlvr_jax.training.frozen import find_asked, find_frozen, find_teacher
from rlvr_jax.training.functions import make_loss, sampling_config, scored_columns
from rlvr_jax.training.memory import Load, forward_bytes, head_bytes, kept_bytes
from rlvr_jax.training.models import architecture
from rlvr_jax.training.networks import network_shapes, networks_of, shapes_and_axes, state_shapes
from rlvr_jax.training.setup import Setup, load_of
from rlvr_jax.training.versions import local_judges
from rlvr_jax.verifiers.judge import POLICY

Kinds = dict[str, int]  # kind -> bytes
PHASE_OF_UPDATES = {"policy": "update", "reward": "update", "critic": "critic"}  # the phase of a network's updates
NETWORKS = {"scoring": "policy", "values": "critic"}  # of phases of forward passes


@dataclass(frozen=True)
class Memory:
    """Bytes on the fullest device.

    Attributes:
      phases: phase of a step -> kind -> bytes held at its peak.
      devices: their number and kind.
      capacity: bytes that programs may use; None if unknown.
    """

    phases: dict[str, Kinds]
    devices: str
    capacity: int | None

    @property
    def peak(self) -> tuple[str, int]:
        """The phase that needs most, and its bytes."""
        totals = {name: sum(kinds.values()) for name, kinds in self.phases.items()}
        return max(totals.items(), key=lambda item: item[1])

    @property
    def spare(self) -> int | None:
        """Bytes left at the peak, negative if they are missing; None if the capacity is unknown."""
        return None if self.capacity is None else self.capacity - self.peak[1]


def memory_of_run(setup: Setup) -> Memory:
    """The memory of a run, with responses of full length."""
    device, config = parallel.devices_of(setup.mesh)[0], setup.config
    options = networks_of(config, setup.run)
    resident = _resident(setup, options)
    added = {name: _of_update(setup, name, one, device.platform) for name, one in options.items()}
    phases = {PHASE_OF_UPDATES[name]: resident | kinds for name, kinds in added.items()}
    if setup.run == "rl":
        phases |= _of_rollout(setup, resident, phases, device.platform)
    else:
        phases |= {phase: resident | _of_pass(setup, NETWORKS[phase], device.platform) for phase in scored(setup)}
        if evaluates(setup):
            phases["evaluation"] = resident | _of_pass(setup, next(iter(options)), device.platform)
    number = setup.mesh.size + config.rollout.devices * (setup.run == "rl")
    return Memory(phases, f"{number} x {device.device_kind}", memory_of(device))


def scored(setup: Setup) -> dict[str, tuple[str, ...]]:
    """The columns of a step's batch that take a forward pass each, by the phase in which the network of `NETWORKS`
    computes them."""
    if setup.run == "rl":
        columns = scored_columns(setup, make_loss(setup))
    else:
        columns = ("reference",) if setup.run == "preferences" and _loss_of(setup).reference else ()
    of = {"scoring": tuple(x for x in columns if x != "values"), "values": tuple(x for x in columns if x == "values")}
    return {phase: names for phase, names in of.items() if names}


def evaluates(setup: Setup) -> bool:
    """True if a supervised run evaluates on held-out data."""
    return setup.run == "preferences" and setup.config.preferences.heldout_share > 0


def _loss_of(setup: Setup) -> Preference:
    return LOSSES[setup.config.preferences.loss]


class _State(NamedTuple):
    """Bytes of the training state on one device; gradients are those of all trained parameters in float32."""

    parameters: int
    trained: int
    moments: int
    gradients: int


def _state(options: OptimizerConfig, shape: PolicyConfig, mesh: AnyMesh, network: str) -> _State:
    # Without what changes no size.
    shape = replace(shape, remat="none", head_chunk=0, attention="auto", max_length=0)
    return _state_of(replace(options, microbatches=1), shape, mesh, network)


@lru_cache(maxsize=4096)
def _state_of(options: OptimizerConfig, shape: PolicyConfig, mesh: AnyMesh, network: str) -> _State:
    state = state_shapes(make_optimizer(options, 1), network_shapes(shape, mesh, network), mesh, options.offload)
    trained = policy.trainable(state.params)
    floats = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, jnp.float32, sharding=x.sharding), trained)
    return _State(*map(parallel.bytes_on_device, (state.params, trained, state.opt_state, floats)))


def _resident(setup: Setup, options: Mapping[str, OptimizerConfig]) -> Kinds:
    """The training state, which is in memory in all phases."""
    config, shape = setup.config, setup.policy
    states = {name: _state(one, shape, setup.mesh, name) for name, one in options.items()}
    first = states[next(iter(options))]
    kinds = {"parameters": first.parameters} | ({"moments": first.moments} if first.moments else {})
    if setup.run != "rl":
        return kinds
    if not config.training.offload_reference:
        kinds |= _of_reference(setup)
    if teacher := find_teacher(setup):
        kinds["teacher"] = parallel.bytes_on_device(network_shapes(teacher.shape, setup.mesh))
    kinds |= _of_models_that_score(setup)
    if "critic" in states:
        kinds["critic"] = states["critic"].parameters + states["critic"].moments
    return kinds


def _of_reference(setup: Setup) -> Kinds:
    """The parameters of a reference policy, as many as those that are trained, if the run keeps any."""
    config = setup.config
    copied = config.algorithm.reference_every or not (setup.policy.lora.rank and not config.init_from)
    copied = copied and config.algorithm.reference == "initial"
    if not copied or "reference" not in scored_columns(setup, make_loss(setup)):
        return {}
    return {"reference": _state(config.optimizer, setup.policy, setup.mesh, "policy").trained}


def _of_models_that_score(setup: Setup) -> Kinds:
    """The parameters of reward models, divided like those of the policy, and of judges, whole on one device."""
    rewards = [
        find_frozen(setup, source, f"config.reward_models.{name}", "reward").shape
        for name, source in setup.config.reward_models.items()
    ]
    sizes = {
        "reward models": sum(parallel.bytes_on_device(network_shapes(x, setup.mesh, "reward")) for x in rewards),
        "judges": sum(_numbers(x, alone(setup)) * jnp.dtype(x.param_dtype).itemsize for x in judges_of(setup).values()),
    }
    return {kind: size for kind, size in sizes.items() if size}


def judges_of(setup: Setup) -> dict[str, PolicyConfig]:
    """The architectures of the judges that are asked in this process. Raises ConfigError, naming the key."""
    found = {}
    for name, source in local_judges(setup).items():
        model = setup.config.judges[name].model
        if named.is_name(model):  # a function
            continue
        try:
            own = model == POLICY
            found[name] = replace(setup.policy, lora=LoraConfig()) if own else architecture(source)
        except (ConfigError, CheckpointError, ValueError) as error:
            raise ConfigError(f"config.judges.{name}: {error}") from error
    return found


def alone(setup: Setup) -> AnyMesh:
    """The first device of the run as a mesh, which judges are on."""
    return parallel.make_mesh(MeshConfig(data=1), parallel.devices_of(setup.mesh)[:1])


def _of_update(setup: Setup, network: str, options: OptimizerConfig, platform: str) -> Kinds:
    """Memory that an update of a network adds."""
    run, shape, mesh = setup.run, setup.policy, setup.mesh
    state = _state(replace(options, offload=False), shape, mesh, network)
    held = state.moments + (state.parameters if network == "critic" else 0)
    (load, _), tensor = load_of(setup, network), mesh.shape["tensor"]
    updates = 1 if run == "rl" else updates_in_a_call(supervised_options(setup.config, run))
    return {
        # An update brings all moments to the device at once: so does the TPU compiler.
        **({"critic" if network == "critic" else "moments": held} if options.offload else {}),
        # Of a microbatch, their sum over microbatches, and the optimizer's updates.
        "gradients": state.gradients * (3 if options.microbatches > 1 else 2),
        "activations": kept_bytes(shape, load, tensor, platform) + _gathered_layer(setup),
        **({"logits": head_bytes(shape, load, weight_shards(mesh), tensor)} if network == "policy" else {}),
        "batch": updates * _batch_bytes(load, options.microbatches),
    }


def _of_pass(setup: Setup, network: str, platform: str) -> Kinds:
    """Memory that a forward pass over a microbatch of a network's updates adds."""
    shape, mesh = setup.policy, setup.mesh
    (load, _), tensor = load_of(setup, network), mesh.shape["tensor"]
    kinds = {"activations": forward_bytes(shape, load, tensor, platform) + _gathered_layer(setup)}
    if network == "policy":
        kinds["logits"] = head_bytes(shape, load, weight_shards(mesh), tensor, gradients=False)
    return kinds


def _of_rollout(setup: Setup, state: Kinds, updates: dict[str, Kinds], platform: str) -> dict[str, Kinds]:
    """The memory of scoring, the move of parameters and sampling; adds the sampler's copy to `updates`."""
    config, shape = setup.config, setup.policy
    apart = bool(config.rollout.devices)  # the sampler has devices of its own
    asked = [network.shape for network in find_asked(setup).values()]
    sampler = {"sampler": sampler_bytes(setup.policy, setup.sampling_mesh)}
    if asked:
        sampler["asked"] = sum(sampler_bytes(shape, setup.sampling_mesh) for shape in asked)
    if not apart:
        for update in updates.values():
            update |= sampler
    phases = {}
    for phase, columns in scored(setup).items():
        phases[phase] = state | ({} if apart else sampler)
        if "reference" in columns and config.training.offload_reference:
            phases[phase] |= _of_reference(setup)
        phases[phase] |= _of_pass(setup, NETWORKS[phase], platform)
    if judging := _of_judges(setup, platform):
        phases["judging"] = state | ({} if apart else sampler) | judging
    held = sampler if apart else state | sampler
    # Cast and unstacked where the parameters lie, and then moved; the last copy is given up first.
    item = jnp.dtype(shape.dtype).itemsize / jnp.dtype(shape.param_dtype).itemsize
    phases["move"] = held | {"copy": int(state["parameters"] * item)}
    sampled = sampling_config(setup), setup.sampling_mesh
    phases["rollout"] = held | sampling_bytes(shape, *sampled, platform)
    if asked:
        caches = [sampling_bytes(shape, *sampled, platform)["KV cache"] for shape in asked]
        phases["rollout"]["asked"] = sampler["asked"] + sum(caches)
    return phases


def _of_judges(setup: Setup, platform: str) -> Kinds:
    """Memory that the judge which needs most adds while it answers: a sampler's copy, and questions of full length."""
    found, rollout, mesh = [], setup.config.rollout, alone(setup)
    for name, shape in judges_of(setup).items():
        options = setup.config.judges[name]
        window = shape.max_length or LENGTH
        question = min(rollout.max_prompt_length + rollout.episode_length, window)
        sampling = SamplingConfig(question, min(options.max_tokens, window), 1, options.in_flight)
        found.append({"copy": sampler_bytes(shape, mesh)} | sampling_bytes(shape, sampling, mesh, platform))
    return max(found, key=lambda kinds: sum(kinds.values()), default={})


def sampler_bytes(shape: PolicyConfig, mesh: AnyMesh) -> int:
    """Bytes of a sampler's copy of the parameters on one device: in the compute type, by the sampler's layout."""
    shape = decoded(shape, mesh)
    return _numbers(shape, mesh) * jnp.dtype(shape.dtype).itemsize


@lru_cache(maxsize=4096)
def _numbers(shape: PolicyConfig, mesh: AnyMesh) -> int:
    shapes, axes = shapes_and_axes(shape)
    shardings = parallel.param_shardings(mesh, axes, shapes)
    sizes = jax.tree.map(lambda x, sharding: math.prod(sharding.shard_shape(x.shape)), shapes, shardings)
    return sum(jax.tree.leaves(sizes))


def sampling_bytes(shape: PolicyConfig, sampling: SamplingConfig, mesh: AnyMesh, platform: str) -> Kinds:
    """The memory of sampling on one device beside parameters, with sequences of full length."""
    shape = decoded(shape, mesh)
    shards, tensor = mesh.shape["data"] * mesh.shape["fsdp"], mesh.shape["tensor"]
    cache = partial(cache_bytes, shape, tensor=tensor, platform=platform)
    prompt, response = sampling.prompt_length, sampling.max_response_length
    if sampling.slots:
        rows = sampling.slots // shards
        prompts = -(-rows // sampling.group_size)
        width = prompt + response + sampling.chunk
        caches = cache(rows, width) + 2 * cache(prompts, prompt)
        prefill = Load(prompts, min(sampling.prefill_chunk, prompt), 1)
    else:
        prompts = -(-sampling.batch_size // shards)
        rows = prompts * sampling.group_size
        caches = cache(rows, max(response - 1, 1)) + cache(prompts, prompt)
        prefill = Load(prompts, prompt, 1)
    logits = 3 * 4 * rows * shape.vocab_size // tensor
    return {"KV cache": caches, "prefill": forward_bytes(shape, prefill, tensor, platform), "logits": logits}


def weight_shards(mesh: AnyMesh) -> int:
    """Parts of the weights that are gathered for use."""
    return mesh.shape["fsdp"] * mesh.shape["context"]


def _gathered_layer(setup: Setup) -> int:
    """Bytes of the weights of the layer in use and the next one, gathered over `fsdp` and `context`."""
    shape = setup.policy
    if weight_shards(setup.mesh) == 1:
        return 0
    layers = shapes_and_axes(shape)[0]["layers"]
    count = sum(math.prod(x.shape) for x in jax.tree.leaves(layers)) // shape.num_layers
    return 2 * count // setup.mesh.shape["tensor"] * jnp.dtype(shape.dtype).itemsize


def _batch_bytes(load: Load, microbatches: int) -> int:
    """Token ids, positions, segments, parents; of each action its place, mask and up to four columns."""
    return microbatches * load.rows * 4 * (4 * load.length + 6 * load.actions)


UNITS = (GIB, "GiB"), (2**20, "MiB"), (2**10, "KiB")
RESIDENT = ("parameters", "moments", "reference", "teacher", "critic", "reward models", "judges", "sampler", "asked")


def lines(memory: Memory, setup: Setup) -> tuple[str, str]:
    """Two lines: what the run holds on each device, and whether it fits.

    Raises:
      ConfigError: parameters and optimizer alone exceed a device.
    """
    phase, most = memory.peak
    unit, name = _unit(most)
    size = lambda count: f"{count / unit:.1f}"  # noqa: E731
    held, config = memory.phases["update"], setup.config
    options = next(iter(networks_of(config, setup.run).values()))
    offloaded = ["moments"] * options.offload + ["reference"] * config.training.offload_reference
    resident = ", ".join(f"{kind} {size(held[kind])}" for kind in RESIDENT if kind in held and kind not in offloaded)
    peaks = ", ".join(f"{other} {size(sum(kinds.values()))}" for other, kinds in memory.phases.items())
    first = f"memory per device ({memory.devices}), {name}: {resident}; with what each phase adds: {peaks}"
    return first, _verdict(memory, setup, phase)


def amount(size: float | int) -> str:
    """Bytes for readers: `18 MiB`."""
    unit, name = _unit(size)
    return f"{short(size / unit)} {name}"


def _unit(size: float | int) -> tuple[int, str]:
    return next((x for x in UNITS if size >= x[0]), UNITS[-1])


def _verdict(memory: Memory, setup: Setup, phase: str) -> str:
    config, shape, most = setup.config.policy, setup.policy, memory.peak[1]
    chosen = [f"policy.remat = {shape.remat!r}"] if config.remat == "auto" and shape.remat != "none" else []
    chosen += [f"policy.head_chunk = {shape.head_chunk}"] if config.head_chunk < 0 and shape.head_chunk else []
    choices = f"; chosen: {', '.join(chosen)}" if chosen else ""
    if memory.capacity is None:
        of = f"{amount(most)} per device, in the {phase}"
        return f"estimated peak memory: {of}; the memory of these devices is unknown{choices}"
    state = sum(memory.phases["update"].get(kind, 0) for kind in ("parameters", "moments", "critic"))
    if state > memory.capacity:
        raise ConfigError(
            f"parameters and optimizer need {amount(state)} on each device, and programs may use "
            f"{amount(memory.capacity)}: divide them by config.mesh.fsdp or config.mesh.tensor, use more devices, or "
            "train adapters (config.policy.lora.rank)"
        )
    added = {kind: count for kind, count in memory.phases[phase].items() if kind not in RESIDENT}
    largest = ", ".join(f"{kind} {amount(count)}" for kind, count in sorted(added.items(), key=lambda x: -x[1])[:3])
    of = f"{amount(most)} of {amount(memory.capacity)} per device, in the {phase} ({largest})"
    if memory.spare < 0:
        return (
            f"warning: does not fit, estimated peak memory: {of}; {amount(-memory.spare)} missing. `rlvr compile "
            f"--fit` searches for settings that fit{choices}"
        )
    return f"estimated peak memory: {of}; {amount(memory.spare)} to spare{choices}"
