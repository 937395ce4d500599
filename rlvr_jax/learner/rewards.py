"""Rewards: a weighted sum of named terms, chosen in the config.

A term is one of `TERMS`; `format/` and the name of a check in `rlvr_jax.verifiers.format`, optionally with arguments in
parentheses; the name of one of the verifier's parts, such as a reward model; one of `ENSEMBLES` of several parts, as
`min(rm_1, rm_2)`; or a function, as `module:function` or `file.py:function`. A
function of (verdict, episode) returns a number; one of a single argument, the `Group`, returns a number for each of its
episodes, for relative rewards. Each term is logged under its name:

    config.reward = (("score", 1.0), ("format/repetition(n=4)", -0.5), ("uses_numbers", 0.1), ("mine:brevity", 0.2))
"""

import ast
import inspect
import itertools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from rlvr_jax import named
from rlvr_jax.errors import ConfigError
from rlvr_jax.parallel import Processes
from rlvr_jax.rollout.episode import Episode, Group, flattened
from rlvr_jax.time_limit import time_limits
from rlvr_jax.verifiers import format as form
from rlvr_jax.verifiers.verdict import Verdict

Term = Callable[[Verdict, Episode], float] | Callable[[Group], Sequence[float]]

TERMS: Mapping[str, Term] = {
    "score": lambda verdict, _: verdict.score,  # of the verifier, in [0, 1]
    "truncated": lambda _, episode: float(episode.cut_off),  # ended by a limit of tokens or turns
    "length": lambda _, episode: float(episode.length),  # tokens that the policy sampled
    "turns": lambda _, episode: float(len(episode.turns)),
}


def term_names(parts: Iterable[str] = ()) -> list[str]:
    """The names of terms, with those of verdicts that have these parts, but for functions."""
    ensembles = (f"{kind}(…, …)" for kind in ENSEMBLES)
    return [*TERMS, *(f"format/{check}" for check in form.CHECKS), *sorted(parts), *ensembles]


def _mean_minus_std(scores: Float[np.ndarray, "parts"], coef: int | float = 1.0) -> float:
    return float(np.mean(scores) - coef * np.std(scores))


def _mean_minus_variance(scores: Float[np.ndarray, "parts"], coef: int | float = 1.0) -> float:
    return float(np.mean(scores) - coef * np.var(scores))


# Of several scores of an episode, such as those of reward models that were trained from different seeds. Coste et al.
# 2023 (arXiv:2310.02743), section 3: "mean", "min" (worst-case optimisation), and "mean_minus_variance" (uncertainty-
# weighted optimisation), the variance being that of the members (divisor n). "mean_minus_std" has the unit of a score.
ENSEMBLES: Mapping[str, Callable[..., float]] = {
    "mean": lambda scores: float(np.mean(scores)),
    "min": lambda scores: float(np.min(scores)),
    "mean_minus_std": _mean_minus_std,
    "mean_minus_variance": _mean_minus_variance,
}

_LARGEST = float(np.finfo(np.float32).max)
_FORMAT = re.compile(r"format/(\w+)(?:\((.*)\))?", re.DOTALL)
_ENSEMBLE = re.compile(rf"({'|'.join(ENSEMBLES)})\((.*)\)", re.DOTALL)


def _arguments(text: str) -> dict[str, Any]:
    """`n=4, unit='words'` as a dictionary of plain values. Raises ValueError for anything else."""
    try:
        call = ast.parse(f"f({text})", mode="eval").body
    except SyntaxError as error:
        raise ValueError(error.msg) from None
    if not isinstance(call, ast.Call) or call.args or any(word.arg is None for word in call.keywords):
        raise ValueError("arguments are given by name")
    return {word.arg: ast.literal_eval(word.value) for word in call.keywords}


def _ensemble(name: str, kind: str, inside: str, parts: Sequence[str]) -> Term:
    """The term of an ensemble: the names of its members, and arguments as `coef=0.5`."""
    given = [text.strip() for text in inside.split(",") if text.strip()]
    members = [text for text in given if "=" not in text]
    try:
        combined = partial(ENSEMBLES[kind], **_arguments(", ".join(text for text in given if "=" in text)))
        combined(np.zeros(2))  # checks its arguments
    except (TypeError, ValueError) as error:
        raise ConfigError(f"config.reward: {name!r}: {error}") from None
    if len(set(members)) < 2 or len(set(members)) < len(members):
        raise ConfigError(f"config.reward: {name!r} needs the names of at least two different members")
    known = ("score", *sorted(parts))
    if unknown := [member for member in members if member not in known]:
        raise ConfigError(f"config.reward: {name!r}: there is no {', '.join(unknown)}; there are: {', '.join(known)}")
    return lambda verdict, _: combined(
        np.array([verdict.score if x == "score" else verdict.parts.get(x, 0.0) for x in members])
    )


