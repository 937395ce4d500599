"""Time that the device waits for a slow verifier, with and without overlap, also of two halves of a mesh.

    python -m experiments.benchmarks.overlap [--seconds=0.5 --workers=16 --steps=6]
    python -m experiments.benchmarks.overlap --devices=8

Trains a small policy for some steps with a verifier that sleeps, and prints for each way to schedule a step its time
and the share of it in which nothing is sampled or trained because verdicts are missing (`time/verify`). With --devices
the CPU is so many devices of a thread each, and half of them sample while the others train, or all do both.
"""

import argparse
import dataclasses
import json
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

SCHEDULES = {
    "whole batches": {},
    "slots": {"slots": 16},
    "whole batches, max_lag = 1": {"max_lag": 1},
    "whole batches, max_lag = 2": {"max_lag": 2},
}
ON_DEVICES = {
    "all devices": {},
    "all devices, max_lag = 1": {"max_lag": 1},
    "halves": {"halves": True},
    "halves, max_lag = 1": {"halves": True, "max_lag": 1},
}


def slow(completion: str, reference: str, seconds: float) -> float:
    """A verifier that takes its time."""
    time.sleep(seconds)
    return float(completion.startswith(str(reference)))


def policy_of(layers: int, width: int) -> Any:
    """A policy of four heads for windows of 256 tokens."""
    from rlvr_jax.policy import PolicyConfig

    return PolicyConfig(
        num_layers=layers, width=width, num_heads=4, num_kv_heads=4, head_dim=width // 4, mlp_width=4 * width,
        max_length=256,
    )  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Prints a table."""
    prog = "python -m experiments.benchmarks.overlap"
    parser = argparse.ArgumentParser(prog=prog, description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=0.5, help="of each verdict")
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--layers", type=int, default=4, help="of the policy")
    parser.add_argument("--width", type=int, default=256, help="of the policy")
    parser.add_argument("--length", type=int, default=128, help="tokens of a response")
    parser.add_argument("--devices", type=int, default=0, help="virtual ones of the CPU; 0 for those of the machine")
    options = parser.parse_args(arguments)
    if options.devices:  # before JAX is imported
        flags = f"--xla_force_host_platform_device_count={options.devices} --xla_cpu_multi_thread_eigen=false"
        os.environ |= {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}"}

    from rlvr_jax.config import Config, RolloutConfig, TaskConfig, TrainingConfig, VerifierConfig
    from rlvr_jax.training.loop import train
    from rlvr_jax.verifiers.pool import Pool

    config = Config(
        tasks={"modsum": TaskConfig(verifier=f"{__spec__.name}:slow", verifier_options={"seconds": options.seconds})},
        policy=policy_of(options.layers, options.width),
        rollout=RolloutConfig(prompts=8, group_size=8, max_prompt_length=32, max_response_length=options.length),
        training=TrainingConfig(num_steps=options.steps, save_every=options.steps),
        verifier=VerifierConfig(workers=options.workers),
    )
    config = dataclasses.replace(
        config, evaluation=dataclasses.replace(config.evaluation, problems=1, pass_problems=0, every=options.steps)
    )
    print(f"{'schedule':30}{'step, s':>10}{'device waits':>14}")
    with Pool(options.workers, timeout=60.0) as pool:
        for name, changes in (ON_DEVICES if options.devices else SCHEDULES).items():
            slots, lag = changes.get("slots", 0), changes.get("max_lag", 0)
            samplers = options.devices // 2 if changes.get("halves") else 0
            changed = dataclasses.replace(
                config,
                rollout=dataclasses.replace(config.rollout, slots=slots, devices=samplers),
                training=dataclasses.replace(config.training, max_lag=lag),
            )
            with tempfile.TemporaryDirectory() as workdir:
                train(changed, Path(workdir), pool)
                rows = [json.loads(line) for line in Path(workdir, "metrics.jsonl").read_text().splitlines()]
            # Without the first steps, which compile, and the last, after which nothing is sampled.
            rows = rows[2 + lag : -1 - lag] or rows[-1:]
            step = statistics.median(row["time/step"] - row.get("time/evaluate", 0.0) for row in rows)
            waits = sum(row["time/verify"] for row in rows) / sum(row["time/step"] for row in rows)
            print(f"{name:30}{step:10.2f}{waits:14.0%}", flush=True)


if __name__ == "__main__":
    main()
