"""Sweeps: many runs that differ in some keys of the config, and what their curves tell."""

import sys

from rlvr_jax.errors import ConfigError, RunError
from rlvr_jax.sweeps import edits, plan, report
from rlvr_jax.sweeps.metric import METRIC, check_measured, check_metric
from rlvr_jax.sweeps.plan import Run, Sweep
from rlvr_jax.sweeps.results import Results
from rlvr_jax.sweeps.workers import make_runs
from rlvr_jax.training.lock import locked
from rlvr_jax.training.workdir import make_folder


def make(
    sweep: Sweep, at_once: int = 1, retry: bool = False, metric: str = METRIC, threshold: float | None = None
) -> Results:
    """Makes the runs of a sweep that are left, and writes its report, also if it is stopped.

    Arguments and errors are those of `rlvr_jax.sweep`.
    """
    check_metric(plan.base(sweep), metric)
    plan.check_folder(sweep)
    make_folder(sweep.folder)

    def check(run: Run) -> None:
        if run.kind == "rl" and run.variant == 0:
            check_measured(run, metric)

    with locked(sweep.folder):
        plan.remove_older(sweep)
        plan.write(sweep)
        say_edits(sweep, retry)
        try:
            make_runs(sweep, at_once, retry, check)
        except ConfigError:
            raise
        except BaseException:
            _report(sweep, metric, threshold)
            raise
        return _report(sweep, metric, threshold)


def say_edits(sweep: Sweep, retry: bool = False) -> None:
    """Says which of the user's files are not the same in finished runs and in those that are to be made."""
    waiting = plan.left(sweep, retry)
    for line in edits.with_waiting(sweep, waiting) if waiting else ():
        print(
            f"note: the runs are compared, though their code differs: {line}. Remove the folders of older ones, and "
            "they are made again",
            file=sys.stderr,
        )


def _report(sweep: Sweep, metric: str, threshold: float | None) -> Results:
    try:
        return report.report(sweep, metric, threshold)[1]
    except ValueError as error:
        raise RunError(str(error)) from error
