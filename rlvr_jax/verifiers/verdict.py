"""The record that every verifier returns."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Verdict:
    """A verifier's judgement of one completion.

    Attributes:
      score: in [0, 1]; 1 is correct.
      parts: named partial results for rewards and reports, e.g. `{"format": 1.0}`.
      answer: the answer extracted from the completion, or None.
      reason: one short sentence for human readers.
      error: None, or why no judgement was possible (the verifier raised, hung or died); then the score is 0.
    """

    score: float
    parts: Mapping[str, float] = field(default_factory=dict)
    answer: str | None = None
    reason: str = ""
    error: str | None = None
