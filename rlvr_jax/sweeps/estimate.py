"""The runs of a sweep as a list, with the time that they are estimated to take."""

from collections.abc import Mapping, Sequence
from datetime import timedelta

from rlvr_jax.sweeps.plan import Run, Sweep, outcome, runs
from rlvr_jax.sweeps.stored import Experiment

_UNKNOWN = "time unknown"


def seconds(run: Run, every: Sequence[Run]) -> float | None:
    """Of a whole run, from the finished runs of its variant, or else of its kind, by the number of steps."""
    ends = [(other, end) for other in every if (end := outcome(other)) and end["status"] == "finished"]
    kind = [(other, end) for other, end in ends if other.kind == run.kind]
    known = [pair for pair in kind if pair[0].variant == run.variant] or kind
    if not known:
        return None
    return sum(end["seconds"] for _, end in known) / sum(other.num_steps for other, _ in known) * run.num_steps


def lines(sweep: Sweep, at_once: int = 1, retry: bool = False) -> str:
    """A line for each run, and one on all that are left; with `retry` failed ones, too."""
    every = runs(sweep)
    width = max(len(str(run.folder.relative_to(sweep.folder))) for run in every)
    found, left = [], []
    for run in every:
        end, estimated = outcome(run), seconds(run, every)
        is_left = end is None or (retry and end["status"] == "failed")
        if is_left:
            left.append(estimated)
        if end:
            state = f"{end['status']}, {_shown(end.get('seconds'))}"
        else:
            state = f"{run.num_steps} steps, {_shown(estimated)}"
        found.append(f"{run.folder.relative_to(sweep.folder)!s:{width}}  {state}")
    total = "time unknown: no run of this sweep is finished" if None in left else _shown(sum(left) / at_once)
    found.append(f"{len(left)} of {len(every)} runs are left: {total if left else 'none'}")
    return "\n".join(found)


def of_curves(found: Mapping[str, Experiment]) -> str:
    """A line for each stored experiment with its runs and the time that they took, and one on all."""
    rows = [(name, len(one.curves) * len(one.seeds), one.seconds) for name, one in found.items()]
    rows.append((f"{len(rows)} curves", *(sum(row[i] for row in rows) for i in (1, 2))))
    width = max(len(name) for name, *_ in rows)
    return "\n".join(f"{name:{width}}  {count} runs, {_shown(seconds)}" for name, count, seconds in rows)


def _shown(estimated: float | None) -> str:
    return _UNKNOWN if estimated is None else f"about {timedelta(seconds=round(estimated))}"
