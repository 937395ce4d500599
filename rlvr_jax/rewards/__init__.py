"""From verdicts to rewards."""

from rlvr_jax.rewards.reward import TERMS, reward

__all__ = ["TERMS", "reward"]
