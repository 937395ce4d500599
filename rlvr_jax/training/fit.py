"""Settings with which a run fits, found by trying: by arithmetic first, then by compiling the best."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from rlvr_jax.config import Config, Run, flatten, supervised_options, to_dict
from rlvr_jax.device_rules import check_update
from rlvr_jax.errors import ConfigError
from rlvr_jax.parallel.chips import Chip
from rlvr_jax.training.analysis import Analysis, estimated
from rlvr_jax.training.functions import make_loss
from rlvr_jax.training.networks import networks_of, optimizer_keys
from rlvr_jax.training.plan import memory_of_run
from rlvr_jax.training.setup import Setup, make_setup

MARGIN = 0.1  # of the memory, which estimates leave free
_CHUNKS = (2048, 1024, 512, 256)  # values of `policy.head_chunk`
_TRAINING = ("update", "scoring", "values", "critic", "evaluation")  # phases
_MOST_TENSOR = 32  # devices of a mesh axis `tensor` that are tried


@dataclass(frozen=True)
class Change:
    """A setting to change.

    Attributes:
      key: of the config.
      value: its new value.
    """

    key: str
    value: Any

    def __str__(self) -> str:
        return f"{self.key} = {self.value!r}"


def changed(config: Config, changes: Sequence[Change]) -> Config:
    """The config with other values."""
    for change in changes:
        config = _changed(config, change.key.split("."), change.value)
    return config


def _changed(record: Any, path: list[str], value: Any) -> Any:
    name, *rest = path
    return dataclasses.replace(record, **{name: _changed(getattr(record, name), rest, value) if rest else value})


def try_setup(config: Config, devices: Sequence[Any], run: Run = "rl") -> Setup | None:
    """The setup of a run of this kind, or None if the config can't run on these devices."""
    try:
        setup = make_setup(config, problems=False, run=run, devices=devices)
        if run == "rl":
            check_update(config, setup.mesh.shape["data"] * setup.mesh.shape["fsdp"], make_loss(setup).rows_together)
    except ConfigError:
        return None
    return setup


def smaller(config: Config, setup: Setup) -> Iterator[Change]:
    """Single changes that save memory."""
    mesh, keys = setup.mesh.shape, optimizer_keys(config, setup.run)
    optimizers = {keys[name]: options for name, options in networks_of(config, setup.run).items()}
    for factor in (2, 4, 8, 16, 32):
        for key, options in optimizers.items():
            yield Change(f"{key}.microbatches", options.microbatches * factor)
    if setup.policy.remat != "full":
        yield Change("policy.remat", "full")
    for chunk in _CHUNKS:
        if not setup.policy.head_chunk or setup.policy.head_chunk > chunk:
            yield Change("policy.head_chunk", chunk)
    for factor in (2, 4, 8):
        yield Change("mesh.context", mesh["context"] * factor)
        if mesh["data"] % factor == 0:
            yield Change("mesh.fsdp", mesh["fsdp"] * factor)
    for key, options in optimizers.items():
        if not options.offload:
            yield Change(f"{key}.offload", True)
    if setup.run == "rl":
        yield from _smaller_rollout(config, setup)


