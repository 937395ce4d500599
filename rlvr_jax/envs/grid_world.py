"""The grid world of `rlvr_jax.tasks.grid_world`: a turn is a move, and its end is at the goal."""

from collections.abc import Mapping
from typing import Any

from rlvr_jax.envs.env import Action, Done, Env, Say
from rlvr_jax.tasks.grid_world import MOVES, moved, seen
from rlvr_jax.tasks.task import Example

MALFORMED = "!|"  # the observation after a turn that is no move

_State = tuple[Mapping[str, Any], tuple[int, int]]  # the grid and the place


def grid_world() -> Env:
    """Moves are `n`, `e`, `s` and `w`; a turn that is something else stays, and is answered by `!|`.

    An episode ends at the goal, or after `rollout.max_turns` moves.
    """

    def start(example: Example) -> tuple[_State, str]:
        world = example.reference
        if not (isinstance(world, Mapping) and {"size", "start", "goal", "walls"} <= world.keys()):
            raise ValueError(f"it is for problems of the task grid_world, and {example.id} has no grid")
        return (world, tuple(world["start"])), example.prompt

    def step(state: _State, text: str) -> tuple[_State, Action]:
        world, place = state
        if text not in MOVES:
            return state, Say(MALFORMED)
        place = moved(world, place, text)
        return (world, place), Done() if list(place) == list(world["goal"]) else Say(seen(world, place))

    return Env(start, step, ends=tuple(MOVES))
