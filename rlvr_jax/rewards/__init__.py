"""From verdicts to rewards."""

from rlvr_jax.rewards.reward import TERMS, reward, term_of

__all__ = ["TERMS", "reward", "term_of"]
