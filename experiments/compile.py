"""Memory, work and estimated time of a run on accelerators that are not here.

    rlvr compile --config=tulu3_rlvr_8b --topology=v5p:2x2x4
    rlvr compile --config=tulu3_rlvr_8b --topology=v5e:4x4 --fit --out=plan.json
    rlvr compile --config=tulu3_rlvr_8b --gpu=h100 --devices=8
    rlvr compile --config=quickstart --topology=cpu
    rlvr compile --config=tulu3_dpo_8b --run=prefer --topology=v5p:2x2x4

The TPU compiler (pip install 'rlvr_jax[tpu-compiler]') compiles the programs of a training step, kernels included, for
a slice that this machine need not have: sampling, scoring, the update, and the move of parameters between them; of
`rlvr sft` and `rlvr prefer` an update, and what scores pairs. It takes shapes only, no weights, and for a large policy
some minutes. The tables show memory, FLOPs, bytes and collectives of each phase, and their time at the chip's published
peak, memory bandwidth and interconnect, which is a bound from below: nothing here is a measurement. If the run does not
fit, the last lines say what to change. For GPUs, and with --estimate, all numbers come from arithmetic. docs/scale.md
explains the tables.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from absl import flags

from rlvr_jax.config import Config, Run
from rlvr_jax.errors import ConfigError

from . import builtin, command, slices

if TYPE_CHECKING:
    from rlvr_jax.training.analysis import Analysis

_TOPOLOGY = flags.DEFINE_string(
    "topology", None, "TPU slice, such as v5e:4x4, v5p:2x2x4, v6e:8x8 or tpu7x:2x2x1; cpu for this machine's CPU."
)
_GPU = flags.DEFINE_string("gpu", None, "Kind of GPU, instead of a topology: a100, h100, h200, b200.")
_DEVICES = flags.DEFINE_integer("devices", 8, "Number of GPUs.", lower_bound=1)
_ESTIMATE = flags.DEFINE_bool("estimate", False, "Arithmetic alone: compile nothing.")
_FIT = flags.DEFINE_bool(
    "fit", False, "Search mesh, microbatches, rematerialisation and rollout batch for the fastest estimate that fits."
)
_OUT = flags.DEFINE_string("out", None, "JSON file of all numbers.")
_RUN = flags.DEFINE_enum("run", "train", [*slices.RUNS], "The command whose run it is.")
_ATTEMPTS = 4  # to confirm a setting by compiling


def main() -> None:
    slices.set_environment()
    from rlvr_jax.training.analysis import to_json
    from rlvr_jax.training.setup import make_setup

    from .compile_report import table

    out = command.file_to_write("out", _OUT.value)
    if bool(_TOPOLOGY.value) == bool(_GPU.value):
        raise ConfigError("give one of --topology, such as v5p:2x2x4 or cpu, and --gpu, such as h100")
    config = slices.offline(command.config())
    where = slices.places(_TOPOLOGY.value, _GPU.value, _DEVICES.value, not _ESTIMATE.value)
    name, run = builtin.name_of(command.FLAGS["config"].config_filename), slices.RUNS[_RUN.value]
    if _FIT.value:
        analysis, changes = _fit(config, where, run)
    else:
        analysis, changes = where.analysis(make_setup(config, problems=False, run=run, devices=where.devices)), ()
    print(*table(analysis, f"rlvr {_RUN.value}, {name} on {where.title}", where.compiles), sep="\n")
    for line in _last_lines(analysis, changes, where):
        print(line)
    if out:
        command.write_files({out: json.dumps(to_json(analysis), indent=2).encode() + b"\n"})


def _fit(config: Config, where: slices.Places, run: Run) -> tuple["Analysis", tuple[Any, ...]]:
    """The fastest estimate that fits, and compiles if anything is compiled, and what it changes."""
    from rlvr_jax.training.fit import differences, fastest

    if where.chip is None:
        raise ConfigError("--fit needs the published numbers of a chip; there are none of this CPU")
    found = fastest(config, where.devices, where.chip, where.torus, run)
    if not found:
        raise ConfigError(f"no mesh, microbatches and rollout batch fit {where.title}, by estimate: use more devices")
    for candidate in found[:_ATTEMPTS]:
        analysis = where.analysis(candidate.setup) if where.compiles else candidate
        if analysis.fits:
            break
    return analysis, differences(config, analysis.setup.config)


def _last_lines(analysis: "Analysis", changes: Sequence[Any], where: slices.Places) -> list[str]:
    """The changes that make the run fit, or that were chosen."""
    from rlvr_jax.training.fit import advice

    lines = ["with " + " ".join(f"--config.{change}".replace(" ", "") for change in changes)] if changes else []
    if analysis.fits:
        return lines
    found = advice(analysis, where.devices)
    if found is None:
        return [*lines, "No change of one or two settings makes it fit: try --fit, more devices, or adapters."]
    changes, made = found
    text = " and ".join(map(str, changes))
    if where.compiles:
        made = where.analysis(made.setup)
    spare, saved = (x / 2**30 for x in (made.memory.spare or 0, max(analysis.totals.values()) - made.memory.peak[1]))
    source = "compiled" if where.compiles else "by estimate"
    if made.fits:
        return [
            *lines,
            f"To make it fit, set {text}: it saves {saved:.1f} GiB, and {spare:.1f} are to spare ({source}).",
        ]
    return [*lines, f"{text} does not suffice ({source}): try --fit."]


if __name__ == "__main__":
    command.define(workdir="")
    command.run(main, required=("config",))
