"""Walks to a goal (`rlvr_jax.tasks.grid_world`): the moves, one per line, are walked again."""

from collections.abc import Mapping
from typing import Any

from rlvr_jax.tasks.grid_world import MOVES, blocked, moved
from rlvr_jax.verifiers.verdict import Verdict


def verify(completion: str, reference: Mapping[str, Any]) -> Verdict:
    """Scores 1 if the moves reach the goal; what follows then does not count.

    Part: `moves`, the number of lines until then, or of all.

    Raises:
      ValueError: the reference is no grid.
    """
    if not (isinstance(reference, Mapping) and {"size", "start", "goal", "walls"} <= reference.keys()):
        raise ValueError(f"the reference of a grid_world example is a grid, not {reference!r:.100}")
    place, lines = tuple(reference["start"]), completion.split("\n")
    if blocked(reference, place) or blocked(reference, tuple(reference["goal"])):
        raise ValueError("start or goal of the grid is a wall, or outside of it")
    for number, line in enumerate(lines, start=1):
        place = moved(reference, place, line) if line in MOVES else place
        if place == tuple(reference["goal"]):
            return Verdict(1.0, {"moves": float(number)}, completion[:100], "right")
    return Verdict(0.0, {"moves": float(len(lines))}, completion[:100], "the goal was not reached")
