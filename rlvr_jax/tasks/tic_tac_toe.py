"""Tic-tac-toe in text: the board as the player to move sees it, and a move is the number of a place.

    x.o......|5

Own pieces are `x`, the other's `o`, free places `.`; places are numbered from 1 to 9, row by row. Problems are
positions after a few random moves. The demonstrations play at random, so reinforcement learning has to find what wins.
"""

from functools import partial

from rlvr_jax.tasks.games import Game, Result, prompt_of, random_game
from rlvr_jax.tasks.task import Example, Split, Task, draw, split_of

MOVES = "123456789"
ALPHABET = f"{MOVES}xo.|"
_LINES = ("012", "345", "678", "036", "147", "258", "048", "246")
_MOST_DRAWS = 1000


def free(board: str) -> str:
    """The moves that can be made."""
    return "".join(move for move, place in zip(MOVES, board, strict=True) if place == ".")


def moved(board: str, move: str, piece: str = "x") -> str:
    """The board after a move of `x`, or `o`, to a free place."""
    place = MOVES.index(move)
    return board[:place] + piece + board[place + 1 :]


def turned(board: str) -> str:
    """The board as the other player sees it."""
    return board.translate(str.maketrans("xo", "ox"))


def winner(board: str) -> str:
    """`x` or `o` if it has three in a line, `.` for a full board without one, otherwise nothing."""
    for line in _LINES:
        if len(pieces := {board[int(place)] for place in line}) == 1 and "." not in pieces:
            return pieces.pop()
    return "" if "." in board else "."


def _result(board: str) -> Result:
    return {"": "", ".": "drawn"}.get(winner(board), "lost")


TIC_TAC_TOE = Game(
    "tic_tac_toe", MOVES, "[xo.]{9}", free, after=lambda board, move: turned(moved(board, move)), result=_result
)


def tic_tac_toe(plies: int = 3) -> Task:
    """The task of winning from positions after up to `plies` random moves.

    Raises:
      ValueError: plies is out of range.
    """
    if not 0 <= plies <= 6:
        raise ValueError(f"tic_tac_toe: plies must be from 0 to 6, not {plies}")

    def position(*path: str | int) -> str:
        """The board after a random number of random moves, as the player to move sees it."""
        drawn, board = draw("tic_tac_toe", *path), "........."
        drawn, count = divmod(drawn, plies + 1)
        for _ in range(count):
            drawn, place = divmod(drawn, len(free(board)))
            board = turned(moved(board, free(board)[place]))
        return board

    def example(split: Split, index: int) -> Example:
        if index < 0:
            raise IndexError(f"tic_tac_toe: index must be at least 0, not {index}")
        for attempt in range(_MOST_DRAWS):
            board = position(plies, split, index, attempt)
            # With few plies there are few positions: then both splits have the same.
            if not winner(board) and (plies < 2 or split_of(f"tic_tac_toe/{board}") == split):
                return Example(f"tic_tac_toe/{split}/{index}", prompt_of(board), {"position": board}, "tic_tac_toe")
        raise ValueError(f"tic_tac_toe: {_MOST_DRAWS} positions were drawn, and none is of the split {split!r}")

    return Task("tic_tac_toe", "tic_tac_toe", example, lambda _split: None, partial(random_game, TIC_TAC_TOE), ALPHABET)
