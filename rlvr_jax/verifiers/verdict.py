"""The record that every verifier returns."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MOST_PARTS = 256  # of a verdict: each is a metric, with a curve
_LONGEST_NAME = 100  # characters


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


def names_a_part(name: Any) -> bool:
    """True for what can name a part, and with it a metric: a short text that can be printed."""
    return isinstance(name, str) and 0 < len(name) <= _LONGEST_NAME and name.isprintable()
