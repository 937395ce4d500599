"""The responses of an evaluation, problem by problem: rows of a JSON Lines file, and what is computed from several.

A row has `task`, `id`, `problem`, `reference`, `gold`; of the greedy response `response`, `answer`, `score`, `error`,
`length` (tokens) and `scores` (of judges, by name); and `samples`, each with `answer`, `score`, `error` and `length`.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr_jax import own_code
from rlvr_jax.errors import ConfigError
from rlvr_jax.evaluation.evaluate import Evaluation, Problem
from rlvr_jax.own_code import Code
from rlvr_jax.rollout.episode import Episode
from rlvr_jax.verifiers.verdict import Verdict

_NEEDED = {"task": str, "id": str, "response": str, "length": int, "samples": list, "score": (int, float)}


@dataclass(frozen=True)
class Results:
    """An evaluation of a policy that was read.

    Attributes:
      name: of the policy.
      rows: by problem.
      code: checksums of the user's functions that judged it.
    """

    name: str
    rows: Mapping[Problem, Mapping[str, Any]]
    code: Code


def rows_of(found: Evaluation) -> list[dict[str, Any]]:
    """The rows of an evaluation, in the order of its problems."""
    sampled = {(group.example.task, group.example.id): group for group in found.sampled}
    judged = {name.removeprefix("judge/"): of for name, of in found.values.items() if name.startswith("judge/")}
    rows = []
    for group in found.greedy:
        example, (episode,), (verdict,) = group.example, group.episodes, group.verdicts
        place = (example.task, example.id)
        more = sampled.get(place)
        members = zip(more.episodes, more.verdicts, strict=True) if more else ()
        rows.append(
            {
                "task": example.task,
                "id": example.id,
                "problem": example.problem or example.prompt,
                "reference": example.reference,
                "gold": example.gold,
                "response": episode.judged,
                **_told(episode, verdict),
                "scores": {name: of[place] for name, of in judged.items() if place in of},
                "samples": [_told(*member) for member in members],
            }
        )
    return rows


def _told(episode: Episode, verdict: Verdict) -> dict[str, Any]:
    return {"answer": verdict.answer, "score": verdict.score, "error": verdict.error, "length": episode.length}


def files_of(sources: Sequence[str]) -> list[Path]:
    """The files of those of some sources, see `read_results`, that are no workdirs."""
    named = [Path(source.rpartition("=")[2]).expanduser() for source in sources]
    return [file for path in named if not path.is_dir() for file in (path, path.with_suffix(".jsonl"))]


def read_results(source: str, suite: str = "") -> Results:
    """The results of NAME=PATH, or of a path: the workdir of a run, or the JSON or JSON Lines file of an evaluation.

    Args:
      source: as above.
      suite: name of the suite, for a workdir; empty for the run's own tasks.

    Raises:
      ConfigError: there are none; says which file is missing or which line is wrong.
    """
    name, equals, path = source.rpartition("=")
    folder = Path(path).expanduser()
    file = folder / (f"evaluation_{suite}.jsonl" if suite else "evaluation.jsonl") if folder.is_dir() else folder
    file = file.with_suffix(".jsonl")
    if not file.is_file():
        made = f"rlvr evaluate --workdir={path}" if folder.is_dir() else f"rlvr evaluate --output={path}"
        made += f" --suite={suite}" if suite else ""
        raise ConfigError(f"{source}: there is no file {file}; `{made}` writes it")
    rows: dict[Problem, Mapping[str, Any]] = {}
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        try:
            row = json.loads(line)
            if wrong := [key for key, kind in _NEEDED.items() if not isinstance(row[key], kind)]:
                raise ValueError(f"{wrong[0]} = {row[wrong[0]]!r:.50}")
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{file}, line {number}: no row of an evaluation: {error!r}") from error
        rows[row["task"], row["id"]] = row
    if not rows:
        raise ConfigError(f"{file} is empty")
    name = name if equals else folder.name if folder.is_dir() else folder.stem
    return Results(name, rows, own_code.recorded(file.with_suffix(".json")))


def notes(results: Sequence[Results]) -> list[str]:
    """The user's files that differ between evaluations whose verdicts are compared, a line for each."""
    edits = own_code.versions({x.name: x.code for x in results})
    return [f"note: the verdicts are of different code: {line}" for line in edits]


def in_common(results: Sequence[Results]) -> list[Problem]:
    """The problems that all have, in the order of the first. Raises ConfigError if there are none, or names repeat."""
    names = [x.name for x in results]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise ConfigError(
            f"two policies have the name {repeated[0]!r}; name them, as in --policies=first=runs/a,second=runs/b"
        )
    common = [x for x in results[0].rows if all(x in other.rows for other in results[1:])]
    if not common:
        raise ConfigError(f"{', '.join(names)} have no problem in common: evaluate them on the same suite")
    return common
