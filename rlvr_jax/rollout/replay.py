"""A bounded buffer of earlier groups, to train on again.

Groups are kept whole, since advantages compare the samples of a group, and with the log-probs of the policy that
sampled them, so that importance ratios are relative to that policy.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from rlvr_jax.rollout.episode import Group
from rlvr_jax.tasks.mixture import Place
from rlvr_jax.tasks.task import draw

Order = Literal["newest", "deviation"]


@dataclass(frozen=True)
class Outcome:
    """A group with its rewards.

    Attributes:
      place: of its problem.
      group: its episodes.
      rewards, judged: of the episodes; 0 where there is none.
      step: that it was trained on first.
    """

    place: Place
    group: Group
    rewards: Float[np.ndarray, "episodes"]
    judged: Bool[np.ndarray, "episodes"]
    step: int

    @property
    def deviation(self) -> float:
        """Standard deviation of the judged rewards, of which those of a group with a larger one have larger
        advantages; exactly 0 if they are equal."""
        values = self.rewards[self.judged].astype(np.float64)
        return float(np.std(values)) if values.size and values.min() < values.max() else 0.0

    @property
    def right(self) -> int:
        """Number of episodes with score 1."""
        return sum(x.error is None and x.score == 1 for x in self.group.verdicts)


def stored(buffer: Sequence[Outcome], new: Sequence[Outcome], size: int, order: Order) -> tuple[Outcome, ...]:
    """The buffer, oldest first, with further groups, and without the first to go of more than `size`.

    "newest" takes groups with a right sample, and drops the oldest. "deviation" takes groups whose rewards differ, and
    drops those of the smallest deviation, of equal ones the oldest.
    """
    if order == "newest":
        return (*buffer, *(x for x in new if x.right))[-size:]
    found = [*buffer, *(x for x in new if x.deviation > 0)]
    kept = sorted(range(len(found)), key=lambda i: (found[i].deviation, i))[-size:]
    return tuple(found[i] for i in sorted(kept))


def drawn(buffer: Sequence[Outcome], count: int, seed: int, step: int) -> list[Outcome]:
    """`count` different groups of the buffer, or all if there are fewer, drawn by (seed, step), oldest first."""
    order = sorted(range(len(buffer)), key=lambda i: draw("replay", seed, step, i))
    return [buffer[i] for i in sorted(order[:count])]
