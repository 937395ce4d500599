"""From verdicts to rewards."""

from rlvr_jax.rewards.reward import TERMS, Rewards, reward, term_of

__all__ = ["TERMS", "Rewards", "reward", "term_of"]
