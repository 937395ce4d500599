"""Runs of one config with other values of some keys, for several seeds, and a report that tells differences from noise.

    rlvr sweep --config=countdown --grid="algorithm.scale=group_std,none;seed=0..4"

--grid lists keys with their values: all combinations are run, and compared with the first; with --one_at_a_time the
config itself is compared with each single change. Every seed of a config without `init_from` or `pretrained` gets a
warm start (`rlvr sft`), which its runs share. The same command continues a sweep; a larger grid adds its runs.
"""

from pathlib import Path

from absl import flags

from . import builtin, command

_GRID = flags.DEFINE_string("grid", None, "Keys and values, KEY=VALUE,VALUE;KEY=A..B; see docs/sweeps.md.")
_ONE = flags.DEFINE_bool("one_at_a_time", False, "Change one key at a time, instead of all combinations.")
_AT_ONCE = flags.DEFINE_integer("at_once", 1, "Runs at a time, among which GPUs or CPU cores are divided.")
_DRY = flags.DEFINE_bool("dry_run", False, "List the runs and their estimated time, and run nothing.")
_RETRY = flags.DEFINE_bool("retry", False, "Make runs again that have failed.")
_WARM = flags.DEFINE_bool("warm_start", True, "Begin with supervised runs; --nowarm_start begins with random weights.")
_METRIC = flags.DEFINE_string(
    "metric", "eval/greedy_accuracy", "Name in metrics.jsonl that is compared; more is better."
)
_THRESHOLD = flags.DEFINE_float("threshold", None, "Of the metric, for the time until it is reached.")


def main() -> None:
    from rlvr_jax import sweeps
    from rlvr_jax.sweeps import estimate, grid, plan, workers
    from rlvr_jax.sweeps.metric import check_metric
    from rlvr_jax.sweeps.report import REPORT

    config = command.config()
    folder = command.workdir() if command.FLAGS.workdir else Path("runs") / f"{_config_name()}_sweep"
    axes = grid.parse(_GRID.value, config)
    if "algorithm.preset" in axes:  # which would replace what the command line says of the method
        axes |= {key: [value] for key, value in command.overrides("algorithm.").items() if key not in axes}
    sweep = plan.make_sweep(folder, config, axes, _ONE.value, _WARM.value)
    if _DRY.value:
        check_metric(plan.base(sweep), _METRIC.value)
        plan.check_folder(sweep)
        workers.shares(_AT_ONCE.value)
        workers.check_runs(sweep, plan.left(sweep, _RETRY.value))
        sweeps.say_edits(sweep, _RETRY.value)
        print(estimate.lines(sweep, _AT_ONCE.value, _RETRY.value))
        return
    print(sweeps.make(sweep, _AT_ONCE.value, _RETRY.value, _METRIC.value, _THRESHOLD.value))
    print(f"report: {folder / REPORT}")


def _config_name() -> str:
    return builtin.name_of(command.FLAGS["config"].config_filename)


if __name__ == "__main__":
    command.define(workdir="Folder of the sweep, by default runs/CONFIG_sweep. The same command there continues it.")
    command.run(main, required=("config", "grid"))
