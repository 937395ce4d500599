"""Games of two players in text, such as `tic_tac_toe` and `nim`: positions, the best moves, and random games.

A position is a text as the player to move sees it, and a move is a character. All else of a game follows from its three
functions: the environments (`rlvr_jax.envs.games`), the results (`rlvr_jax.verifiers.games`) and the best play.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from rlvr_jax.tasks.task import Example, draw
from rlvr_jax.text.messages import Messages

ROLES = ("first", "second")  # of the player to move in the position of a problem, and of the other
Result = Literal["lost", "drawn", ""]
_MOST_MOVES = 1000


@dataclass(frozen=True)
class Game:
    """A game.

    Attributes:
      name: of its task, environment and verifier.
      moves: all that there are, a character each.
      position: a regular expression of its positions.
      free: position -> the moves that can be made.
      after: (position, one of these) -> the position as the other player sees it.
      result: position -> "lost" if the player to move has lost, "drawn", or nothing while the game goes on.
    """

    name: str
    moves: str
    position: str
    free: Callable[[str], str]
    after: Callable[[str, str], str]
    result: Callable[[str], Result]


@lru_cache(maxsize=100_000)
def value(game: Game, position: str) -> int:
    """The result for the player to move if both play their best: 1 for a win, 0 for a draw, -1 for a loss."""
    if result := game.result(position):
        return 0 if result == "drawn" else -1
    return max(-value(game, game.after(position, move)) for move in game.free(position))


def best(game: Game, position: str) -> str:
    """The moves that lead to this result."""
    most = value(game, position)
    return "".join(move for move in game.free(position) if -value(game, game.after(position, move)) == most)


def prompt_of(position: str) -> str:
    """The text of a position that the player to move gets."""
    return f"{position}|"


def random_game(game: Game, example: Example, index: int) -> Messages:
    """A demonstration in which both players move at random, of the first player."""
    position, messages = example.reference["position"], []
    for number in range(_MOST_MOVES):
        drawn, place = divmod(draw(game.name, "random", example.id, index, number), len(game.free(position)))
        move = game.free(position)[place]
        messages.append({"role": "assistant", "content": move})
        position = game.after(position, move)
        if game.result(position):
            break
        position = game.after(position, game.free(position)[drawn % len(game.free(position))])
        if game.result(position):
            break
        messages.append({"role": "user", "content": prompt_of(position)})
    return tuple(messages)
