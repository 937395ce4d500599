"""Reward design as data: a weighted sum of named terms, chosen in the config.

A term is one of `TERMS`, or `format/` and the name of a check in `rlvr_jax.verifiers.format`, with arguments in
parentheses if it takes any, or the name of one of the verifier's parts, or that of a function (verdict, trajectory) ->
number, as `module:function` or `file.py:function`. Each is logged under its own name:

    config.reward = (("score", 1.0), ("format/repetition(n=4)", -0.5), ("uses_numbers", 0.1), ("mine:brevity", 0.2))
"""

import ast
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from rlvr_jax import named
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

_LARGEST = float(np.finfo(np.float32).max)
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
      ConfigError: there is no such term or function, or its arguments are wrong.
    """
    if name in TERMS:
        return TERMS[name]
    if name in parts:
        return lambda verdict, _: verdict.parts.get(name, 0.0)
    match = _FORMAT.fullmatch(name)
    if match is None and named.is_name(name):
        try:
            named.check_arguments(name, Verdict(0.0), None)
        except ValueError as error:
            raise ConfigError(f"config.reward: {error}") from None
        return named.load(name)
    if match is None or match[1] not in form.CHECKS:
        known = ", ".join([*TERMS, *(f"format/{check}" for check in form.CHECKS), *sorted(parts), "module:function"])
        raise ConfigError(f"config.reward: there is no term {name!r}; here are: {known}")
    check = form.CHECKS[match[1]]
    try:
        check = partial(check, **_arguments(match[2] or ""))
        check("")  # which makes it look at its arguments
    except (TypeError, ValueError) as error:
        _, *takes = inspect.signature(form.CHECKS[match[1]]).parameters.values()
        raise ConfigError(f"config.reward: {name!r}: {error}; its arguments are {', '.join(map(str, takes))}") from None
    return partial(_format_check, check)


@dataclass(frozen=True)
class Rewards:
    """The rewards of a step, in groups of samples of the same prompt.

    A sample is judged if its verdict has no error and all terms of its reward are finite. The others have no reward:
    the 0 that stands for it here is not to be read.

    Attributes:
      values: the reward of each sample.
      judged: whether it has one.
      terms: the weighted terms of the rewards, by name; 0 where there is no reward.
      verdicts: of all samples, in order; one whose reward was not finite says so in `error`.
    """

    values: Float[np.ndarray, "prompts group"]
    judged: Bool[np.ndarray, "prompts group"]
    terms: Mapping[str, Float[np.ndarray, "prompts group"]]
    verdicts: tuple[Verdict, ...]


def reward(
    terms: Sequence[tuple[str, float]],
    verdicts: Sequence[Verdict],
    trajectories: Sequence[Trajectory],
    group_size: int,
) -> Rewards:
    """The reward of each sample, `group_size` of them for each prompt, one prompt after the other.

    Raises:
      ConfigError: a term is neither in `TERMS` nor a part that any of the verdicts has, or is named twice.
    """
    for name, _ in terms:
        if [other for other, _ in terms].count(name) > 1:
            raise ConfigError(f"config.reward names the term {name!r} twice")
    parts = sorted({name for verdict in verdicts for name in verdict.parts})
    if all(verdict.error for verdict in verdicts):
        parts = [name for name, _ in terms]  # without a judgement nobody knows them
    functions = {name: (term_of(name, parts), weight) for name, weight in terms}
    raw = np.zeros((len(verdicts), len(terms)), np.float32)
    found = []
    for i, (verdict, trajectory) in enumerate(zip(verdicts, trajectories, strict=True)):
        if verdict.error is None:
            raw[i], error = _terms(functions, verdict, trajectory)
            verdict = replace(verdict, score=0.0, error=error) if error else verdict
        found.append(verdict)
    grouped = raw.reshape(-1, group_size, len(terms))
    judged = np.array([verdict.error is None for verdict in found]).reshape(-1, group_size)
    values = {name: grouped[..., i] for i, name in enumerate(functions)}
    return Rewards(sum(values.values()), judged, values, tuple(found))


def _terms(
    functions: Mapping[str, tuple[Term, float]], verdict: Verdict, trajectory: Trajectory
) -> tuple[list[float], str]:
    """The weighted terms of one sample, and why it has no reward, if so: then all of them are 0."""
    values, nothing = [], [0.0] * len(functions)
    for name, (term, weight) in functions.items():
        try:
            value = float(term(verdict, trajectory))
        except Exception as error:
            return nothing, f"the reward term {name!r} raised {type(error).__name__}: {error}"
        values.append(weight * value)
        if not abs(sum(values)) <= _LARGEST:  # catches nan, too
            return nothing, f"the reward is not finite: the term {name!r} is {value:g}, its weight {weight:g}"
    return values, ""
