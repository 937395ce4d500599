"""Reward design as data: a weighted sum of named terms, chosen in the config.

A term is either one of `TERMS` or the name of one of the verifier's parts. Each is logged under its own name.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from rlvr_jax.errors import ConfigError
from rlvr_jax.rollout.trajectory import Trajectory
from rlvr_jax.verifiers.verdict import Verdict

TERMS: Mapping[str, Callable[[Verdict, Trajectory], float]] = {
    "score": lambda verdict, _: verdict.score,  # what the verifier says, in [0, 1]
    "truncated": lambda _, trajectory: float(trajectory.finish_reason == "length"),  # ran out of its budget
    "length": lambda _, trajectory: float(len(trajectory.tokens)),  # tokens
}


def reward(
    terms: Sequence[tuple[str, float]], verdicts: Sequence[Verdict], trajectories: Sequence[Trajectory]
) -> tuple[Float[np.ndarray, "samples"], dict[str, Float[np.ndarray, "samples"]]]:
    """The reward of each sample, and its weighted terms by name.

    A sample that could not be judged (its verdict has an error) gets reward 0 whatever the terms say.

    Raises:
      ConfigError: a term is neither in `TERMS` nor a part that any of the verdicts has, or is named twice.
    """
    judged = np.array([verdict.error is None for verdict in verdicts], np.float32)
    parts = {name for verdict in verdicts for name in verdict.parts}
    values = {}
    for name, weight in terms:
        if name in values:
            raise ConfigError(f"config.reward names the term {name!r} twice")
        if name not in TERMS and name not in parts and judged.any():
            known = ", ".join([*TERMS, *sorted(parts)])
            raise ConfigError(f"config.reward: there is no term {name!r}; here are: {known}")
        term = TERMS.get(name, lambda verdict, _, name=name: verdict.parts.get(name, 0.0))
        raw = [term(verdict, trajectory) for verdict, trajectory in zip(verdicts, trajectories, strict=True)]
        values[name] = weight * judged * np.array(raw, np.float32)
    return sum(values.values()), values
