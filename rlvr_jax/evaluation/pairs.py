"""Preference pairs from scored responses of several policies: the best against the worst, or a random other one."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from rlvr_jax.tasks.task import draw

Against = Literal["worst", "random"]
UNJUDGED, ONE, TIE, EMPTY, LEAKED = "unjudged", "too few responses", "ties", "empty responses", "leaked"


@dataclass(frozen=True)
class Response:
    """A response of a policy, with its score; None if it could not be judged."""

    policy: str
    text: str
    score: float | None
    length: int = 0


@dataclass(frozen=True)
class Asked:
    """A problem and the responses to it."""

    id: str
    prompt: Any
    responses: tuple[Response, ...]
    leaks: bool = False


@dataclass(frozen=True)
class Made:
    """Pairs that were made.

    Attributes:
      rows: as `rlvr prefer` reads them.
      left_out: problems without a pair, by reason, and single responses that were unjudged or empty.
      sources: by policy: responses, their mean score and length, and how often it was chosen and rejected.
    """

    rows: list[dict[str, Any]]
    left_out: Mapping[str, int]
    sources: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


def binarised(problems: Sequence[Asked], against: Against = "worst", seed: int = 0) -> Made:
    """A pair for each problem, whose margin is the difference of the scores.

    The chosen response is one of the best score, the rejected one of the worst or any of a lower score, each drawn by a
    hash of seed and problem. Problems whose responses all score the same are ties, and make no pair.

    Source: Cui et al. 2023 (UltraFeedback, arXiv:2310.01377) as binarised by Lambert et al. 2024 (Tulu 3,
    arXiv:2411.15124), section 5.2: the best against a random one of the rest.
    """
    rows, left_out = [], Counter({UNJUDGED: 0, EMPTY: 0, ONE: 0, TIE: 0, LEAKED: 0})
    chosen_of, rejected_of = Counter(), Counter()
    for problem in problems:
        if problem.leaks:
            left_out[LEAKED] += 1
            continue
        left_out[UNJUDGED] += sum(x.score is None for x in problem.responses)
        judged = [x for x in problem.responses if x.score is not None]
        left_out[EMPTY] += sum(not x.text.strip() for x in judged)
        judged = [x for x in judged if x.text.strip()]
        if len(judged) < 2:
            left_out[ONE] += 1
            continue
        best, worst = max(x.score for x in judged), min(x.score for x in judged)
        if best == worst:
            left_out[TIE] += 1
            continue
        rest = [x for x in judged if x.score < best and (against == "random" or x.score == worst)]
        chosen = _drawn([x for x in judged if x.score == best], "chosen", seed, problem.id)
        rejected = _drawn(rest, "rejected", seed, problem.id)
        chosen_of[chosen.policy] += 1
        rejected_of[rejected.policy] += 1
        rows.append(
            {
                "prompt": problem.prompt,
                "chosen": chosen.text,
                "rejected": rejected.text,
                "margin": chosen.score - rejected.score,
                "id": problem.id,
                "policies": {"chosen": chosen.policy, "rejected": rejected.policy},
                "scores": {"chosen": chosen.score, "rejected": rejected.score},
            }
        )
    responses = [x for problem in problems if not problem.leaks for x in problem.responses]
    sources = {
        policy: _told([x for x in responses if x.policy == policy], chosen_of[policy], rejected_of[policy])
        for policy in dict.fromkeys(x.policy for x in responses)
    }
    return Made(rows, dict(left_out), sources)


def _drawn(responses: Sequence[Response], *path: str | int) -> Response:
    return responses[draw("pairs", *path) % len(responses)]


def _told(responses: Sequence[Response], chosen: int, rejected: int) -> dict[str, float]:
    scores = [x.score for x in responses if x.score is not None]
    return {
        "responses": float(len(responses)),
        "unjudged": float(len(responses) - len(scores)),
        "score": float(np.mean(scores)) if scores else float("nan"),
        "length": float(np.mean([x.length for x in responses])),
        "chosen": float(chosen),
        "rejected": float(rejected),
    }
