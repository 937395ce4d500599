"""The critic: a network of its own, which learns the return of each action."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import jax.numpy as jnp
from jaxtyping import Array, Float

from rlvr_jax import policy
from rlvr_jax.learner.batch import Batch
from rlvr_jax.learner.losses import Loss, Sums
from rlvr_jax.learner.optimizer import OptimizerConfig
from rlvr_jax.learner.scores import hidden_states
from rlvr_jax.policy import Params, PolicyConfig


@dataclass(frozen=True)
class CriticConfig:
    """The network that estimates values, for `algorithm.baseline` "value". It has the policy's architecture.

    Attributes:
      init: its first decoder: "policy" for the parameters that the policy starts from, "fresh" for random ones, or the
        workdir of an earlier run, whose critic is taken if it has one, or the reward model that it trained, otherwise
        the decoder of its policy. A new head is 0, so the first values are, too.
      clip: a value counts as moved by at most this since the step began, see `value_loss`; 0 for no limit.
      warmup_steps: steps at the beginning of the run in which only the critic is trained.
      optimizer: its optimizer; its updates are those of the policy and of the warm-up.
    """

    init: str = "policy"
    clip: float = 0.2
    warmup_steps: int = 0
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)


def action_values(config: PolicyConfig, params: Params, batch: Batch) -> Float[Array, "batch action"]:
    """The value of the state before each action."""
    return policy.values(config, params, hidden_states(config, params, batch))


@lru_cache(maxsize=32)  # the runs of a process share losses, and so what is compiled for them
def critic_loss(config: PolicyConfig, clip: float) -> Loss:
    """The regression of values to returns; it trains "critic". See `value_loss`."""

    def sums(params: Mapping[str, Params], batch: Batch) -> Sums:
        return value_loss(clip, action_values(config, params["critic"], batch), batch)

    return Loss(sums, ("values", "returns"), metrics="critic")


def value_loss(clip: float, values: Float[Array, "batch action"], batch: Batch) -> Sums:
    """The mean over all actions, with V the value, V' that before the step's first update and R the return, of

        max((V - R)^2, (V' + clip(V - V', -c, c) - R)^2) / 2

    The maximum makes it pessimistic: once V has moved from V' by more than c towards R its gradient is 0.

    Source: the code of Schulman et al. 2017 (arXiv:1707.06347), "PPO2" of OpenAI Baselines; the paper does not have it.

    Args:
      clip: c; 0 for (V - R)^2 / 2.
      values: V.
      batch: with the columns "values" (V') and "returns".
    """
    mask = batch.action_mask
    before, returns = (jnp.where(mask > 0, batch.columns[name], 0.0) for name in ("values", "returns"))
    values, count = jnp.where(mask > 0, values, 0.0), jnp.sum(mask)
    error, means = (values - returns) ** 2, {}
    if clip:
        limited = (before + jnp.clip(values - before, -clip, clip) - returns) ** 2
        means["critic/clip_fraction"] = (jnp.sum(limited > error, dtype=jnp.float32), count)
        error = jnp.maximum(error, limited)
    loss = jnp.sum(error) / 2
    return Sums(loss, count, means | {"critic/loss": (loss, count)}, {})
