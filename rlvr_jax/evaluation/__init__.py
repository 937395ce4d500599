"""Accuracy of a policy on problems it was not trained on."""

from rlvr_jax.evaluation.estimators import mean_and_interval, pass_at_k
from rlvr_jax.evaluation.evaluate import evaluate

__all__ = ["evaluate", "mean_and_interval", "pass_at_k"]
