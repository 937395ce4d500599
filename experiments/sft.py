"""Supervised warm start on a task's demonstrations.

    python -m experiments.sft --config=configs/quickstart.py --workdir=runs/quickstart/sft [--config.key=value ...]

A run of reinforcement learning starts from it with --config.init_from=runs/quickstart/sft.
"""

from experiments import command


def main() -> None:
    from rlvr_jax.training.sft import sft

    sft(command.config(), command.workdir())


if __name__ == "__main__":
    command.define()
    command.run(main)
