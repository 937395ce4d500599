"""Makes a stored curve again, and says in words and a picture whether the new one lies in its band.

    rlvr reproduce --curve=quickstart
    rlvr reproduce --curve=quickstart --seeds=5..9
    rlvr reproduce --curve=mine.json --store=runs/my_sweep --metric=eval/greedy_accuracy,eval/pass@8

Without --curve it lists the stored curves with the time that their runs took. By default the first stored seed is run
again: with the same versions on the same machine, the curve must be the same to the bit. The exit status is 1 if the
curve is not reproduced.
"""

import json
import sys
from dataclasses import asdict
from pathlib import Path

from absl import flags

from rlvr_jax.errors import ConfigError

from . import builtin, command

_CURVE = flags.DEFINE_string("curve", None, "Name of a stored curve, or a file like them.")
_SEEDS = flags.DEFINE_string("seeds", None, "Seeds to run, such as 5..9 or 0,3; 'all' for those that are stored.")
_AT_ONCE = flags.DEFINE_integer("at_once", 1, "Runs at a time, among which GPUs or CPU cores are divided.")
_STORE = flags.DEFINE_string("store", None, "Folder of a sweep whose curves are stored under the name, instead.")
_METRIC = flags.DEFINE_list("metric", ["eval/greedy_accuracy"], "The metrics to store, the one that is compared first.")
_REBUILD = flags.DEFINE_bool("rebuild", False, "Store the new curves of all seeds in place of the old ones.")


def main() -> None:
    from rlvr_jax import sweeps
    from rlvr_jax.config import Config
    from rlvr_jax.reporting import files
    from rlvr_jax.sweeps import estimate, grid, pictures, plan, stored

    if not _CURVE.value:
        given = [x for x in (_STORE, _SEEDS) if x.value is not None] + [_REBUILD] * _REBUILD.value
        if given:
            raise ConfigError(f"--{given[0].name} needs --curve, the name or the file of the curves")
        print(estimate.of_curves({name: builtin.curve(name) for name in builtin.curves()}))
        return
    path = builtin.curve_file(_CURVE.value)
    if _STORE.value:
        stored.write(stored.experiment(plan.read(Path(_STORE.value).expanduser()), _METRIC.value), path)
        print(f"stored: {path}")
        return
    found = builtin.curve(_CURVE.value)
    seeds = found.seeds
    if _SEEDS.value is None and not _REBUILD.value:
        seeds = seeds[:1]
    elif _SEEDS.value not in (None, "all"):
        parsed = grid.parse(f"seed={_SEEDS.value}", Config())
        if list(parsed) != ["seed"]:
            raise ConfigError(f"--seeds={_SEEDS.value}: only seeds, such as 5..9 or 0,3")
        seeds = parsed["seed"]
    folder = command.workdir() if command.FLAGS.workdir else Path("runs") / "reproduced" / path.stem
    sweep = stored.sweep_of(found, folder, seeds)
    sweeps.make(sweep, _AT_ONCE.value, retry=True, metric=found.metrics[0])
    compared = stored.compare(found, sweep)
    files.replace(folder / "reproduced.png", pictures.reproduction_png(compared))
    files.replace(folder / "reproduced.json", json.dumps([asdict(x) for x in compared], indent=1).encode())
    print("\n".join(x.sentence for x in compared))
    print(f"picture: {folder / 'reproduced.png'}")
    if _REBUILD.value:
        stored.write(stored.experiment(sweep, found.metrics), path)
        print(f"stored: {path}")
    elif len(compared) < len(sweep.variants) * len(found.metrics) or not all(x.succeeded for x in compared):
        sys.exit(1)


if __name__ == "__main__":
    command.define(config=False, workdir="Folder of the new runs, by default runs/reproduced/CURVE.")
    command.run(main, required=())
