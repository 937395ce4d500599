"""Accuracy of a policy on held-out problems."""

from rlvr_jax.evaluation.estimators import majority_at_k, mean_and_interval, paired_difference, pass_at_k
from rlvr_jax.evaluation.evaluate import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate", "majority_at_k", "mean_and_interval", "paired_difference", "pass_at_k"]
