"""One update: a jitted, donated, sharded function of (states, batch).

The same function trains on demonstrations, on rewards, and a critic; only the loss differs. A loss is a sum, and the
step divides its gradient by the weight of the whole batch, so results are independent of microbatching and sharding up
to rounding.
"""

from collections.abc import Mapping
from typing import Any, no_type_check

import jax
import jax.numpy as jnp
import optax
from flax import struct
from jax.sharding import NamedSharding
from jaxtyping import Array, Bool, Float, Int

from rlvr_jax import policy
from rlvr_jax.learner.batch import Batch
from rlvr_jax.learner.losses import Loss
from rlvr_jax.learner.moments import map_moments
from rlvr_jax.learner.rounding import added
from rlvr_jax.parallel import HOST
from rlvr_jax.policy import Params


@no_type_check  # as a pytree it may hold shapes or shardings, too
@struct.dataclass
class TrainState:
    """The training state of one network, such as the policy.

    Attributes:
      updates: updates so far, skipped ones included.
      params: the network's parameters.
      opt_state: the optimizer state.
      skipped: updates skipped so far because the gradient or the update was not finite.
      skipped_in_a_row: number of these since the last applied update.
    """

    updates: Int[Array, ""]
    params: Params
    opt_state: Any
    skipped: Int[Array, ""]
    skipped_in_a_row: Int[Array, ""]


def new_state(optimizer: optax.GradientTransformation, params: Params) -> TrainState:
    """The state before the first update. The optimizer computes its moments in float32."""
    updates, skipped, in_a_row = (jnp.zeros((), jnp.int32) for _ in range(3))  # one array can't be donated three times
    return TrainState(updates, params, optimizer.init(_float32(policy.trainable(params))), skipped, in_a_row)


@no_type_check  # as a pytree it may hold shapes or shardings, too
@struct.dataclass
class Learner:
    """All that a run learns, and that its checkpoints hold.

    Attributes:
      states: of the networks that are trained, by name: "policy", and "critic" if there is one.
      others: by name, pytrees that follow the networks by rules of their own: "reference", the trained parameters of a
        reference policy that moves; "kl_coef" and "entropy_coef", adaptive coefficients, the latter with the last
        measured entropy.
    """

    states: dict[str, TrainState]
    others: dict[str, Any] = struct.field(default_factory=dict)

    @property
    def policy(self) -> TrainState:
        """The state of the policy."""
        return self.states["policy"]


def _float32(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(jnp.float32), tree)


def state_shardings(shapes: TrainState, params: Params, other: NamedSharding, offload: bool = False) -> TrainState:
    """A `TrainState` of shardings: optimizer moments are sharded like the parameters, everything else by `other`.

    With `offload` the moments lie in the host's memory.
    """
    sharded = jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes.params, params)

    def of_moment(_: Any, param: jax.ShapeDtypeStruct) -> NamedSharding:
        return param.sharding.with_memory_kind(HOST) if offload else param.sharding

    opt_state = map_moments(of_moment, shapes.opt_state, policy.trainable(sharded), lambda _: other)
    return TrainState(other, params, opt_state, other, other)


