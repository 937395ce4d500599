"""The networks that a run trains: their parameters, optimizers and states, as shapes."""

from functools import partial
from operator import attrgetter

import jax
import optax

from rlvr_jax import parallel, policy
from rlvr_jax.config import Config, Run
from rlvr_jax.learner.credit import has_critic
from rlvr_jax.learner.optimizer import OptimizerConfig, make_optimizer, make_schedule
from rlvr_jax.learner.preferences import LOSSES
from rlvr_jax.learner.step import TrainState, new_state, state_shardings
from rlvr_jax.parallel import AnyMesh
from rlvr_jax.policy import Params, PolicyConfig
from rlvr_jax.training.checkpoints import with_shardings

SCALAR = ("critic", "reward")  # networks with one number in place of logits: a critic, a reward model


def optimizer_keys(config: Config, run: Run) -> dict[str, str]:
    """The key of the optimizer of each network that a run of this kind trains, by the network's name; first that of the
    network that the run is for."""
    if run == "rl":
        return {"policy": "optimizer"} | ({"critic": "critic.optimizer"} if has_critic(config.algorithm) else {})
    network = LOSSES[config.preferences.loss].network if run == "preferences" else "policy"
    return {network: f"{run}.optimizer"}


def networks_of(config: Config, run: Run = "rl") -> dict[str, OptimizerConfig]:
    """The optimizer of each network of `optimizer_keys`."""
    return {name: attrgetter(key)(config) for name, key in optimizer_keys(config, run).items()}


def updates_of_step(config: Config) -> int:
    """Updates of each network in a step."""
    return config.algorithm.minibatches * config.algorithm.epochs


def warmup_steps(config: Config) -> int:
    """Steps in which only the critic is trained."""
    return config.critic.warmup_steps if has_critic(config.algorithm) else 0


def num_updates(config: Config) -> dict[str, int]:
    """Updates of each network in a run."""
    steps = {"policy": config.training.num_steps - warmup_steps(config), "critic": config.training.num_steps}
    return {name: steps[name] * updates_of_step(config) for name in networks_of(config)}


def learning_rate(config: Config, step: int) -> float:
    """The policy's at its first update of a step, or if the critic is still warming up, of the run."""
    schedule = make_schedule(config.optimizer, num_updates(config)["policy"])
    return float(schedule(max(step - 1 - warmup_steps(config), 0) * updates_of_step(config)))


def make_optimizers(config: Config) -> dict[str, optax.GradientTransformation]:
    """The optimizer of each network."""
    counts = num_updates(config)
    return {name: make_optimizer(options, counts[name]) for name, options in networks_of(config).items()}


def shapes_and_axes(config: PolicyConfig, network: str = "policy") -> tuple[Params, Params]:
    """Shapes of the parameters of a network, with adapters, and the names of their axes."""
    if network in SCALAR:
        return policy.critic_shapes(config), policy.critic_axes(config)
    return policy.shapes_with_adapters(config), policy.axes_with_adapters(config)


def network_shapes(config: PolicyConfig, mesh: AnyMesh, network: str = "policy") -> Params:
    """Shapes, dtypes and shardings of the parameters of a network."""
    shapes, axes = shapes_and_axes(config, network)
    return with_shardings(shapes, parallel.param_shardings(mesh, axes, shapes))


def states_of(config: Config, run: Run, shape: PolicyConfig, mesh: AnyMesh) -> dict[str, TrainState]:
    """Shapes, dtypes and shardings of the training states of a run of this kind, by network."""
    return {
        name: state_shapes(make_optimizer(options, 1), network_shapes(shape, mesh, name), mesh, options.offload)
        for name, options in networks_of(config, run).items()
    }


def state_shapes(
    optimizer: optax.GradientTransformation, params: Params, mesh: AnyMesh, offload: bool = False
) -> TrainState:
    """Shapes, dtypes and shardings of the training state, from those of the parameters.

    With `offload` (`OptimizerConfig.offload`) its moments lie in the host's memory.
    """
    shapes = jax.eval_shape(partial(new_state, optimizer), params)
    of_params = jax.tree.map(lambda x: x.sharding, params)
    return with_shardings(shapes, state_shardings(shapes, of_params, parallel.replicated(mesh), offload))
