"""Writes curves.png and report.html of a run, from its files so far. The run may still be running.

rlvr report --workdir=runs/quickstart
"""

from . import command


def main() -> None:
    from rlvr_jax.training.record import report
    from rlvr_jax.training.workdir import read_config

    read_config(command.workdir())  # raises if it is no workdir
    print(f"report: {report(command.workdir())}")


if __name__ == "__main__":
    command.define(config=False, workdir="Folder of the run.")
    command.run(main, required=("workdir",))
