"""Tic-tac-toe (`rlvr_jax.tasks.tic_tac_toe`): the policy against itself, or an opponent that plays at random."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

from rlvr_jax.envs.env import Action, Done, Env, Say
from rlvr_jax.tasks.task import Example, draw
from rlvr_jax.tasks.tic_tac_toe import MOVES, ROLES, free, moved, turned, winner

Opponent = Literal["self", "random"]


@dataclass(frozen=True)
class _State:
    """A game: the board as the player to move sees it, the moves of both, and the id of the episode."""

    board: str
    id: str
    moves: str = ""


def tic_tac_toe(opponent: Opponent = "self") -> Env:
    """A game from the position of a problem; a turn that is no move, or to a taken place, loses it.

    With "self" the policy has both roles, each with a context of its own, and an episode of each is a sample; "random"
    draws the other's moves by the problem, the sample and the number of the move.

    Raises:
      ValueError: there is no such opponent.
    """
    if opponent not in get_args(Opponent):
        raise ValueError(f"opponent must be one of {', '.join(get_args(Opponent))}, not {opponent!r}")
    alone = opponent == "random"

    def start(example: Example) -> tuple[_State, str]:
        if not (isinstance(example.reference, Mapping) and isinstance(example.reference.get("board"), str)):
            raise ValueError(f"it is for problems of the task tic_tac_toe, and {example.id} has no board")
        return _State(example.reference["board"], example.id), example.prompt

    def step(state: _State, text: str) -> tuple[_State, Action]:
        if len(text) != 1 or text not in free(state.board):
            return _ended(replace(state, moves=state.moves + "?"))
        state = _after(state, text)
        if alone and not winner(state.board):
            places = free(state.board)
            state = _after(state, places[draw("tic_tac_toe", state.id, len(state.moves)) % len(places)])
        if winner(state.board):
            return _ended(state)
        return state, Say(f"{state.board}|", role=len(state.moves) % len(ROLES) if not alone else 0)

    def _after(state: _State, move: str) -> _State:
        return replace(state, board=turned(moved(state.board, move)), moves=state.moves + move)

    def _ended(state: _State) -> tuple[_State, Done]:
        ends = [Done(answer=f"{role} {state.moves}") for role in ROLES]
        return state, ends[0] if alone else Done(roles=tuple(ends))

    return Env(
        start,
        step,
        cut=step,  # two tokens are no move
        drawn=lambda state, sample: replace(state, id=f"{state.id}/{sample}"),
        ends=tuple(MOVES),
        roles=() if alone else ROLES,
    )
