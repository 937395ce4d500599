"""Writes the report of a run or of a sweep, from its files so far. It may still be running.

rlvr report --workdir=runs/quickstart
"""

from . import command


def main() -> None:
    from rlvr_jax.sweeps import plan
    from rlvr_jax.sweeps import report as of_sweep
    from rlvr_jax.training.record import report
    from rlvr_jax.training.workdir import read_config

    workdir = command.workdir()
    if (workdir / plan.SWEEP).exists():
        page, found = of_sweep.report(plan.read(workdir))
        print(f"{found}\nreport: {page}")
        return
    read_config(workdir)  # raises if it is no workdir
    print(f"report: {report(workdir)}")


if __name__ == "__main__":
    command.define(config=False, workdir="Folder of the run or sweep.")
    command.run(main, required=("workdir",))
