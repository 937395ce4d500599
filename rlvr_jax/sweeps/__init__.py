"""Sweeps: many runs that differ in some keys of the config, and what their curves tell."""

from rlvr_jax.errors import RunError
from rlvr_jax.sweeps import plan
from rlvr_jax.sweeps.plan import Sweep
from rlvr_jax.sweeps.report import report
from rlvr_jax.sweeps.results import METRIC, Results
from rlvr_jax.sweeps.workers import check_runs, make_runs


def check(sweep: Sweep, retry: bool = False) -> None:
    """Refuses a sweep one of whose runs can't start, before the first one does.

    Raises:
      ConfigError: with the key, and the variant.
    """
    plan.check_folder(sweep)
    check_runs(sweep, plan.left(sweep, retry))


def make(
    sweep: Sweep, at_once: int = 1, retry: bool = False, metric: str = METRIC, threshold: float | None = None
) -> Results:
    """Makes the runs of a sweep that are left, and writes its report, also if it is stopped.

    Arguments and errors are those of `rlvr_jax.sweep`.
    """
    check(sweep, retry)
    plan.write(sweep)
    try:
        make_runs(sweep, at_once, retry)
    finally:
        try:
            _, found = report(sweep, metric, threshold)
        except ValueError as error:
            raise RunError(str(error)) from error
    return found