def _format_check(check: Callable[..., float], _: Verdict, episode: Episode) -> float:
    return check(episode.response)


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
    if match := _ENSEMBLE.fullmatch(name):
        return _ensemble(name, match[1], match[2], parts)
    match = _FORMAT.fullmatch(name)
    if match is None and named.is_name(name):
        try:
            named.check_arguments(name, *(["group"] if _takes_a_group(named.load(name)) else ["verdict", "episode"]))
        except ValueError as error:
            raise ConfigError(f"config.reward: {error}") from None
        return named.load(name)
    if match is None or match[1] not in form.CHECKS:
        known = ", ".join([*term_names(parts), "module:function"])
        raise ConfigError(f"config.reward: there is no term {name!r}; there are: {known}")
    check = form.CHECKS[match[1]]
    try:
        check = partial(check, **_arguments(match[2] or ""))
        check("")  # checks its arguments
    except (TypeError, ValueError) as error:
        _, *takes = inspect.signature(form.CHECKS[match[1]]).parameters.values()
        raise ConfigError(f"config.reward: {name!r}: {error}; its arguments are {', '.join(map(str, takes))}") from None
    return partial(_format_check, check)


def _takes_a_group(term: Term) -> bool:
    try:
        return len(inspect.signature(term).parameters) == 1
    except (TypeError, ValueError):  # some built-in functions have no signature
        return False


@dataclass(frozen=True)
class Rewards:
    """The rewards of the episodes of a step, one group after the other.

    An episode is judged if its verdict has no error and all terms of its reward are finite. The others have no reward;
    their 0 is a placeholder.

    Attributes:
      values: the reward of each episode.
      judged: whether it has one.
      terms: the weighted terms of the rewards, by name; 0 where there is no reward.
      group: the index of each episode's group.
      verdicts: of all episodes, in order, with an `error` for non-finite rewards.
    """

    values: Float[np.ndarray, "episodes"]
    judged: Bool[np.ndarray, "episodes"]
    terms: Mapping[str, Float[np.ndarray, "episodes"]]
    group: Int[np.ndarray, "episodes"]
    verdicts: tuple[Verdict, ...]


def reward(
    terms: Sequence[tuple[str, float]],
    groups: Sequence[Group],
    parts: Sequence[str] = (),
    seconds: float | None = None,
    processes: Processes | None = None,
) -> Rewards:
    """The reward of each episode: the sum of its terms, each times its weight.

    Args:
      terms: as in `config.reward`.
      groups: the episodes.
      parts: names of parts that a verdict may have, beside those that the verdicts of these groups have: a step may be
        without any problem of a task.
      seconds: maximum time of one call of a function of the user's own, after which its episodes are unjudged; None
        for no limit.
      processes: of the run, which all call this with the same groups; each calls the terms for its own share of them.

    Raises:
      ConfigError: a term is neither in `TERMS` nor a part that any of the verdicts has, or is named twice.
    """
    for name, _ in terms:
        if [other for other, _ in terms].count(name) > 1:
            raise ConfigError(f"config.reward names the term {name!r} twice")
    _, verdicts, index = flattened(groups)
    parts = sorted({*parts, *(name for verdict in verdicts for name in verdict.parts)})
    if all(verdict.error for verdict in verdicts):
        parts = [name for name, _ in terms]  # without a judgement they are unknown
    functions = {}
    for name, weight in terms:
        term = term_of(name, parts)
        functions[name] = term, _takes_a_group(term), weight
    processes = processes or Processes()
    with time_limits(seconds) as limited:
        own = {
            i: [_values(name, *function, groups[i], limited) for name, function in functions.items()]
            for i in range(processes.index, len(groups), processes.count)
        }
    columns = processes.merged(own)
    rows, found = [], []
    for number, group in enumerate(groups):
        for i, verdict in enumerate(group.verdicts):
            row = [column[i] for column in columns[number]]
            error = verdict.error or next((x for x in row if isinstance(x, str)), None)
            if error is None and not abs(sum(row)) <= _LARGEST:
                error = "the reward is not finite: the sum of " + ", ".join(f"{x:g}" for x in row)
            rows.append(row if error is None else [0.0] * len(row))
            found.append(verdict if error == verdict.error else replace(verdict, score=0.0, error=error))
    raw = np.array(rows, np.float32).reshape(len(found), len(terms))
    values = {name: raw[:, i] for i, name in enumerate(functions)}
    judged = np.array([verdict.error is None for verdict in found], bool)
    return Rewards(sum(values.values()), judged, values, index, tuple(found))


