"""One update of the policy: a jitted, donated, sharded function of (state, batch).

The same function trains on demonstrations and on rewards; only the loss differs. A loss is a weighted sum over tokens,
and the weights are those of the whole batch, so microbatches and device meshes change nothing but rounding.
"""

from collections.abc import Callable
from typing import Any, no_type_check

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import NamedSharding
from jaxtyping import Array, Float, Int

from rlvr_jax import policy
from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.batch import Batch
from rlvr_jax.learner.losses import TokenSums, clipped_policy_loss, imitation_loss
from rlvr_jax.learner.rounding import added
from rlvr_jax.policy import Params, PolicyConfig

Loss = Callable[[Array, Array, Batch], TokenSums]  # (logprobs, entropy, batch) -> sums


@no_type_check  # as a pytree it may hold shapes or shardings, too
@struct.dataclass
class TrainState:
    """Everything on the device that the next update depends on.

    Attributes:
      updates: updates so far, skipped ones included.
      params: the policy's parameters.
      opt_state: the optimizer's.
      skipped: updates skipped so far because they or their gradient were not finite.
      skipped_in_a_row: how many of those came last, without a good one after them.
    """

    updates: Int[Array, ""]
    params: Params
    opt_state: Any
    skipped: Int[Array, ""]
    skipped_in_a_row: Int[Array, ""]


def new_state(optimizer: optax.GradientTransformation, params: Params) -> TrainState:
    """The state before the first update. The optimizer's moments are float32 whatever the parameters are."""
    updates, skipped, in_a_row = (jnp.zeros((), jnp.int32) for _ in range(3))  # one array can't be donated thrice
    return TrainState(updates, params, optimizer.init(_float32(policy.trainable(params))), skipped, in_a_row)


def _float32(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(jnp.float32), tree)


def state_shardings(
    shapes: TrainState, optimizer: optax.GradientTransformation, params: Params, other: NamedSharding
) -> TrainState:
    """A `TrainState` of shardings: the optimizer's moments lie like the parameters, the rest like `other`."""
    opt_state = optax.tree_map_params(
        optimizer,
        lambda _, sharding: sharding,
        shapes.opt_state,
        policy.trainable(params),
        transform_non_params=lambda _: other,
    )
    return TrainState(other, params, opt_state, other, other)


def score(
    config: PolicyConfig, params: Params, batch: Batch, temperature: float
) -> tuple[Float[Array, "batch response"], Float[Array, "batch response"]]:
    """Log-probability of each action and entropy of its distribution, at the policy's temperature (nats)."""
    hidden, _ = policy.forward(config, params, batch.tokens, batch.positions, batch.segment_ids, parents=batch.parents)
    predictors = jax.vmap(lambda row, columns: row.at[columns].get(mode="promise_in_bounds"))(hidden, batch.predictors)
    actions = batch.tokens[:, -batch.action_mask.shape[1] :]
    return policy.logprobs_and_entropy(config, params, predictors, actions, temperature)


def policy_gradient(config: AlgorithmConfig) -> Loss:
    """The loss of reinforcement learning."""

    def loss(logprobs, entropy, batch):
        return clipped_policy_loss(
            config,
            logprobs,
            entropy,
            batch.action_mask,
            batch.weights,
            batch.advantages,
            batch.old_logprobs,
            batch.reference_logprobs,
        )

    return loss


def imitation(logprobs: Array, _: Array, batch: Batch) -> TokenSums:
    """The loss of supervised learning on demonstrations."""
    return imitation_loss(logprobs, batch.action_mask, batch.weights)


def train_step(
    config: PolicyConfig,
    loss: Loss,
    optimizer: optax.GradientTransformation,
    microbatches: int,
    temperature: float,
    state: TrainState,
    batch: Batch,
) -> tuple[TrainState, dict[str, Float[Array, ""]]]:
    """One update. One that is not finite, itself or its gradient, changes nothing but the counts of skipped updates.

    Args:
      config: the policy's shape.
      loss: `policy_gradient(...)` or `imitation`.
      optimizer: its updates are added to the parameters.
      microbatches: parts to compute the gradient in; divides the batch.
      temperature: the policy is softmax(logits / temperature).
      state: is not changed; jitted with donation, its memory is reused.
      batch: fixed shapes.

    Returns:
      The next state, and metrics by their public names.
    """
    count = jnp.maximum(jnp.sum(batch.action_mask), 1.0)
    if batch.weights is None:
        batch = batch.replace(weights=batch.action_mask / count)
    trained = policy.trainable(state.params)

    def sums(trained, part):
        params = policy.with_trainable(state.params, trained)
        result = loss(*score(config, params, part, temperature), part)
        return result.loss, result

    gradient_of = jax.grad(sums, has_aux=True)
    if microbatches == 1:
        gradient, result = gradient_of(trained, batch)
        gradient = _float32(gradient)
    else:
        # Rows a, a + n, a + 2n, ... form a part, so that each part lies on all devices.
        parts = jax.tree.map(lambda x: x.reshape(-1, microbatches, *x.shape[1:]).swapaxes(0, 1), batch)

        def add(total, part):
            gradient, result = total
            part_gradient, part_result = gradient_of(trained, part)
            gradient = jax.tree.map(lambda a, b: a + b.astype(a.dtype), gradient, part_gradient)
            largest = jax.tree.map(jnp.maximum, result.largest, part_result.largest)
            result = jax.tree.map(jnp.add, result, part_result).replace(largest=largest)
            return (gradient, result), None

        shapes = jax.eval_shape(gradient_of, trained, jax.tree.map(lambda x: x[0], parts))[1]
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), (trained, shapes))
        (gradient, result), _ = jax.lax.scan(add, zeros, parts)

    norm = optax.tree.norm(gradient)
    updates, opt_state = optimizer.update(gradient, state.opt_state, trained)
    finite = jnp.isfinite(norm) & jnp.isfinite(optax.tree.norm(updates))
    new = (added(trained, updates, state.updates), opt_state)
    new, opt_state = jax.tree.map(lambda x, old: jnp.where(finite, x, old), new, (trained, state.opt_state))
    state = state.replace(
        updates=state.updates + 1,
        params=policy.with_trainable(state.params, new),
        opt_state=opt_state,
        skipped=state.skipped + ~finite,
        skipped_in_a_row=jnp.where(finite, 0, state.skipped_in_a_row + 1),
    )
    metrics = {name: total / count for name, total in result.means.items()} | result.totals | result.largest
    return state, metrics | {"train/grad_norm": norm}
