"""Time that checkpoints hold up a run, written in the background and before the next step.

    python -m experiments.benchmarks.saving [--layers=12 --width=512 --saves=8]

Trains a policy, saves after every second step, and waits for every second checkpoint until it is on disk; prints the
size of a checkpoint and for each way the seconds that it held up the run (`time/save`) and those of the next step.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from unittest import mock

from .overlap import policy_of

WAYS = ("in the background", "before the next step")


def main(arguments: list[str] | None = None) -> None:
    """Prints a table."""
    prog = "python -m experiments.benchmarks.saving"
    parser = argparse.ArgumentParser(prog=prog, description=__doc__.split("\n")[0])
    parser.add_argument("--saves", type=int, default=8, help="of each way; the first one, which compiles, is left out")
    parser.add_argument("--layers", type=int, default=12, help="of the policy")
    parser.add_argument("--width", type=int, default=512, help="of the policy")
    parser.add_argument("--prompts", type=int, default=2, help="of a step")
    parser.add_argument("--samples", type=int, default=4, help="of a prompt")
    parser.add_argument("--length", type=int, default=32, help="tokens of a response")
    options = parser.parse_args(arguments)

    from rlvr_jax.config import Config, EvaluationConfig, RolloutConfig, TaskConfig, TrainingConfig
    from rlvr_jax.training import checkpoints
    from rlvr_jax.training.loop import train
    from rlvr_jax.verifiers.pool import Pool

    steps = 4 * options.saves + 2
    config = Config(
        tasks={"modsum": TaskConfig()},
        policy=policy_of(options.layers, options.width),
        rollout=RolloutConfig(
            prompts=options.prompts,
            group_size=options.samples,
            max_prompt_length=32,
            max_response_length=options.length,
        ),
        training=TrainingConfig(num_steps=steps, save_every=2),
        evaluation=EvaluationConfig(problems=1, pass_problems=0, every=steps),
    )
    save = checkpoints.save

    def alternate(manager, learner, step, *rest):
        save(manager, learner, step, *rest)
        if step % 4 == 0:
            checkpoints.wait(manager)

    with (
        mock.patch.object(checkpoints, "save", alternate),
        tempfile.TemporaryDirectory() as workdir,
        Pool(0) as pool,
    ):
        train(config, Path(workdir), pool)
        rows = [json.loads(line) for line in Path(workdir, "metrics.jsonl").read_text().splitlines()]
        newest = Path(workdir, "checkpoints", str(steps))
        size = sum(path.stat().st_size for path in newest.rglob("*") if path.is_file())
    print(f"{size / 2**20:,.0f} MiB a checkpoint")
    print(f"{'written':24}{'held up, s':>12}{'next step, s':>14}")
    rows = [row for row in rows if "time/save" in row and row["step"] < steps]
    for way, name in enumerate(WAYS):
        of_way = [row for row in rows if row["step"] % 4 == 3 - 2 * way][1:]
        held, step = (statistics.median(row[key] for row in of_way) for key in ("time/save", "time/step"))
        print(f"{name:24}{held:12.2f}{step:14.2f}", flush=True)


if __name__ == "__main__":
    main()
