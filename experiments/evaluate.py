"""Evaluates a policy on held-out problems: greedy accuracy, and pass@k with 95 % intervals.

    rlvr evaluate --workdir=runs/quickstart [--problems=512 --samples=16 --ks=1,4,16 --seed=0]
    rlvr evaluate --config=gsm8k_qwen3_1p7b --config.pretrained=FOLDER_OR_HUB_ID
    rlvr evaluate --workdir=runs/gsm8k --config=math_qwen25_1p5b

The policy is that of the newest checkpoint of --workdir (of reinforcement learning or of a warm start), or of that of
--step; without a workdir it is the one that the config starts from: its `init_from` or `pretrained`. The problems are
those of --config or, without one, of the run. Prints a table and writes it to evaluation.json in the workdir, or to
--output.
"""

import dataclasses
import json
from pathlib import Path

from absl import flags

from . import command

_PROBLEMS = flags.DEFINE_integer("problems", 256, "Held-out problems, answered greedily and sampled.", lower_bound=1)
_SAMPLES = flags.DEFINE_integer("samples", 16, "Samples of each problem, for pass@k.", lower_bound=1)
_KS = flags.DEFINE_list("ks", [], "The k of pass@k, each at most --samples; the powers of two if none is given.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the samples.")
_STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint; the newest without it.", lower_bound=0)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file of the numbers, instead of the workdir's evaluation.json.")


def main() -> None:
    from rlvr_jax.config import anywhere
    from rlvr_jax.errors import ConfigError
    from rlvr_jax.reporting import files
    from rlvr_jax.training.workdir import read_config

    workdir = command.workdir() if command.FLAGS.workdir else None
    if workdir is None and command.FLAGS.config is None:
        raise ConfigError(
            "give --workdir, for the policy of a run, or --config, for the one that a run would start from"
        )
    config = read_config(workdir) if command.FLAGS.config is None else command.config()
    if workdir is None and not (config.init_from or config.pretrained):
        raise ConfigError("config.pretrained and config.init_from are empty: there is only a random policy to evaluate")
    output = Path(_OUTPUT.value).expanduser() if _OUTPUT.value else workdir and workdir / "evaluation.json"
    if output and not output.parent.is_dir():
        raise ConfigError(f"--output={output}: there is no folder {output.parent}")
    if not all(k.isdecimal() and 1 <= int(k) <= _SAMPLES.value for k in _KS.value):
        raise ConfigError(f"--ks={','.join(_KS.value)}: each k must be a number from 1 to --samples={_SAMPLES.value}")
    ks, problems = tuple(map(int, _KS.value)), _PROBLEMS.value
    ks = ks or tuple(2**i for i in range(_SAMPLES.value.bit_length()))
    evaluation = dataclasses.replace(
        config.evaluation, problems=problems, pass_problems=problems, pass_samples=_SAMPLES.value, ks=ks, shown=0
    )
    config = dataclasses.replace(config, evaluation=evaluation)
    with command.pool(config) as pool, command.processes() as processes:
        import jax

        from rlvr_jax import parallel
        from rlvr_jax.training.functions import make_collector, make_evaluation, make_sampler
        from rlvr_jax.training.setup import make_setup
        from rlvr_jax.training.start import initial_params, load_run

        setup = make_setup(anywhere(config, jax.device_count()), pool=pool, processes=processes)
        with parallel.use_mesh(setup.mesh):
            if workdir is None:
                params, step = initial_params(setup, jax.random.key(config.seed)), 0
            else:
                params, step = load_run(setup, workdir, _STEP.value)
            sampler = make_sampler(setup)
            sampler.set_params(params, step)
            evaluate = make_evaluation(setup)
            metrics, _ = evaluate(make_collector(setup, sampler, pool), step, jax.random.key(_SEED.value))
    if processes.index > 0:
        return
    policy = f"checkpoint of step {step} in {workdir}" if workdir else config.init_from or config.pretrained
    print(f"{policy}; at most {problems} held-out problems of each task")
    print(f"{'task':18}{'':18}{'mean':>8}   95 % interval")
    for group, task in ({"eval": "all"} | {f"task/{task}": task for task in setup.tasks}).items():
        for name in (name for name in ("greedy_accuracy", *(f"pass@{k}" for k in ks)) if f"{group}/{name}" in metrics):
            mean, low, high = (metrics[f"{group}/{name}{end}"] for end in ("", "_low", "_high"))
            print(f"{task:18}{name:18}{mean:8.4f}   {low:.4f} to {high:.4f}")
    if output:
        result = {"step": step, "problems": problems, "samples": _SAMPLES.value, "seed": _SEED.value} | metrics
        files.replace(output, json.dumps(result, indent=1).encode())


if __name__ == "__main__":
    command.define(workdir="Folder of the run whose newest checkpoint is evaluated.")
    command.define_processes()
    command.run(main, required=())
