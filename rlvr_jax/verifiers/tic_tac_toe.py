"""Games of tic-tac-toe (`rlvr_jax.tasks.tic_tac_toe`): the moves are made again, and the result is a role's."""

import re
from collections.abc import Mapping
from typing import Any

from rlvr_jax.tasks.tic_tac_toe import ROLES, free, moved, winner
from rlvr_jax.verifiers.verdict import Verdict


def verify(completion: str, reference: Mapping[str, Any], *, draw: float = 0.5) -> Verdict:
    """Scores a game for a role: 1 if it is won, `draw` for a draw, 0 if it is lost or not finished.

    Args:
      completion: the environment's account, `first 5193`: the role, and the moves of both in turn. `?` is a turn that
        is no move or to a taken place, which loses.
      reference: the position.
      draw: score of a draw.

    Parts: `won`, `drawn`, `lost` (all 0 if it is not finished), `illegal` (lost by such a turn), `moves` (of both).

    Raises:
      ValueError: the reference is no position, or `draw` is not from 0 to 1.
    """
    board = reference.get("board") if isinstance(reference, Mapping) else None
    if not (isinstance(board, str) and re.fullmatch("[xo.]{9}", board) and not winner(board)):
        raise ValueError(f"the reference of a tic_tac_toe example is a position, not {reference!r:.100}")
    if not 0 <= draw <= 1:
        raise ValueError(f"draw must be a score from 0 to 1, not {draw}")
    nothing = dict.fromkeys(("won", "drawn", "lost", "illegal", "moves"), 0.0)
    found = re.fullmatch(f"({'|'.join(ROLES)}) ([1-9]*[?]?)", completion)
    if found is None:
        return Verdict(0.0, nothing, completion[:20], "the game was not finished")
    role, moves = found.groups()
    for number, move in enumerate(moves):
        own = ROLES[number % 2] == role
        legal = move in free(board)
        if legal:
            board = moved(board, move, "xo"[number % 2])
        result = "lost" if not legal and own else "won" if not legal else ""
        if legal and (end := winner(board)):
            result = "drawn" if end == "." else "won" if own else "lost"
        if result:
            parts = nothing | {result: 1.0, "moves": number + 1.0, "illegal": float(not legal and own)}
            score = {"won": 1.0, "drawn": draw, "lost": 0.0}[result]
            return Verdict(score, parts, completion, result)
    return Verdict(0.0, nothing | {"moves": float(len(moves))}, completion, "the game was not finished")
