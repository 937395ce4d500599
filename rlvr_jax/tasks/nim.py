"""Nim with one pile in text: the players take 1 to 3 in turn, and who takes the last one wins.

    14|2

The player to move loses a pile that is a multiple of 4 against best play, and wins any other one by leaving such a pile
(Bouton 1901). The demonstrations play at random, so reinforcement learning has to find that.
"""

from functools import partial

from rlvr_jax.tasks.games import Game, prompt_of, random_game, value
from rlvr_jax.tasks.task import Example, Split, Task, draw

_MOVES = "123"
NIM = Game(
    "nim",
    _MOVES,
    r"\d\d",
    free=lambda pile: _MOVES[: int(pile)],
    after=lambda pile, move: f"{int(pile) - int(move):02d}",
    result=lambda pile: "" if int(pile) else "lost",
)


def nim(most: int = 21, winnable: bool = False) -> Task:
    """The task of winning from piles of 1 to `most`. Both splits have all of them.

    Args:
      most: the largest pile.
      winnable: only piles that the player to move can win against best play.

    Raises:
      ValueError: most is out of range.
    """
    if not 1 <= most <= 99:
        raise ValueError(f"nim: most must be from 1 to 99, not {most}")
    piles = [f"{pile:02d}" for pile in range(1, most + 1)]
    piles = [pile for pile in piles if not winnable or value(NIM, pile) == 1]

    def example(split: Split, index: int) -> Example:
        if index < 0:
            raise IndexError(f"nim: index must be at least 0, not {index}")
        pile = piles[draw("nim", split, index) % len(piles)]
        return Example(f"nim/{split}/{index}", prompt_of(pile), {"position": pile}, "nim")

    return Task("nim", "nim", example, lambda _split: None, partial(random_game, NIM), "0123456789|")
