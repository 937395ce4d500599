"""Draws curves.png and report.html of a run again, from what it has written so far. The run may be going on.

rlvr report --workdir=runs/quickstart
"""

from . import command


def main() -> None:
    from rlvr_jax.training.record import report
    from rlvr_jax.training.workdir import read_config

    read_config(command.workdir())  # or it is no workdir
    print(f"report: {report(command.workdir())}")


if __name__ == "__main__":
    command.define(config=False, workdir="Folder of the run.")
    command.run(main, required=("workdir",))