def _smaller_rollout(config: Config, setup: Setup) -> Iterator[Change]:
    rollout, held = config.rollout, memory_of_run(setup).phases["update"]
    batch = rollout.batch_size or rollout.prompts
    for factor in (2, 4, 8, 16, 32):
        if batch % factor == 0 and not rollout.slots:
            yield Change("rollout.batch_size", batch // factor)
        if rollout.slots and rollout.slots % factor == 0:
            yield Change("rollout.slots", rollout.slots // factor)
    for factor in (2, 4, 8):
        yield Change("mesh.rollout_tensor", setup.sampling_mesh.shape["tensor"] * factor)
    if "reference" in held and not config.algorithm.reference_every and not config.training.offload_reference:
        yield Change("training.offload_reference", True)


def advice(analysis: Analysis, devices: Sequence[Any]) -> tuple[tuple[Change, ...], Analysis] | None:
    """The change, or two, with which a run that doesn't fit is estimated to fit at the least time; None if none is.

    Estimates are corrected by the difference between the given analysis and its own estimate.
    """
    config, chip, torus = analysis.setup.config, analysis.chip, analysis.torus
    before = estimated(analysis.setup, chip, torus)
    error = {phase: analysis.totals[phase] - total for phase, total in before.totals.items()}

    def fits(found: Analysis) -> bool:
        peaks = (total + error.get(phase, 0) for phase, total in found.totals.items())
        return max(peaks) <= (found.memory.capacity or 0)

    singles = [(change,) for change in smaller(config, analysis.setup)]
    pairs = [(*a, *b) for i, a in enumerate(singles) for b in singles[i + 1 :] if a[0].key != b[0].key]
    for options in (singles, pairs):
        found = []
        for changes in options:
            setup = try_setup(_free_data(changed(config, changes)), devices, analysis.setup.run)
            if setup and fits(made := estimated(setup, chip, torus)):
                found.append((made.seconds if chip else 0.0, changes, made))
        if found:
            _, changes, made = min(found, key=lambda item: item[0])
            return changes, made
    return None


def _free_data(config: Config) -> Config:
    """The config with the mesh axis `data` taking what the others leave."""
    mesh = config.mesh
    if -1 in (mesh.fsdp, mesh.tensor):
        return config
    return replace(config, mesh=replace(mesh, data=-1))


def fastest(
    config: Config, devices: Sequence[Any], chip: Chip, torus: Sequence[int], run: Run = "rl"
) -> list[Analysis]:
    """Estimates of the settings that fit with a margin, the fastest first: one for each mesh and rollout layout.

    Tries all axes of `mesh`, the optimizer's `microbatches`, `policy.remat` and `policy.head_chunk`, and if the run
    samples `mesh.rollout_tensor` and `rollout.batch_size`. The update's settings and the rollout's are chosen apart,
    because neither changes the other's time.
    """
    number, key = len(devices) - config.rollout.devices, _microbatches(config, run)
    powers = [2**i for i in range(number.bit_length()) if number % 2**i == 0]
    tensors, found = [x for x in powers if x <= _MOST_TENSOR], []
    samplers = [{"rollout_tensor": x} for x in tensors] if run == "rl" else [{}]
    for tensor, sampler, shards in product(tensors, samplers, powers):
        if number % (tensor * shards):
            continue
        rollouts: tuple[Change, ...] | None = ()  # the same for all meshes that shard the parameters alike
        for context in [x for x in powers if x <= shards]:
            mesh = {"data": -1, "fsdp": shards // context, "context": context, "tensor": tensor}
            layout = [Change(f"mesh.{axis}", size) for axis, size in (mesh | sampler).items()]
            setup = try_setup(changed(config, (*layout, Change(key, 1))), devices, run)
            if setup is None:
                continue
            if run == "rl":
                rollouts = rollouts or _fastest_of(setup, _rollouts(setup), ("rollout", "move"), chip, torus)
            if rollouts is None:
                break
            updates = _fastest_of(setup, _updates(setup), _TRAINING, chip, torus)
            if updates:
                found.append(estimated(_varied(setup, (*updates, *rollouts)), chip, torus))
    return sorted(found, key=lambda x: x.seconds)


def _rollouts(setup: Setup) -> list[tuple[Change, ...]]:
    """Numbers of prompts sampled at a time."""
    rollout, shards = setup.config.rollout, setup.sampling_mesh.shape["data"]
    sizes = [x for x in _divisors(rollout.prompts) if x % shards == 0]
    return [()] if rollout.slots else [(Change("rollout.batch_size", size),) for size in sizes]


def _microbatches(config: Config, run: Run) -> str:
    """The key of the microbatches of the network that the run is for."""
    return f"{next(iter(optimizer_keys(config, run).values()))}.microbatches"


def _updates(setup: Setup) -> Iterator[tuple[Change, ...]]:
    """Settings of the update, each with the largest chunk of the head with which it fits."""
    config, run, rollout = setup.config, setup.run, setup.config.rollout
    size = rollout.prompts * rollout.group_rows if run == "rl" else supervised_options(config, run).batch_size
    chunks = [chunk for chunk in _CHUNKS if chunk <= (setup.policy.head_chunk or chunk)]
    for remat in ("none", "dots", "full"):
        for parts in _divisors(size):
            for chunk in chunks:
                changes = (Change("policy.remat", remat), Change("policy.head_chunk", chunk))
                changes += (Change(_microbatches(config, run), parts),)
                varied = _varied(setup, changes)
                if varied is None:
                    break
                if _fits(varied, _TRAINING):
                    yield changes
                    break


def _divisors(number: int) -> list[int]:
    return [x for x in range(1, number + 1) if number % x == 0]


def _varied(setup: Setup, changes: Sequence[Change]) -> Setup | None:
    """The setup with settings that change neither meshes nor parameters; None if they divide no batch."""
    config = changed(setup.config, changes)
    chosen = {name: getattr(config.policy, name) for name in ("remat", "head_chunk")}
    shape = replace(setup.policy, **{name: x for name, x in chosen.items() if x not in ("auto", -1)})
    try:
        check_update(config, setup.mesh.shape["data"] * setup.mesh.shape["fsdp"], run=setup.run)
    except ConfigError:
        return None
    return replace(setup, config=config, policy=shape)


def _fastest_of(setup, options, phases, chip, torus) -> tuple[Change, ...] | None:
    best, least = None, math.inf
    for changes in options:
        varied = _varied(setup, changes)
        if varied and _fits(varied, phases) and (seconds := estimated(varied, chip, torus).seconds) < least:
            best, least = changes, seconds
    return best


def _fits(setup: Setup, phases: Sequence[str]) -> bool:
    """True if phases fit, by estimate, with a margin."""
    memory = memory_of_run(setup)
    peak = max(sum(memory.phases[name].values()) for name in phases if name in memory.phases)
    return peak <= (1 - MARGIN) * (memory.capacity or 0)


def differences(old: Config, new: Config) -> tuple[Change, ...]:
    """The values of `new` that differ."""
    before, after = flatten(to_dict(old)), flatten(to_dict(new))
    return tuple(Change(key, value) for key, value in after.items() if before.get(key) != value)
