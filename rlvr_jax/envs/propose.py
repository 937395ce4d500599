"""An answer in several attempts: the policy proposes, is told what is wrong, and proposes again.

The verifier of the task judges each proposal in the pool of processes, and the last one for the reward.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from rlvr_jax import named
from rlvr_jax.envs.env import Action, Call, Done, Env, Say, ToolResult
from rlvr_jax.tasks.reasoning_gym import problem
from rlvr_jax.tasks.task import Example
from rlvr_jax.text.numbers import whole
from rlvr_jax.text.tags import after_thinking, answer_in_tags
from rlvr_jax.verifiers import verifier_of, verify
from rlvr_jax.verifiers.jobs import ToolCall

Tells = Literal["nothing", "score", "reason"]
_MOST_MISTAKES = 5  # that are told at a time


@dataclass(frozen=True)
class _State:
    """An episode: the gold answer, the proposals, and the score of the last one."""

    reference: Any
    proposals: tuple[str, ...] = ()
    score: float = 0.0


def propose(
    verifier: str,
    verifier_options: Mapping[str, Any] | None = None,
    attempts: int = 3,
    wrong: str = "This is not right. {}\nTry again.\n",
    tells: Tells = "nothing",
    explain: str = "",
) -> Env:
    """An environment of several attempts at a problem.

    Parts: `attempts`, their number, and `first_score`, the score of the first.

    Args:
      verifier, verifier_options: of the task.
      attempts: the policy's turns at most; `rollout.max_turns` should not be less.
      wrong: text after a proposal that does not have the score 1, with the place {} for what is told.
      tells: of the verdict, what the policy is told: "nothing", its "score", or its "reason", which of some verifiers
        shows the gold answer.
      explain: instead, the function (completion, reference) -> what is wrong with it, as `module:function`; it runs in
        a process of the pool. `rlvr_jax.envs.propose:sudoku` is one.

    Raises:
      ValueError: an argument is out of range, or there is no such verifier or function.
    """
    options = dict(verifier_options or {})
    try:
        named.check_options(verifier_of(verifier), options, not named.is_name(verifier), skip=2)
    except ValueError as error:
        raise ValueError(f"verifier_options of {verifier!r}: {error}" if options else str(error)) from None
    if explain:
        named.check_arguments(explain, "completion", "reference")
    if attempts < 1:
        raise ValueError(f"attempts must be 1 or more, not {attempts}")
    if tells not in get_args(Tells):
        raise ValueError(f"tells must be one of {', '.join(get_args(Tells))}, not {tells!r}")

    def start(example: Example) -> tuple[_State, Any]:
        return _State(example.reference), example.prompt

    def check(example: Example) -> None:
        if error := verify(verifier, "", example.reference, **options).error:
            with_options = f" with {options}" if options else ""
            raise ValueError(f"its verifier {verifier!r}{with_options} can't judge {example.id}: {error}")

    def step(state: _State, text: str) -> tuple[_State, Action]:
        state = replace(state, proposals=(*state.proposals, text))
        arguments = {"verifier": verifier, "completion": text, "reference": state.reference, "options": options}
        call = ToolCall(f"{__name__}:judged", kwargs=arguments | {"tells": tells, "explain": explain})
        return state, Call((call,))

    def receive(state: _State, results: Sequence[ToolResult]) -> tuple[_State, Action]:
        (result,) = results
        if result.error is not None or result.value["error"] is not None:
            why = result.error or result.value["error"]
            return state, Done(reason="tool_error", error=f"attempt {len(state.proposals)}: {why}")
        score = result.value["score"]
        state = replace(state, score=score if len(state.proposals) == 1 else state.score)
        if score == 1 or len(state.proposals) == attempts:
            return state, Done(answer=state.proposals[-1])
        return state, Say(wrong.replace("{}", result.value["told"]))

    return Env(
        start,
        step,
        receive,
        parts=("attempts", "first_score"),
        check=check,
        parts_of=lambda state: {"attempts": len(state.proposals), "first_score": state.score},
        says=(wrong.replace("{}", ""),),
        worded_by="`wrong` to a text that it encodes, such as '!{}'",
    )


def judged(
    verifier: str, completion: str, reference: Any, options: Mapping[str, Any], tells: Tells, explain: str
) -> dict[str, Any]:
    """The score of a proposal, the error of a verifier that can't judge it, and what the policy is told."""
    verdict = verify(verifier, completion, reference, **options)
    told = {"nothing": "", "score": f"It scores {verdict.score:.3g}.", "reason": verdict.reason}[tells]
    if explain and verdict.error is None and verdict.score < 1:
        told = str(named.load(explain)(completion, reference))
    return {"score": verdict.score, "error": verdict.error, "told": told}


def sudoku(completion: str, reference: Mapping[str, Any]) -> str:
    """The first mistakes in a grid of reasoning-gym's `sudoku` or `mini_sudoku`, in words.

    Args:
      completion: with the grid in <answer> tags.
      reference: of the task `reasoning_gym`.
    """
    puzzle = problem(reference)["metadata"]["puzzle"]
    size, box = len(puzzle), round(len(puzzle) ** 0.5)
    text = answer_in_tags(after_thinking(completion) or "") or ""
    rows = [
        [number for x in line.split() if (number := whole(x)) is not None] for line in text.splitlines() if line.strip()
    ]
    if len(rows) != size or any(len(row) != size for row in rows):
        return f"The answer must have {size} rows of {size} numbers in <answer> </answer> tags."
    cells = [(row, column) for row in range(size) for column in range(size)]
    units = {f"Row {n + 1}": [cell for cell in cells if cell[0] == n] for n in range(size)}
    units |= {f"Column {n + 1}": [cell for cell in cells if cell[1] == n] for n in range(size)}
    units |= {f"Box {n + 1}": [(r, c) for r, c in cells if r // box * box + c // box == n] for n in range(size)}
    told = [
        f"Row {r + 1}, column {c + 1} of the puzzle is {puzzle[r][c]}."
        for r, c in cells
        if puzzle[r][c] and rows[r][c] != puzzle[r][c]
    ]
    for name, unit in units.items():
        missing = sorted(set(range(1, size + 1)) - {rows[r][c] for r, c in unit})
        told += [f"{name} lacks {', '.join(map(str, missing))}."] if missing else []
    return " ".join(told[:_MOST_MISTAKES])
