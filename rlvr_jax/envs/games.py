"""Games of two players (`rlvr_jax.tasks.games`): the policy against itself, or an opponent that is no policy."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, get_args

from rlvr_jax.envs.env import Action, Done, Env, Say
from rlvr_jax.tasks.games import ROLES, Game, best, prompt_of
from rlvr_jax.tasks.nim import NIM
from rlvr_jax.tasks.task import Example, draw
from rlvr_jax.tasks.tic_tac_toe import TIC_TAC_TOE

Opponent = Literal["self", "random", "optimal"]


@dataclass(frozen=True)
class _State:
    """A game: the position as the player to move sees it, the moves of both, and the id of the episode."""

    position: str
    id: str
    moves: str = ""


def tic_tac_toe(opponent: Opponent = "self") -> Env:
    """Tic-tac-toe, see `two_players`."""
    return two_players(TIC_TAC_TOE, opponent)


def nim(opponent: Opponent = "self") -> Env:
    """Nim with one pile, see `two_players`."""
    return two_players(NIM, opponent)


def two_players(game: Game, opponent: Opponent) -> Env:
    """A game from the position of a problem; a turn that is none of the moves that can be made loses it.

    With "self" the policy has both roles, each with a context of its own, and an episode of each is a sample. "random"
    draws the other's moves by the problem, the sample and the number of the move, from all that can be made, and
    "optimal" from the best ones.

    Raises:
      ValueError: there is no such opponent.
    """
    if opponent not in get_args(Opponent):
        raise ValueError(f"opponent must be one of {', '.join(get_args(Opponent))}, not {opponent!r}")
    step = partial(_step, game, opponent)
    return Env(
        partial(_start, game),
        step,
        cut=step,  # two tokens are no move
        drawn=lambda state, sample: replace(state, id=f"{state.id}/{sample}"),
        ends=tuple(game.moves),
        roles=ROLES if opponent == "self" else (),
    )


def _start(game: Game, example: Example) -> tuple[_State, str]:
    position = example.reference.get("position") if isinstance(example.reference, Mapping) else None
    if not (isinstance(position, str) and re.fullmatch(game.position, position)):
        raise ValueError(f"it is for problems of the task {game.name}, and {example.id} has no position")
    return _State(position, example.id), example.prompt


def _step(game: Game, opponent: Opponent, state: _State, text: str) -> tuple[_State, Action]:
    """Makes the move of a turn, and that of the opponent if there is one."""
    if len(text) != 1 or text not in game.free(state.position):
        return _ended(replace(state, moves=f"{state.moves}?"), opponent)
    state = _after(game, state, text)
    if opponent != "self" and not game.result(state.position):
        moves = game.free(state.position) if opponent == "random" else best(game, state.position)
        state = _after(game, state, moves[draw(game.name, state.id, len(state.moves)) % len(moves)])
    if game.result(state.position):
        return _ended(state, opponent)
    return state, Say(prompt_of(state.position), role=len(state.moves) % len(ROLES) if opponent == "self" else 0)


def _after(game: Game, state: _State, move: str) -> _State:
    return replace(state, position=game.after(state.position, move), moves=state.moves + move)


def _ended(state: _State, opponent: Opponent) -> tuple[_State, Done]:
    ends = [Done(answer=f"{role} {state.moves}") for role in ROLES]
    return state, Done(roles=tuple(ends)) if opponent == "self" else ends[0]
