"""On-policy distillation: the divergence of the policy from a teacher, at the tokens that the policy sampled.

The teacher is another policy with the same vocabulary, `config.teacher`, and is not trained. What is sampled is the
policy's own, so that it learns from the teacher where it goes itself; with `algorithm.demonstrations` a fixed share of
each group is the task's demonstrations instead (GKD's mixture).

Source: Agarwal et al. 2023 (GKD, arXiv:2306.13649), eq. 1 and 4.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from rlvr_jax.learner import aggregation
from rlvr_jax.learner.aggregation import AGGREGATIONS
from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.batch import Batch
from rlvr_jax.learner.losses import Actions, Loss, Sums
from rlvr_jax.learner.scores import hidden_states
from rlvr_jax.policy import Params, PolicyConfig, divergence_and_logprobs


def distillation(
    config: PolicyConfig, teacher: PolicyConfig | None, algorithm: AlgorithmConfig, temperature: float, max_length: int
) -> Loss:
    """The loss "distillation"; it trains "policy" and reads "teacher". Rewards have no part in it.

    Args:
      config, teacher: the architectures of both.
      algorithm: with `distillation_beta`, and `aggregation` for the weights of tokens.
      temperature: both policies are softmax(logits / temperature).
      max_length: the response budget, in tokens.
    """

    def sums(params: Mapping[str, Params], batch: Batch) -> Sums:
        frozen = jax.lax.stop_gradient(params["teacher"])
        arguments = config, params["policy"], hidden_states(config, params["policy"], batch)
        others = teacher, frozen, hidden_states(teacher, frozen, batch)
        actions = batch.tokens[:, -batch.action_mask.shape[1] :]
        found = divergence_and_logprobs(*arguments, *others, actions, temperature, algorithm.distillation_beta)
        return distillation_loss(algorithm, max_length, *found, batch)

    needs = ("behaviour", *aggregation.NEEDS.get(algorithm.aggregation, ()))
    return Loss(sums, needs, frozen=("teacher",))


def distillation_loss(
    algorithm: AlgorithmConfig,
    max_length: int,
    divergence: Actions,
    logprobs: Actions,
    teacher_logprobs: Actions,
    entropy: Actions,
    batch: Batch,
) -> Sums:
    """The weighted sum of the divergences of actions.

    Args:
      algorithm: the choices.
      max_length: the response budget, in tokens.
      divergence: from the teacher, at each action (nats).
      logprobs, teacher_logprobs: of the actions.
      entropy: of the policy.
      batch: with the column "behaviour".
    """
    mask = batch.action_mask
    masked = lambda x: jnp.where(mask > 0, x, 0.0)  # noqa: E731
    weights, divisor = AGGREGATIONS[algorithm.aggregation](algorithm, batch, max_length)
    loss = masked(divergence)
    loss = jnp.sum(loss if weights is None else weights * loss)
    count, total = jnp.sum(mask), lambda x: jnp.sum(masked(x), dtype=jnp.float32)
    means = {
        "train/loss": (loss, divisor),
        "train/entropy": (total(entropy), count),
        "train/teacher_divergence": (total(divergence), count),
        "train/teacher_kl": (total(logprobs - teacher_logprobs), count),
    }
    gap = jnp.max(masked(jnp.abs(logprobs - batch.columns["behaviour"])))
    return Sums(loss, divisor, means, {"train/logprob_gap": gap})
