"""Supervised learning of chats, or a warm start on a task's demonstrations.

    rlvr sft --config=quickstart --workdir=runs/quickstart/sft [--config.key=value ...]

A run of reinforcement learning starts from it with --config.init_from=runs/quickstart/sft.
"""

from . import command


def main() -> None:
    from rlvr_jax.reporting import jsonl
    from rlvr_jax.training.checkpoints import complete_steps
    from rlvr_jax.training.sft import sft

    config, workdir = command.config(), command.workdir()
    with command.processes() as processes:
        before = complete_steps(workdir)
        report = sft(config, workdir, processes)
    if processes.index > 0:
        return
    if config.sft.num_steps in before:
        print(f"{workdir} already holds all {config.sft.num_steps} updates of this run; nothing was trained")
    losses = [row["sft/loss"] for row in jsonl.read(workdir / "metrics.jsonl") if "sft/loss" in row]
    if losses:
        print(f"loss {losses[0]:.3f} -> {losses[-1]:.3f}; train from here with --config.init_from={workdir}")
    print(f"report: {report}")


if __name__ == "__main__":
    command.define()
    command.define_processes()
    command.run(main)
