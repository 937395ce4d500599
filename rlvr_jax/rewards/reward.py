"""Reward design as data: a weighted sum of named terms, chosen in the config.

A term is one of `TERMS`, or `format/` and the name of a check in `rlvr_jax.verifiers.format`, with arguments in
parentheses if it takes any, or the name of one of the verifier's parts. Each is logged under its own name:

    config.reward = (("score", 1.0), ("format/repetition(n=4)", -0.5), ("uses_numbers", 0.1))
"""

import ast
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float

from rlvr_jax.errors import ConfigError
from rlvr_jax.rollout.trajectory import Trajectory
from rlvr_jax.verifiers import format as form
from rlvr_jax.verifiers.verdict import Verdict

Term = Callable[[Verdict, Trajectory], float]

TERMS: Mapping[str, Term] = {
    "score": lambda verdict, _: verdict.score,  # what the verifier says, in [0, 1]
    "truncated": lambda _, trajectory: float(trajectory.finish_reason == "length"),  # ran out of its budget
    "length": lambda _, trajectory: float(len(trajectory.tokens)),  # tokens
}

_FORMAT = re.compile(r"format/(\w+)(?:\((.*)\))?", re.DOTALL)


def _arguments(text: str) -> dict[str, Any]:
    """`n=4, unit='words'` as a dictionary of plain values. Raises ValueError for anything else."""
    try:
        call = ast.parse(f"f({text})", mode="eval").body
    except SyntaxError as error:
        raise ValueError(error.msg) from None
    if not isinstance(call, ast.Call) or call.args or any(word.arg is None for word in call.keywords):
        raise ValueError("arguments are given by name")
    return {word.arg: ast.literal_eval(word.value) for word in call.keywords}


def _format_check(check: Callable[..., float], _: Verdict, trajectory: Trajectory) -> float:
    return check(trajectory.response)


def term_of(name: str, parts: Sequence[str]) -> Term:
    """The term of that name.

    Args:
      name: as in `config.reward`.
      parts: the names of the verifier's parts; a part that a verdict lacks counts as 0.

    Raises:
      ConfigError: there is no such term, or its arguments are wrong.
    """
    if name in TERMS:
        return TERMS[name]
    if name in parts:
        return lambda verdict, _: verdict.parts.get(name, 0.0)
    match = _FORMAT.fullmatch(name)
    if match is None or match[1] not in form.CHECKS:
        known = ", ".join([*TERMS, *(f"format/{check}" for check in form.CHECKS), *sorted(parts)])
        raise ConfigError(f"config.reward: there is no term {name!r}; here are: {known}")
    check = form.CHECKS[match[1]]
    try:
        check = partial(check, **_arguments(match[2] or ""))
        check("")  # which makes it look at its arguments
    except (TypeError, ValueError) as error:
        _, *takes = inspect.signature(form.CHECKS[match[1]]).parameters.values()
        raise ConfigError(f"config.reward: {name!r}: {error}; its arguments are {', '.join(map(str, takes))}") from None
    return partial(_format_check, check)


def reward(
    terms: Sequence[tuple[str, float]], verdicts: Sequence[Verdict], trajectories: Sequence[Trajectory]
) -> tuple[Float[np.ndarray, "samples"], dict[str, Float[np.ndarray, "samples"]]]:
    """The reward of each sample, and its weighted terms by name.

    A sample that could not be judged (its verdict has an error) gets reward 0 whatever the terms say.

    Raises:
      ConfigError: a term is neither in `TERMS` nor a part that any of the verdicts has, or is named twice.
    """
    judged = np.array([verdict.error is None for verdict in verdicts], np.float32)
    parts = sorted({name for verdict in verdicts for name in verdict.parts})
    if not judged.any():
        parts = [name for name, _ in terms]  # without a judgement nobody knows them, and every term is 0
    values = {}
    for name, weight in terms:
        if name in values:
            raise ConfigError(f"config.reward names the term {name!r} twice")
        term = term_of(name, parts)
        raw = [term(verdict, trajectory) for verdict, trajectory in zip(verdicts, trajectories, strict=True)]
        values[name] = weight * judged * np.array(raw, np.float32)
    return sum(values.values()), values
