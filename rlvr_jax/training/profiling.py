"""Traces of a few steps, for Perfetto or TensorBoard's profile plugin."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import jax


@contextlib.contextmanager
def traces(folder: Path, steps: range) -> Iterator[Callable[[int], None]]:
    """A function to call at the start of each step; writes the trace of `steps` to `folder`.

    Args:
      folder: is created.
      steps: successive ones; empty for no trace.
    """
    running = False

    def begin(step: int) -> None:
        nonlocal running
        wanted = step in steps
        if wanted and not running:
            jax.profiler.start_trace(str(folder))
        elif running and not wanted:
            jax.profiler.stop_trace()
        running = wanted

    try:
        yield begin
    finally:
        if running:
            jax.profiler.stop_trace()