def train_step(
    loss: Loss,
    optimizers: Mapping[str, optax.GradientTransformation],
    microbatches: int,
    states: dict[str, TrainState],
    batch: Batch,
    frozen: Mapping[str, Params] | None = None,
) -> tuple[dict[str, TrainState], dict[str, Float[Array, ""]]]:
    """One update. A non-finite gradient or update changes only the counts of skipped updates.

    Args:
      loss: of the parameters of all `states`.
      optimizers: by the names of `states`.
      microbatches: number of sequential microbatches.
      states: by name, such as "policy"; donate them when jitting.
      batch: fixed shapes.
      frozen: further parameters that the loss reads, by name.

    Returns:
      The next states, and metrics by their public names.

    Raises:
      ValueError: at trace time: the batch lacks a column that the loss needs, or can't be divided.
    """
    missing = [name for name in loss.needs if name not in batch.columns]
    if missing:
        raise ValueError(f"the loss needs the columns {', '.join(missing)}, which the batch lacks")
    trained = {name: policy.trainable(state.params) for name, state in states.items()}

    def sums(trained, part):
        params = {name: policy.with_trainable(state.params, trained[name]) for name, state in states.items()}
        params |= frozen or {}
        result = loss.sums(params, part)
        return result.loss, result

    def mean(trained, part):
        loss, result = sums(trained, part)
        return loss / _divisor(result.weight), result

    if microbatches == 1:
        gradient, result = jax.grad(mean, has_aux=True)(trained, batch)
        gradient = _float32(gradient)
    else:
        gradient_of = jax.grad(sums, has_aux=True)
        parts = dealt(batch, microbatches, loss.rows_together)

        def add(total, part):
            gradient, result = total
            part_gradient, part_result = gradient_of(trained, part)
            # The TPU compiler would move all-reduces of gradients out of the loop over microbatches, and fails at that
            # for an embedding table without a head (libtpu 0.0.42).
            part_gradient = jax.lax.optimization_barrier(part_gradient)
            gradient = jax.tree.map(lambda a, b: a + b.astype(a.dtype), gradient, part_gradient)
            largest = jax.tree.map(jnp.maximum, result.largest, part_result.largest)
            result = jax.tree.map(jnp.add, result, part_result).replace(largest=largest)
            return (gradient, result), None

        shapes = jax.eval_shape(gradient_of, trained, jax.tree.map(lambda x: x[0], parts))[1]
        gradient, result = jax.tree.map(lambda x: jnp.zeros(x.shape, jnp.float32), (trained, shapes))
        result = result.replace(largest=jax.tree.map(lambda x: jnp.full_like(x, -jnp.inf), result.largest))
        (gradient, result), _ = jax.lax.scan(add, (gradient, result), parts)
        gradient = jax.tree.map(lambda x: x / _divisor(result.weight), gradient)

    norm = optax.tree.norm(gradient)
    before = {name: _on_device(state.opt_state) for name, state in states.items()}
    updates = {name: optimizers[name].update(gradient[name], before[name], trained[name]) for name in states}
    finite = jnp.isfinite(norm) & jnp.isfinite(optax.tree.norm([update for update, _ in updates.values()]))
    states = {
        name: _updated(state, (trained[name], before[name]), *updates[name], finite) for name, state in states.items()
    }
    metrics = {name: total / _divisor(count) for name, (total, count) in result.means.items()} | result.largest
    metrics |= loss.derived(metrics) | {f"{loss.metrics}/grad_norm": norm}
    return states, {name: value for name, value in metrics.items() if not name.startswith("_")}


def dealt(batch: Batch, microbatches: int, rows_together: int) -> Batch:
    """The microbatches of a batch, along a new first axis.

    Strided: units a, a + n, a + 2n, ... of `rows_together` rows form one, so that every microbatch spans all devices
    and no row moves between them.

    Raises:
      ValueError: the batch can't be divided.
    """
    rows = batch.tokens.shape[0]
    if rows % (microbatches * rows_together):
        raise ValueError(
            f"a batch of {rows} rows, of which {rows_together} belong together, can't be divided into {microbatches} "
            "microbatches"
        )

    def divided(x: Array) -> Array:
        units = x.reshape(-1, microbatches, rows_together, *x.shape[1:]).swapaxes(0, 1)
        return units.reshape(microbatches, -1, *x.shape[1:])

    return jax.tree.map(divided, batch)


def _divisor(weight: Float[Array, ""]) -> Float[Array, ""]:
    """The weight, or 1 instead of 0: an empty mean is 0."""
    return jnp.where(weight > 0, weight, 1.0)


def _on_device(tree: Any) -> Any:
    """The arrays in the memory of the device, those that lie in the host's, too."""
    return jax.tree.map(lambda x: jax.device_put(x, jax.memory.Space.Device) if _on_host(x) else x, tree)


def _on_host(x: Array) -> bool:
    return jax.typeof(x).memory_space == jax.memory.Space.Host


def _updated(
    state: TrainState, before: tuple[Params, Any], updates: Params, opt_state: Any, finite: Bool[Array, ""]
) -> TrainState:
    """The state after an applied or skipped update.

    Args:
      state: before the update.
      before: its trained parameters and optimizer state, on the device.
      updates: of the parameters.
      opt_state: after the update.
      finite: whether it is applied.
    """
    new = (added(before[0], updates, state.updates), opt_state)
    new, opt_state = jax.tree.map(lambda x, old: jnp.where(finite, x, old), new, before)
    opt_state = jax.tree.map(
        lambda x, old: jax.device_put(x, jax.memory.Space.Host) if _on_host(old) else x, opt_state, state.opt_state
    )
    return state.replace(
        updates=state.updates + 1,
        params=policy.with_trainable(state.params, new),
        opt_state=opt_state,
        skipped=state.skipped + ~finite,
        skipped_in_a_row=jnp.where(finite, 0, state.skipped_in_a_row + 1),
    )
