"""A run on given devices: memory, work and time of each phase of a step, by arithmetic and from compiled programs."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlvr_jax import parallel
from rlvr_jax.parallel.chips import Chip
from rlvr_jax.training.hlo import Collective, collectives
from rlvr_jax.training.networks import networks_of
from rlvr_jax.training.plan import RESIDENT, Kinds, Memory, memory_of_run
from rlvr_jax.training.programs import OutOfMemoryError, Program, programs
from rlvr_jax.training.roofline import Times, Work, times, work
from rlvr_jax.training.setup import Setup, load_of

_OF_PROGRAM = {name: (name,) for name in ("update", "critic", "scoring", "values", "move", "prefill")}


@dataclass(frozen=True)
class Analysis:
    """The needs of a run on its devices.

    Attributes:
      setup: of the run.
      chip: its published numbers; None on CPU, where nothing is timed.
      torus: chips along each axis; empty without a torus.
      memory: at the peak of each phase; from the compiled programs if there are any.
      work: of each phase of a step, with the collectives of the compiled programs if there are any.
      missing: phase -> bytes beyond the device's memory of a program that the compiler refused.
      compiled: program -> its sizes in bytes, by `jax.stages.Compiled.memory_analysis`, and by `cost_analysis` its
        "flops" and "bytes accessed", in which XLA counts the body of a loop once, and nothing of our kernels.
    """

    setup: Setup
    chip: Chip | None
    torus: tuple[int, ...]
    memory: Memory
    work: dict[str, Work]
    missing: dict[str, int]
    compiled: dict[str, dict[str, int | float]]

    @property
    def fits(self) -> bool:
        """True if every phase fits."""
        return not self.missing and (self.memory.spare is None or self.memory.spare >= 0)

    @property
    def totals(self) -> dict[str, int]:
        """The bytes that each phase needs at its peak."""
        refused = {phase: (self.memory.capacity or 0) + missing for phase, missing in self.missing.items()}
        return {phase: sum(kinds.values()) for phase, kinds in self.memory.phases.items()} | refused

    @property
    def times(self) -> dict[str, Times]:
        """The time of each phase of a step; empty if the chip is unknown."""
        return {name: times(x, name, self.chip, self.torus) for name, x in self.work.items()} if self.chip else {}

    @property
    def seconds(self) -> float:
        """Of a step: its phases follow one another."""
        return sum(x.total for x in self.times.values())

    @property
    def tokens_per_second(self) -> float:
        """Sampled tokens, or those of a supervised run's rows, per second and chip, all of full length."""
        setup, rollout = self.setup, self.setup.config.rollout
        if setup.run == "rl":
            tokens = rollout.prompts * rollout.group_size * rollout.episode_length / (setup.mesh.size + rollout.devices)
        else:
            (load, _), (options,) = load_of(setup), networks_of(setup.config, setup.run).values()
            tokens = load.rows * load.length * options.microbatches / setup.mesh.shape["tensor"]
        return tokens / self.seconds * self.chip.per_chip

    @property
    def utilization(self) -> float:
        """Model FLOPs of the update over those that the chip could do in its time (MFU)."""
        return self.work["update"].model_flops / self.times["update"].total / self.chip.flops


def estimated(setup: Setup, chip: Chip | None, torus: Sequence[int] = ()) -> Analysis:
    """By arithmetic alone."""
    memory = memory_of_run(setup)
    return Analysis(setup, chip, tuple(torus), memory, work(setup, memory), {}, {})


def compiled(
    setup: Setup, chip: Chip | None, torus: Sequence[int] = (), said: Callable[[str], None] = lambda _: None
) -> Analysis:
    """Compiles the programs of a step for the setup's devices, one after the other.

    Args:
      setup: its devices may be those of a topology.
      chip: of the devices.
      torus: chips along each axis.
      said: is told the name of each program before it is compiled.
    """
    result = estimated(setup, chip, torus)
    for program in programs(setup):
        said(program.phase)
        result = _with_program(result, program)
    return result


