"""Reinforcement learning with verifiable rewards.

    python -m experiments.train --config=configs/countdown.py --workdir=runs/countdown [--config.key=value ...]

Writes config.json, metrics.jsonl, samples.jsonl, TensorBoard events, checkpoints, curves.png and report.html to the
workdir. The same command continues a run that was stopped.
"""

from experiments import command


def main() -> None:
    from rlvr_jax.verifiers.pool import Pool

    config = command.config()
    verifier = config.verifier
    with Pool(verifier.workers, verifier.timeout, verifier.memory_mib << 20) as pool:  # before JAX touches a device
        from rlvr_jax.training.loop import train

        report = train(config, command.workdir(), pool)
    print(f"report: {report}")


if __name__ == "__main__":
    command.define()
    command.run(main)
