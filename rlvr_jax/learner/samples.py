"""The samples of a step as flat arrays, from which advantages are computed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from numpy.typing import ArrayLike

from rlvr_jax.learner.rewards import Rewards
from rlvr_jax.rollout.episode import Group, flattened


@dataclass(frozen=True)
class Samples:
    """The samples of a step, groups of any size in any order.

    Attributes:
      rewards: float64; 0 where there is none.
      groups: the index of each sample's group, from 0; every index up to the largest occurs. The samples of a problem
        are one group, or with roles one for each.
      judged: False for samples without a reward.
      lengths: tokens that the policy sampled.
      cut_off: whether a limit of tokens or turns ended the sample.
      domains: the index of each sample's task, from 0.
      budget: maximum tokens of a response.
      expected: for each sample the reward that its problem leads to expect, that of the greedy response to its prompt,
        or the tracked one; None if there is none.
    """

    rewards: Float[np.ndarray, "samples"]
    groups: Int[np.ndarray, "samples"]
    judged: Bool[np.ndarray, "samples"]
    lengths: Int[np.ndarray, "samples"]
    cut_off: Bool[np.ndarray, "samples"]
    domains: Int[np.ndarray, "samples"]
    budget: int
    expected: Float[np.ndarray, "samples"] | None = None

    def with_rewards(self, rewards: Float[np.ndarray, "samples"]) -> "Samples":
        """The samples with other rewards; 0 for unjudged ones."""
        return replace(self, rewards=np.where(self.judged, rewards, 0.0))

    def sums(
        self, values: Shaped[np.ndarray, "samples"], of: Int[np.ndarray, "samples"] | None = None
    ) -> Float[np.ndarray, "samples"]:
        """For each sample the sum of the values of the judged samples of its group, or of those with its index in `of`.

        Sums of equal float32 numbers are exact, since they are added in float64.
        """
        of = self.groups if of is None else of
        return np.bincount(of, np.where(self.judged, values, 0.0))[of] if len(of) else np.zeros(0)

    def means(
        self, values: Shaped[np.ndarray, "samples"], of: Int[np.ndarray, "samples"] | None = None
    ) -> Float[np.ndarray, "samples"]:
        """`sums` over the number of judged samples; 0 without any."""
        return self.sums(values, of) / np.maximum(self.sums(np.ones(len(values)), of), 1)


def make_samples(
    rewards: ArrayLike,
    groups: ArrayLike,
    judged: ArrayLike | None = None,
    lengths: ArrayLike | None = None,
    cut_off: ArrayLike | None = None,
    domains: ArrayLike | None = None,
    budget: int = 0,
) -> Samples:
    """Samples from arrays [samples] of any type, and any indices of groups.

    By default all are judged, have one token, ended by themselves and belong to one task.
    """
    of = lambda x, default: np.full(np.shape(rewards), default) if x is None else np.asarray(x)  # noqa: E731
    group = np.unique(np.asarray(groups), return_inverse=True)[1]
    # Float32 first: rewards that a float32 file shows as equal have no advantage over each other.
    values = np.asarray(rewards, np.float32).astype(np.float64)
    arrays = of(lengths, 1), of(cut_off, False), of(domains, 0)
    samples = Samples(values, group, of(judged, True).astype(bool), *arrays, budget)
    return samples.with_rewards(values)


def samples_of(
    groups: Sequence[Group], rewards: Rewards, budget: int, expected: Float[np.ndarray, "samples"] | None = None
) -> Samples:
    """The samples of a step, in the order of `flattened`."""
    episodes, _, _ = flattened(groups)
    roles = _indices([episode.role for episode in episodes])
    samples = make_samples(
        rewards.values,
        rewards.group * (roles.max(initial=0) + 1) + roles,
        rewards.judged,
        np.array([episode.length for episode in episodes], int),
        np.array([episode.cut_off for episode in episodes], bool),
        _indices([episode.example.task for episode in episodes]),
        budget,
    )
    return samples if expected is None else replace(samples, expected=expected.astype(np.float64))


def _indices(names: Sequence[str]) -> Int[np.ndarray, "samples"]:
    """The index of each name among the different ones."""
    places = {name: i for i, name in enumerate(sorted(set(names)))}
    return np.array([places[name] for name in names], int)
