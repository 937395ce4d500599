"""Games of two players (`rlvr_jax.tasks.games`): the moves are made again, and the result is a role's."""

import re
from collections.abc import Mapping
from typing import Any

from rlvr_jax.tasks.games import ROLES, Game
from rlvr_jax.tasks.nim import NIM
from rlvr_jax.tasks.tic_tac_toe import TIC_TAC_TOE
from rlvr_jax.verifiers.verdict import Verdict


def tic_tac_toe(completion: str, reference: Mapping[str, Any], *, draw: float = 0.5) -> Verdict:
    """The verdict on a game of tic-tac-toe, see `verdict_of`."""
    return verdict_of(TIC_TAC_TOE, completion, reference, draw)


def nim(completion: str, reference: Mapping[str, Any]) -> Verdict:
    """The verdict on a game of nim, see `verdict_of`."""
    return verdict_of(NIM, completion, reference)


def verdict_of(game: Game, completion: str, reference: Mapping[str, Any], draw: float = 0.5) -> Verdict:
    """Scores a game for a role: 1 if it is won, `draw` for a draw, 0 if it is lost or not finished.

    Args:
      game: its rules.
      completion: the environment's account, `first 5193`: the role, and the moves of both in turn. `?` is a turn that
        is none of the moves that can be made, which loses.
      reference: the position in which it began.
      draw: score of a draw.

    Parts: `won`, `drawn`, `lost` (all 0 if it is not finished), `illegal` (lost by such a turn), `moves` (of both).

    Raises:
      ValueError: the reference is no position, or `draw` is not from 0 to 1.
    """
    position = reference.get("position") if isinstance(reference, Mapping) else None
    known = isinstance(position, str) and re.fullmatch(game.position, position)
    if not known or game.result(position):
        raise ValueError(f"the reference of a {game.name} example is a position, not {reference!r:.100}")
    if not 0 <= draw <= 1:
        raise ValueError(f"draw must be a score from 0 to 1, not {draw}")
    nothing = dict.fromkeys(("won", "drawn", "lost", "illegal", "moves"), 0.0)
    found = re.fullmatch(f"({'|'.join(ROLES)}) ([{game.moves}]*[?]?)", completion)
    if found is None:
        return Verdict(0.0, nothing, completion[:20], "the game was not finished")
    role, moves = found.groups()
    for number, move in enumerate(moves):
        own, legal = ROLES[number % 2] == role, move in game.free(position)
        if not legal:
            result = "lost" if own else "won"
        else:
            position = game.after(position, move)
            result = {"": "", "drawn": "drawn", "lost": "won" if own else "lost"}[game.result(position)]
        if result:
            parts = nothing | {result: 1.0, "moves": number + 1.0, "illegal": float(not legal and own)}
            score = {"won": 1.0, "drawn": draw, "lost": 0.0}[result]
            return Verdict(score, parts, completion, result)
    return Verdict(0.0, nothing | {"moves": float(len(moves))}, completion, "the game was not finished")
