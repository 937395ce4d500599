"""Games of reasoning-gym, played move by move; the finished game is judged by the package's own scorer.

| data set         | a move                                | the policy sees after a turn        |
|------------------|---------------------------------------|-------------------------------------|
| `sokoban`        | `U`, `D`, `L` or `R`                  | the board                           |
| `tower_of_hanoi` | `Move disk 1 from Peg 2 to Peg 3`     | the disks of each peg               |
| `jugs`           | `fill A`, `empty A` or `pour A->B`    | the litres in each jug              |

A turn has one move or more between `<move>` tags, and may have thoughts before. Moves are made up to the first that is
not allowed, and the observation says why that one is not.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rlvr_jax.envs.env import Action, Done, Env, Say
from rlvr_jax.tasks.reasoning_gym import problem
from rlvr_jax.tasks.task import Example
from rlvr_jax.text import formats
from rlvr_jax.text.formats import AnswerFormat
from rlvr_jax.text.numbers import whole
from rlvr_jax.text.tags import after_thinking, between

_DISK = re.compile(r"move disk (\d+) from peg (\d+) to peg (\d+)", re.IGNORECASE)
_STEPS = {"U": (-1, 0), "D": (1, 0), "L": (0, -1), "R": (0, 1)}
_MOST_MOVES = 1000  # of a turn


class _IllegalMoveError(Exception):
    """A move that is not allowed, and why."""


@dataclass(frozen=True)
class _Game:
    """The rules of a game; positions are immutable.

    Attributes:
      begin: the data set's description of a problem -> its first position.
      listed: text -> the moves in it.
      moved: (position, move) -> the next position; raises _IllegalMoveError.
      shown: position -> its text.
      solved: position -> True at the end of the game.
      answer: the moves -> the answer as the data set asks for it.
      moves: the form of a move, for the prompt.
    """

    begin: Callable[[Mapping[str, Any]], Any]
    listed: Callable[[str], list[str]]
    moved: Callable[[Any, str], Any]
    shown: Callable[[Any], str]
    solved: Callable[[Any], bool]
    answer: Callable[[Sequence[str]], str]
    moves: str


@dataclass(frozen=True)
class _State:
    """An episode: the game, its position, the moves that led there, and the number of turns without a legal move."""

    game: _Game
    position: Any
    made: tuple[str, ...] = ()
    illegal: int = 0


def reasoning_gym_game(answer_format: AnswerFormat = "answer") -> Env:
    """A game of the task `reasoning_gym` in several turns; it ends when it is solved, or by `rollout.max_turns`.

    Parts: `moves`, those that were made, and `illegal_moves`, turns with a move that is not allowed or with none.

    Args:
      answer_format: that of the task, in which the moves are given to the verifier.

    Raises:
      ValueError: there is no such format.
    """
    formats.instruction(answer_format)

    def start(example: Example) -> tuple[_State, str]:
        if not (isinstance(example.reference, Mapping) and example.reference.get("dataset") in GAMES):
            raise ValueError(
                f"it is for problems of the task reasoning_gym with the data sets {', '.join(GAMES)}, and {example.id} "
                "is none"
            )
        game, entry = GAMES[example.reference["dataset"]], problem(example.reference)
        state = _State(game, game.begin(entry["metadata"]))
        return state, (
            f"{entry['question'].strip()}\n\nPlay it in several turns, not at once: write your next move, or some, in "
            f"<move> </move> tags ({game.moves}), and you will be shown what comes of it.\n"
        )

    def step(state: _State, text: str) -> tuple[_State, Action]:
        found = between(after_thinking(text) or "", "<move>", "</move>")
        moves = state.game.listed(found[-1])[:_MOST_MOVES] if found else []
        why = "" if moves else f"there is no move in <move> </move> tags ({state.game.moves})"
        for move in moves:
            try:
                position = state.game.moved(state.position, move)
            except _IllegalMoveError as illegal:
                why = f"{move[:50]!r} is not allowed: {illegal}"
                break
            state = replace(state, position=position, made=(*state.made, move))
            if state.game.solved(position):
                return state, Done(answer=formats.written(answer_format, state.game.answer(state.made)))
        state = replace(state, illegal=state.illegal + bool(why))
        return state, Say("\n".join(filter(None, [why, state.game.shown(state.position)])) + "\n")

    return Env(
        start,
        step,
        parts=("moves", "illegal_moves"),
        parts_of=lambda state: {"moves": len(state.made), "illegal_moves": state.illegal},
    )


# Sokoban: the rows of the board, of `*` the player, `@` a box, `X` a goal, `%` and `$` player and box on a goal, `+` a
# wall and `-` a free place.

_Board = tuple[str, ...]
_ON_GOAL = {"%": "*", "$": "@", "X": "-"}  # what stands on a goal
_WITH_GOAL = {thing: both for both, thing in _ON_GOAL.items()}


def _board(metadata: Mapping[str, Any]) -> _Board:
    return tuple("".join(line.split()) for line in metadata["gamestr"].split("\n") if line.strip())


def _pushed(board: _Board, move: str) -> _Board:
    if move not in _STEPS:
        raise _IllegalMoveError("a move is U, D, L or R")
    down, right = _STEPS[move]
    ((row, column),) = [(y, x) for y, line in enumerate(board) for x, place in enumerate(line) if place in "*%"]
    at = lambda n: (row + n * down, column + n * right)  # noqa: E731
    thing = lambda place: _ON_GOAL.get(_place(board, place), _place(board, place))  # noqa: E731
    path = [(row, column), at(1)]
    if thing(at(1)) == "@":
        path.append(at(2))
        if thing(at(2)) != "-":
            raise _IllegalMoveError("there is no room behind the box")
    elif thing(at(1)) != "-":
        raise _IllegalMoveError("there is a wall")
    things = ["-", *(thing(place) for place in path[:-1])]
    rows = [list(line) for line in board]
    for (y, x), new in zip(path, things, strict=True):
        rows[y][x] = _WITH_GOAL[new] if board[y][x] in _ON_GOAL else new
    return tuple("".join(line) for line in rows)


def _place(board: _Board, place: tuple[int, int]) -> str:
    row, column = place
    return board[row][column] if 0 <= row < len(board) and 0 <= column < len(board[row]) else "+"


# Tower of Hanoi: the disks of each peg from below, and the peg that they are to go to.

_Pegs = tuple[tuple[tuple[int, ...], ...], int]


def _pegs(metadata: Mapping[str, Any]) -> _Pegs:
    disks = tuple(range(metadata["num_disks"], 0, -1))
    pegs = tuple(disks if peg == metadata["start_peg"] else () for peg in range(1, metadata["num_pegs"] + 1))
    return pegs, metadata["target_peg"]


def _disk_moved(position: _Pegs, move: str) -> _Pegs:
    pegs, target = position
    found = _DISK.fullmatch(move)
    numbers = [None] if found is None else list(map(whole, found.groups()))
    if None in numbers:
        raise _IllegalMoveError("a move is 'Move disk X from Peg Y to Peg Z'")
    disk, source, goal = numbers
    if not (1 <= source <= len(pegs) and 1 <= goal <= len(pegs)) or source == goal:
        raise _IllegalMoveError(f"it takes two pegs, of 1 to {len(pegs)}")
    if not pegs[source - 1] or pegs[source - 1][-1] != disk:
        raise _IllegalMoveError(f"disk {disk} is not on top of Peg {source}")
    if pegs[goal - 1] and pegs[goal - 1][-1] < disk:
        raise _IllegalMoveError(f"the top disk of Peg {goal} is smaller")
    changed = {source: pegs[source - 1][:-1], goal: (*pegs[goal - 1], disk)}
    return tuple(changed.get(number, peg) for number, peg in enumerate(pegs, start=1)), target


def _pegs_shown(position: _Pegs) -> str:
    rows = (f"Peg {number}: {' '.join(map(str, peg)) or 'empty'}" for number, peg in enumerate(position[0], start=1))
    return "\n".join([*rows, "(from below to the top)"])


# Jugs: litres in each, capacities, and the litres that are wanted.

_Jugs = tuple[tuple[int, ...], tuple[int, ...], int]


def _jugs(metadata: Mapping[str, Any]) -> _Jugs:
    puzzle = metadata["puzzle"]
    return (0,) * len(puzzle["jug_capacities"]), tuple(puzzle["jug_capacities"]), puzzle["target"]


def _poured(position: _Jugs, move: str) -> _Jugs:
    litres, capacities, target = position
    found = re.fullmatch(r"(?:(fill|empty) ([A-Z])|pour ([A-Z])->([A-Z]))", move)
    if found is None:
        raise _IllegalMoveError("a move is 'fill A', 'empty A' or 'pour A->B'")
    numbers = [ord(name) - ord("A") for name in found.groups()[1:] if name]
    if max(numbers) >= len(litres) or len(set(numbers)) < len(numbers):
        raise _IllegalMoveError(f"the jugs are A to {chr(ord('A') + len(litres) - 1)}, and pouring takes two")
    after = list(litres)
    if found[1]:
        after[numbers[0]] = capacities[numbers[0]] if found[1] == "fill" else 0
    else:
        source, goal = numbers
        amount = min(litres[source], capacities[goal] - litres[goal])
        after[source], after[goal] = litres[source] - amount, litres[goal] + amount
    return tuple(after), capacities, target


def _jugs_shown(position: _Jugs) -> str:
    litres, capacities, _ = position
    jugs = enumerate(zip(litres, capacities, strict=True))
    return ", ".join(f"{chr(ord('A') + n)}: {now} of {most} litres" for n, (now, most) in jugs)


GAMES: Mapping[str, _Game] = {
    "sokoban": _Game(
        begin=_board,
        listed=lambda text: list("".join(text.upper().split())),
        moved=_pushed,
        shown=lambda board: "\n".join(" ".join(line) for line in board),
        solved=lambda board: not any("@" in line for line in board),
        answer="".join,
        moves="U, D, L and R, such as LLU",
    ),
    "tower_of_hanoi": _Game(
        begin=_pegs,
        listed=lambda text: [line.strip() for line in text.splitlines() if line.strip()],
        moved=_disk_moved,
        shown=_pegs_shown,
        solved=lambda position: not any(peg for n, peg in enumerate(position[0], start=1) if n != position[1]),
        answer="\n".join,
        moves="'Move disk 1 from Peg 2 to Peg 3', one a line",
    ),
    "jugs": _Game(
        begin=_jugs,
        listed=lambda text: [move.strip(" \"'[]") for move in re.split(r"[,\n]", text) if move.strip(" \"'[]")],
        moved=_poured,
        shown=_jugs_shown,
        solved=lambda position: position[2] in position[0],
        answer=lambda moves: json.dumps(list(moves)),
        moves="'fill A', 'empty A' or 'pour A->B', one a line",
    ),
}
