"""Reinforcement learning with verifiable rewards.

    rlvr train --config=countdown --workdir=runs/countdown [--config.key=value ...]

Writes config.json, metrics.jsonl, samples.jsonl, TensorBoard events, checkpoints, curves.png and report.html to the
workdir. The same command continues a run that was stopped.
"""

from . import command


def main() -> None:
    config, workdir = command.config(), command.workdir()
    with command.pool(config) as pool:  # before JAX touches a device
        from rlvr_jax.reporting import jsonl
        from rlvr_jax.training.checkpoints import complete_steps
        from rlvr_jax.training.loop import train

        before = complete_steps(workdir)
        report = train(config, workdir, pool)
    if config.training.num_steps in before:
        print(f"{workdir} already holds all {config.training.num_steps} steps of this run; nothing was trained")
    measured = [row for row in jsonl.read(workdir / "metrics.jsonl") if "eval/greedy_accuracy" in row]
    ends = [f"{row['eval/greedy_accuracy']:.3f} at step {row['step']}" for row in measured[:1] + measured[-1:]]
    print(f"greedy accuracy on held-out problems: {', '.join(ends)}")
    print(f"report: {report}")


if __name__ == "__main__":
    command.define()
    command.run(main)
