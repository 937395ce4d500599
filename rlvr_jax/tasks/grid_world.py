"""A grid world in text: the policy walks to a goal, and sees only its four neighbours and the goal's direction.

An observation has the direction of the goal, north or south and east or west (`-` for neither), and then what is to the
north, east, south and west: free (`.`), a wall (`#`) or the goal (`G`). A move is one letter:

    n-.#..| n n-G#..| n

The demonstrations are random walks, so reinforcement learning has to find that the goal is worth walking to.
"""

from collections.abc import Mapping
from typing import Any

from rlvr_jax.tasks.task import Example, Split, Task, draw, split_of
from rlvr_jax.text.messages import Messages

MOVES = {"n": (-1, 0), "e": (0, 1), "s": (1, 0), "w": (0, -1)}
ALPHABET = "nesw-.#G|!"
_MOST_DRAWS = 1000
_WALK = 4  # moves of a demonstration, at most

Place = tuple[int, int]  # row from the north, column from the west


def blocked(world: Mapping[str, Any], place: Place) -> bool:
    """True for a place outside of the grid, and for a wall."""
    return not all(0 <= x < world["size"] for x in place) or list(place) in world["walls"]


def moved(world: Mapping[str, Any], place: Place, move: str) -> Place:
    """The place after a move, the same one before a wall."""
    step = MOVES[move]
    target = (place[0] + step[0], place[1] + step[1])
    return place if blocked(world, target) else target


def seen(world: Mapping[str, Any], place: Place) -> str:
    """The observation at a place."""
    south, east = (goal - own for goal, own in zip(world["goal"], place, strict=True))
    direction = ("n-s"[1 + (south > 0) - (south < 0)], "w-e"[1 + (east > 0) - (east < 0)])
    around = []
    for row, column in MOVES.values():
        target = (place[0] + row, place[1] + column)
        around.append("#" if blocked(world, target) else "G" if list(target) == list(world["goal"]) else ".")
    return "".join((*direction, *around, "|"))


def distance(world: Mapping[str, Any]) -> int | None:
    """The number of moves of a shortest way from start to goal; None if there is no way."""
    reached, edge, steps = set(), {tuple(world["start"])}, 0
    while edge:
        if tuple(world["goal"]) in edge:
            return steps
        reached |= edge
        edge = {moved(world, place, move) for place in edge for move in MOVES} - reached
        steps += 1
    return None


def grid_world(size: int = 5, walls: int = 5, farthest: int = 5) -> Task:
    """The task of walking to the goal of a grid.

    Args:
      size: of the square.
      walls: places that can't be entered.
      farthest: moves of a shortest way at most; it has 2 at least.

    Raises:
      ValueError: an argument is out of range.
    """
    if not (3 <= size <= 20 and 0 <= walls <= size * size // 2 and farthest >= 2):
        raise ValueError(
            "grid_world: size must be from 3 to 20, walls from 0 to half of the places, and farthest at least 2, not "
            f"{size}, {walls} and {farthest}"
        )

    def world_of(*path: str | int) -> dict[str, Any]:
        drawn, places = draw("grid_world", *path), [[row, column] for row in range(size) for column in range(size)]
        chosen = []
        for _ in range(walls + 2):
            drawn, index = divmod(drawn, len(places))
            chosen.append(places.pop(index))
        return {"size": size, "start": chosen[0], "goal": chosen[1], "walls": sorted(chosen[2:])}

    def example(split: Split, index: int) -> Example:
        if index < 0:
            raise IndexError(f"grid_world: index must be at least 0, not {index}")
        for attempt in range(_MOST_DRAWS):
            world = world_of(size, walls, split, index, attempt)
            if split_of(f"grid_world/{world}") == split and 2 <= (distance(world) or 0) <= farthest:
                return Example(f"grid_world/{split}/{index}", seen(world, tuple(world["start"])), world, "grid_world")
        raise ValueError(
            f"grid_world: of {_MOST_DRAWS} grids with these options none has a way of 2 to {farthest} moves"
        )

    def demonstration(example: Example, index: int) -> Messages:
        world, messages = example.reference, []
        place = tuple(world["start"])
        for step in range(_WALK):
            move = "nesw"[draw("grid_world", "walk", example.id, index, step) % 4]
            messages.append({"role": "assistant", "content": move})
            place = moved(world, place, move)
            if list(place) == world["goal"]:
                break
            messages.append({"role": "user", "content": seen(world, place)})
        return tuple(messages[: -1 if messages[-1]["role"] == "user" else None])

    return Task("grid_world", "grid_world", example, lambda _split: None, demonstration, ALPHABET)
