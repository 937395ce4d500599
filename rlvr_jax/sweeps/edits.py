"""Versions of the user's functions in the runs of a sweep, which compares them as if there were one."""

from collections.abc import Sequence

from rlvr_jax import own_code
from rlvr_jax.sweeps.plan import Run, Sweep, outcome, runs


def of_finished(sweep: Sweep) -> list[str]:
    """The user's files that differ between finished runs, with keys and runs, in words."""
    return own_code.versions(_recorded(sweep, [run for run in runs(sweep) if _is_finished(run)]))


def with_waiting(sweep: Sweep, waiting: Sequence[Run]) -> list[str]:
    """Those that differ between finished runs, or have changed for the runs that are still to be made."""
    now: dict[str, dict[str, str]] = {}
    for run in {(run.kind, run.variant): run for run in waiting}.values():
        sections = own_code.OF_RL if run.kind == "rl" else own_code.OF_TASKS
        for key, files in own_code.checksums(run.config, sections).items():
            now.setdefault(key, {}).update(files)
    finished = _recorded(sweep, [run for run in runs(sweep) if run not in waiting and _is_finished(run)])
    return own_code.versions(finished | {"the runs to be made": now})


def _is_finished(run: Run) -> bool:
    return (outcome(run) or {}).get("status") == "finished"


def _recorded(sweep: Sweep, of: Sequence[Run]) -> dict[str, own_code.Code]:
    name = lambda run: str(run.folder.relative_to(sweep.folder))  # noqa: E731
    return {name(run): own_code.recorded(run.folder / "environment.json") for run in of}
