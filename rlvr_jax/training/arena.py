"""The battles of an arena: evaluated policies compared on their greedy responses, by the verifier or by a judge."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlvr_jax.evaluation.arena import Battles, battles_of
from rlvr_jax.evaluation.results import Results, in_common
from rlvr_jax.judges.judge import Pair, make_comparer
from rlvr_jax.training.judging import make_ask
from rlvr_jax.verifiers.judge import JudgeConfig


def fought(results: Sequence[Results], judge: tuple[str, JudgeConfig, Path | None] | None) -> tuple[Battles, int]:
    """The battles of all pairs of policies on the problems that all have, and the number of those left out.

    By the verifier the response of the higher score wins. A judge's preference is the mean over both orders; equal
    responses are ties, and it is not asked about them.

    Args:
      results: of the policies.
      judge: its name, config, and the folder of its record; None for the verifier.

    Raises:
      ConfigError: the policies have no problem in common, or the judge can't be asked.
    """
    problems = in_common(results)
    rows = [[x.rows[problem] for x in results] for problem in problems]
    pairs = [(i, j, p) for p in range(len(problems)) for i, j in itertools.combinations(range(len(results)), 2)]
    if judge is None:
        outcomes = [_by_score(rows[p][i], rows[p][j]) for i, j, p in pairs]
    else:
        name, config, folder = judge
        compare = make_comparer(config, make_ask(name, config, folder))
        different = [(i, j, p) for i, j, p in pairs if rows[p][i]["response"] != rows[p][j]["response"]]
        found = compare([_pair(rows[p][i], rows[p][j]) for i, j, p in different]).mean(axis=1)
        known = dict(zip(different, found.tolist(), strict=True))
        outcomes = [known.get(x, 0.5) for x in pairs]
    lengths = np.array([[row["length"] for row in of] for of in rows])
    judged = [(*x, y) for x, y in zip(pairs, outcomes, strict=True) if np.isfinite(y)]
    return battles_of([x.name for x in results], judged, lengths), len(pairs) - len(judged)


def _by_score(first: Mapping[str, Any], second: Mapping[str, Any]) -> float:
    if first["error"] or second["error"]:
        return float("nan")
    return 0.5 + 0.5 * float(np.sign(first["score"] - second["score"]))


def _pair(first: Mapping[str, Any], second: Mapping[str, Any]) -> Pair:
    return Pair(first["problem"], first["response"], second["response"], first.get("gold") or first.get("reference"))
