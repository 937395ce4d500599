"""Accuracy of a policy on held-out problems."""

from rlvr_jax.evaluation.estimators import mean_and_interval, pass_at_k
from rlvr_jax.evaluation.evaluate import evaluate

__all__ = ["evaluate", "mean_and_interval", "pass_at_k"]
