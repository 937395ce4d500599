"""Writes the report of a run or of a sweep, from its files so far, or one page about several runs.

They may still be running. The page of one is in its folder or, with --out, there alone: its folder may be read-only.

rlvr report --workdir=runs/quickstart
rlvr report runs/quickstart runs/other --out=comparison.html
"""

from pathlib import Path

from . import command


def main(*runs: str) -> None:
    from rlvr_jax.errors import ConfigError, RunError
    from rlvr_jax.reporting import comparison
    from rlvr_jax.sweeps import plan
    from rlvr_jax.sweeps import report as of_sweep
    from rlvr_jax.training.record import report
    from rlvr_jax.training.workdir import read_config

    workdirs = [Path(run).expanduser() for run in ([command.FLAGS.workdir] if command.FLAGS.workdir else []) + [*runs]]
    if not workdirs:
        raise ConfigError("report of which run? rlvr report RUN, or several: rlvr report RUN RUN ...")
    out = command.file_to_write("out", command.FLAGS.out)
    if len(workdirs) == 1 and (workdirs[0] / plan.SWEEP).exists():
        page, found = of_sweep.report(plan.read(workdirs[0]), out=out)
        print(f"{found}\nreport: {page}")
        return
    for workdir in workdirs:
        read_config(workdir)  # raises if it is no workdir
    if len(workdirs) == 1:
        print(f"report: {report(workdirs[0], out=out)}")
        return
    out = out or Path("comparison.html")
    try:
        labels = comparison.labels_of(workdirs)
    except ValueError as error:
        raise ConfigError(str(error)) from error
    try:
        edits = comparison.write_comparison(dict(zip(labels, workdirs, strict=True)), out)
    except ValueError as error:
        raise RunError(str(error)) from error
    for line in edits:
        print(f"note: the runs are of different code: {line}")
    print(f"report: {out}")


if __name__ == "__main__":
    command.define(config=False, workdir="Folder of the run or sweep.")
    command.flags.DEFINE_string("out", None, "The page; by default RUN/report.html, or comparison.html of several.")
    command.run(main, required=(), arguments="RUN ...")
