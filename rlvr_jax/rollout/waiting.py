"""Waiting for results of the pool while the sampler decodes."""

import concurrent.futures
import time
from collections.abc import Sequence
from concurrent.futures import Future

from rlvr_jax.parallel import Processes
from rlvr_jax.rollout.requests import Turns

_LOOK_SECONDS = 0.002  # between looks at a device that decodes while results are missing


def wait(sampler: Turns, futures: Sequence[Future]) -> float:
    """Waits for results while the sampler decodes what it can; the seconds without anything to decode."""
    sampler.ready()  # dispatches, whether results are missing or not: in all processes alike
    idle = None
    for future in reversed(futures):  # one long wait for the last one instead of many short ones
        while not future.done():
            if idle is None and sampler.ready() is not False:
                idle = time.perf_counter()
            concurrent.futures.wait([future], _LOOK_SECONDS if idle is None else None)
    return 0.0 if idle is None else time.perf_counter() - idle


def has_time(sampler: Turns, processes: Processes, futures: Sequence[Future]) -> bool:
    """True if there is something to sample before these results are there."""
    if processes.count > 1:
        sampler.ready()  # what the first process dispatches below, all must
    late = None
    if processes.index == 0:
        # Never longer than the results take: the update may run on other devices than the sampler.
        while (late := _late(futures)) and sampler.ready() is False:
            concurrent.futures.wait([late], _LOOK_SECONDS)
    return processes.exchange(late is not None)[0]  # the clock of one process decides for all


def _late(futures: Sequence[Future]) -> Future | None:
    """The last one without a result, if there is one."""
    return next((future for future in reversed(futures) if not future.done()), None)
