"""Verifiers: functions (completion, reference) -> `Verdict`, where `reference` is the gold answer.

| kind            | the task                                | reference                             | module          |
|-----------------|-----------------------------------------|---------------------------------------|-----------------|
| `modsum`        | digit sum modulo 10, answered with `#d` | the digit, e.g. `"1"`                 | `modsum`        |
| `countdown`     | reach a target with numbers, once each  | `{"numbers": [44, 19], "target": 63}` | `countdown`     |
| `gsm8k`         | word problems, answered with `#### 72`  | the number as text, e.g. `"1,080"`    | `number`        |
| `math`          | mathematics: value and form             | the gold answer, `"\\frac{1}{2}"`     | `mathematics`   |
| `constraints`   | instructions of IFEval and IFBench      | a line of IFEval's files              | `constraints`   |
| `cryptarithm`   | digits for letters that make a sum hold | `{"equation": "SEND + MORE = MONEY"}` | `cryptarithm`   |
| `programs`      | expressions in x, by shown values       | inputs shown, and all outputs         | `programs`      |
| `arc`           | output grids of an ARC task             | the grids, e.g. `[[[0, 1], [2, 0]]]`  | `arc`           |
| `code`          | a program that passes unit tests        | the tests, see the module             | `code`          |
| `reasoning_gym` | problems of reasoning-gym               | its data set, settings and index      | `reasoning_gym` |
| `bfcl`          | one call with allowed arguments, or none | function, its schema, allowed values | `bfcl`          |
| `key_value`     | multi-hop questions, answered with `#gj` | `{"world", "start", "answer"}`       | `key_value`     |
| `grid_world`    | moves to a goal, one a line              | the grid                             | `grid_world`    |
| `judge`         | what a judge of `config.judges` scores  | anything that it may see, or a rubric | `judge`         |
| `tic_tac_toe`   | a game's result for one of its roles     | `{"position": "x.o......"}`          | `games`         |
| `nim`           | the same                                 | `{"position": "14"}`                 | `games`         |
| `papers`        | ids in `<answer> </answer>`, by F1       | `{"papers": ["C16-1130"]}`           | `papers`        |

A kind may also be a function's name, `module:function` or `file.py:function` (`rlvr_jax.named`). It is called with
completion, reference and options, and returns a `Verdict`; or a number from 0 to 1 or a bool, the score; or a
dictionary with the key `score`, whose other entries are parts.

`verify` judges in this process, `rlvr_jax.verifiers.pool.Pool` in separate processes, with a limit of time and memory
for each completion. No completion or failing verifier makes them raise: without a judgement the verdict has score 0 and
the reason in `error`.

No verifier sees a thought: it gets the text after the last `</think>`; a completion with an unclosed thought scores 0
(`rlvr_jax.text.tags.after_thinking`).

Worker processes import this package, so nothing here imports JAX.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from rlvr_jax import named
from rlvr_jax.text.tags import after_thinking
from rlvr_jax.verifiers import (
    arc,
    bfcl,
    code,
    constraints,
    countdown,
    cryptarithm,
    games,
    grid_world,
    judge,
    key_value,
    mathematics,
    modsum,
    number,
    papers,
    programs,
    reasoning_gym,
)
from rlvr_jax.verifiers.verdict import MOST_PARTS, Verdict, names_a_part

VERIFIERS: Mapping[str, Callable[..., Verdict]] = {
    "modsum": modsum.verify,
    "countdown": countdown.verify,
    "gsm8k": number.verify,
    "math": mathematics.verify,
    "constraints": constraints.verify,
    "cryptarithm": cryptarithm.verify,
    "programs": programs.verify,
    "arc": arc.verify,
    "code": code.verify,
    "reasoning_gym": reasoning_gym.verify,
    "key_value": key_value.verify,
    "grid_world": grid_world.verify,
    "judge": judge.verify,
    "tic_tac_toe": games.tic_tac_toe,
    "nim": games.nim,
    "papers": papers.verify,
    "bfcl": bfcl.verify,
}

# Kinds whose time is linear in the completion, microseconds for a short one: a pool judges them at once, in the thread
# of the caller, since to send them to a process takes longer.
INSTANT = frozenset({"grid_world", "key_value", "modsum", "nim", "papers", "tic_tac_toe"})

# Slow preparation of a kind, done in a worker before its first judgement, outside of the time limit.
PREPARE: Mapping[str, Callable[[], None]] = {
    "math": mathematics.prepare,
    "reasoning_gym": reasoning_gym.prepare,
}

# Kinds that limit CPU time themselves: (reference, options) -> wall seconds after which a pool ends the judgement,
# ample even for a busy machine.
LONGEST: Mapping[str, Callable[[Any, Mapping[str, Any]], float]] = {
    "code": code.longest_seconds,
}

_MAX_ERROR = 500  # characters


def verifier_of(kind: str) -> Callable[..., Verdict]:
    """`VERIFIERS[kind]`, or the function of that name; raises a ValueError that lists the kinds if there is none."""
    if named.is_name(kind):
        return named.load(kind)
    if kind not in VERIFIERS:
        raise ValueError(f"there is no verifier {kind!r}; the kinds are {', '.join(VERIFIERS)}, or 'module:function'")
    return VERIFIERS[kind]


def failure(error: str) -> Verdict:
    """The verdict of an unjudged completion: score 0 and the error."""
    return Verdict(0.0, error=error[:_MAX_ERROR])


def _as_verdict(returned: Any) -> Verdict:
    """The result of a verifier as a verdict. Raises TypeError for other types."""
    if isinstance(returned, Verdict):
        return returned
    if isinstance(returned, Mapping) and "score" in returned:
        return Verdict(returned["score"], {name: value for name, value in returned.items() if name != "score"})
    if hasattr(returned, "__float__"):  # numbers and bools, those of NumPy among them, but not text
        return Verdict(float(returned))
    what = "a dictionary without 'score'" if isinstance(returned, Mapping) else type(returned).__name__
    raise TypeError(f"the verifier returned {what}, not a number, a bool, a dictionary with 'score', or a Verdict")


def _checked(verdict: Verdict) -> Verdict:
    """The verdict in plain types. Raises TypeError or ValueError for invalid fields."""
    score = _number("a score", verdict.score)
    parts = {name: _number(f"part {name!r:.100}", value) for name, value in verdict.parts.items()}
    if not 0.0 <= score <= 1.0:
        raise ValueError(f"the verifier gave score {score}, which is not from 0 to 1")
    if len(parts) > MOST_PARTS:
        raise ValueError(f"the verifier gave {len(parts)} parts; there may be {MOST_PARTS}")
    for name, value in parts.items():
        if not (names_a_part(name) and math.isfinite(value)):
            raise ValueError(
                f"the verifier gave part {name!r:.100} = {value}; parts are finite numbers with short printable names"
            )
    answer, reason, error = verdict.answer, verdict.reason, verdict.error
    for field, text in (("answer", answer), ("reason", reason), ("error", error)):
        if not isinstance(text, str) and (text is not None or field == "reason"):
            raise TypeError(f"the verifier gave {field} of type {type(text).__name__}, not str")
    return Verdict(score if error is None else 0.0, parts, answer, reason, error)


def _number(what: str, value: Any) -> float:
    if not hasattr(value, "__float__"):  # text, which `float` would read
        raise TypeError(f"the verifier gave {what} of type {type(value).__name__}, not a number")
    return float(value)


def guarded(verifier: Callable[..., Verdict], completion: Any, reference: Any, options: Mapping[str, Any]) -> Verdict:
    """`verifier(answer, reference, **options)`, where the answer is the completion without its thoughts.

    Exceptions and invalid results become `Verdict.error`. A completion of bytes is decoded as UTF-8, with replacement
    characters for invalid bytes.
    """
    if isinstance(completion, bytes | bytearray):
        completion = completion.decode("utf-8", errors="replace")
    if not isinstance(completion, str):
        return failure(f"TypeError: the completion is {type(completion).__name__}, not str")
    answer = after_thinking(completion)
    try:
        verdict = _checked(_as_verdict(verifier(answer or "", reference, **options)))
    except (Exception, SystemExit) as error:
        return Verdict(0.0, error=named.placed(error, verifier))
    if answer is None and verdict.error is None:  # some verifiers accept an empty answer
        return dataclasses.replace(verdict, score=0.0, answer=None, reason="no answer: the thought has no end")
    return verdict


def verify(kind: str, completion: Any, reference: Any, /, **options: Any) -> Verdict:
    """Judges one completion in this process, without a limit of time or memory.

    Args:
      kind: a key of `VERIFIERS`, or the name of a function.
      completion: text, or bytes.
      reference: the gold answer, see the table above.
      **options: further keyword arguments of the verifier.

    Raises:
      ValueError: there is no such kind or function. All other failures are in `Verdict.error`.
    """
    return guarded(verifier_of(kind), completion, reference, options)