def joined(parts: Sequence[Rewards]) -> Rewards:
    """The rewards of several batches of groups, one after the other, by the same terms."""
    first = np.cumsum([0, *(part.group.max(initial=-1) + 1 for part in parts)])
    return Rewards(
        np.concatenate([part.values for part in parts]),
        np.concatenate([part.judged for part in parts]),
        {name: np.concatenate([part.terms[name] for part in parts]) for name in parts[0].terms},
        np.concatenate([part.group + before for part, before in zip(parts, first, strict=False)]).astype(np.int32),
        tuple(verdict for part in parts for verdict in part.verdicts),
    )


def of_groups(rewards: Rewards, groups: Int[np.ndarray, "groups"]) -> Rewards:
    """The rewards of some of the groups, given by ascending indices."""
    chosen = np.flatnonzero(np.isin(rewards.group, groups))
    return Rewards(
        rewards.values[chosen],
        rewards.judged[chosen],
        {name: term[chosen] for name, term in rewards.terms.items()},
        np.searchsorted(groups, rewards.group[chosen]).astype(np.int32),
        tuple(rewards.verdicts[i] for i in chosen),
    )


def without_groups(rewards: Rewards, errors: Mapping[int, str]) -> Rewards:
    """The rewards with the samples of some groups, by index, unjudged for the reasons in `errors`."""
    if not errors:
        return rewards
    judged = rewards.judged & ~np.isin(rewards.group, list(errors))
    verdicts = tuple(
        x if x.error or g not in errors else replace(x, score=0.0, error=errors[g])
        for x, g in zip(rewards.verdicts, rewards.group.tolist(), strict=True)
    )
    terms = {name: np.where(judged, term, 0).astype(np.float32) for name, term in rewards.terms.items()}
    return Rewards(np.where(judged, rewards.values, 0).astype(np.float32), judged, terms, rewards.group, verdicts)


def _values(
    name: str, term: Term, of_group: bool, weight: float, group: Group, limited: Callable[..., Any]
) -> list[float | str]:
    """The weighted term of each episode, or the error that prevented it; unjudged episodes get 0."""
    pairs = list(zip(group.verdicts, group.episodes, strict=True))
    if not of_group:
        # Those of this module take no time.
        call = _unlimited if getattr(term, "__module__", None) == __name__ else limited
        return [0.0 if pair[0].error else _number(name, weight, call, term, *pair) for pair in pairs]
    try:
        found = limited(_listed, term, group)
        if len(found) != len(pairs):
            more = "more numbers than" if len(found) > len(pairs) else f"{len(found)} numbers for"
            raise ValueError(f"it gave {more} {len(pairs)} episodes")
    except (Exception, SystemExit) as error:
        return [f"the reward term {name!r} raised {named.placed(error)}"] * len(pairs)
    return [_number(name, weight, lambda x: x, value) for value in found]


def _unlimited(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


def _listed(term: Term, group: Group) -> list[Any]:
    found = term(group)
    if not isinstance(found, Iterable):
        raise TypeError(f"a term of one argument gets a group and gives a number for each episode, not {found!r:.50}")
    return list(itertools.islice(found, len(group.episodes) + 1))  # it may have no end


def _number(name: str, weight: float, function: Callable[..., Any], *arguments: Any) -> float | str:
    try:
        value = float(function(*arguments))
    except (Exception, SystemExit) as error:
        return f"the reward term {name!r} raised {named.placed(error)}"
    if not abs(weight * value) <= _LARGEST:  # catches nan, too
        return f"the reward is not finite: the term {name!r} is {value:g}, its weight {weight:g}"
    return weight * value