def _with_program(result: Analysis, program: Program) -> Analysis:
    phase, capacity = program.phase, result.memory.capacity
    estimate = result.memory.phases.get(phase, result.memory.phases.get("rollout", {}))
    try:
        made = program.compile()
    except OutOfMemoryError as error:
        beside = sum(_beside(estimate, program).values())
        missing = max(error.needed + beside - (capacity or 0), 1)
        return replace(result, missing=result.missing | {phase: missing})
    sizes = made.memory_analysis()
    names = ("argument", "output", "alias", "temp")
    bytes_of = {name: getattr(sizes, f"{name}_size_in_bytes") for name in names}
    needs = bytes_of["argument"] + bytes_of["output"] + bytes_of["temp"] - bytes_of["alias"]
    kinds = (*program.holds, "KV cache") if phase in result.memory.phases else program.holds
    known = {kind: size for kind, size in estimate.items() if kind in kinds}
    temporaries = max(0, needs - (sum(known.values()) if program.holds else bytes_of["argument"]))
    phases = result.memory.phases | {phase: _beside(estimate, program) | known | {"temporaries": temporaries}}
    cost = {name: made.cost_analysis()[name] for name in ("flops", "bytes accessed")}
    found = collectives(made.as_text(), program.mesh.size)
    return replace(
        result,
        memory=replace(result.memory, phases=phases),
        work=_with_collectives(result.work, program, found),
        compiled=result.compiled | {phase: bytes_of | cost | {"needs": needs}},
    )


def _beside(estimate: Kinds, program: Program) -> Kinds:
    """The arrays of the run that are in memory beside those of a program."""
    return {kind: size for kind, size in estimate.items() if kind in RESIDENT and kind not in program.holds}


def _with_collectives(work: dict[str, Work], program: Program, found: Sequence[Collective]) -> dict[str, Work]:
    """The work with the collectives of a program, as often as a step calls it."""
    found = [replace(x, times=math.ceil(x.times * program.calls)) for x in found]
    parts = dict.fromkeys(_OF_PROGRAM.get(program.phase, ()), found)
    if program.phase == "rollout":
        parts = {"decode": [x for x in found if x.decoding]}
        if before := [x for x in found if not x.decoding]:
            parts["prefill"] = before
        elif not any(x.decoding for x in found):
            parts["prefill"] = []
    return work | {name: replace(work[name], collectives=tuple(part)) for name, part in parts.items()}


def to_json(analysis: Analysis) -> dict[str, Any]:
    """All numbers, for a file: bytes, FLOPs and seconds."""
    mesh, chip = analysis.setup.mesh, analysis.chip
    phases, sampling = {}, analysis.setup.sampling_mesh
    for name, part in analysis.work.items():
        phases[name] = {
            "flops": part.flops + part.attention,
            "bytes": part.bytes,
            "model_flops": part.model_flops,
            "steps": part.steps,
            "collectives": by_kind(part.collectives),
        }
        if chip:
            phases[name] |= {"seconds": vars(analysis.times[name]), "limit": analysis.times[name].limit}
    found = {
        "run": analysis.setup.run,
        "devices": analysis.memory.devices,
        "mesh": dict(mesh.shape),
        **({"sampling_mesh": dict(sampling.shape)} if analysis.setup.run == "rl" else {}),
        "capacity": analysis.memory.capacity,
        "fits": analysis.fits,
        "memory": analysis.memory.phases,
        "missing": analysis.missing,
        "compiled": analysis.compiled,
        "phases": phases,
    }
    if chip:
        found |= {
            "chip": vars(chip),
            "torus": analysis.torus,
            "seconds": analysis.seconds,
            "tokens_per_second_per_chip": analysis.tokens_per_second,
            "update_mfu": analysis.utilization,
        }
    return found


def by_kind(found: Sequence[Collective]) -> dict[str, dict[str, int]]:
    """Kind -> number of executions and bytes that a device sends."""
    kinds: dict[str, dict[str, int]] = {}
    for x in found:
        total = kinds.setdefault(x.kind, {"times": 0, "bytes": 0})
        total["times"] += x.times
        total["bytes"] += x.times * x.bytes
    return kinds


def device_kind(setup: Setup) -> str:
    """The kind of the devices that train."""
    return parallel.devices_of(setup.mesh)[0].device_kind
