"""The initial or resumed state of a run."""

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
from jaxtyping import Array, Key

from rlvr_jax import parallel, policy
from rlvr_jax.config import Config
from rlvr_jax.errors import ConfigError
from rlvr_jax.hf.pretrained import check_weights, load_params
from rlvr_jax.hf.source import find_checkpoint
from rlvr_jax.learner.step import Learner, new_state
from rlvr_jax.policy import Params
from rlvr_jax.training import checkpoints, reading
from rlvr_jax.training.frozen import find_asked, find_teacher
from rlvr_jax.training.networks import SCALAR, network_shapes, networks_of, states_of
from rlvr_jax.training.reward_models import find_reward_models
from rlvr_jax.training.setup import Setup
from rlvr_jax.training.workdir import read_config

_FRESH_CRITIC = 1  # the random stream of a critic's decoder beside that of the policy


def check_start(setup: Setup, workdir: Path) -> None:
    """Raises CheckpointError if a run can't start from the checkpoints that the config names.

    Writes nothing to the workdir. Downloads weights; of local ones it reads only the headers.
    """
    config = setup.config
    if setup.run == "rl":
        find_reward_models(setup)
        find_teacher(setup)
        find_asked(setup)
    if checkpoints.complete_steps(workdir):
        return
    if config.init_from:
        source = Path(config.init_from).expanduser()
        reading.check_loadable(source, param_shapes(setup))
        _check_alpha(setup, source)
    elif config.pretrained:
        check_weights(find_checkpoint(config.pretrained), setup.policy)
    if "critic" in networks_of(config, setup.run) and (source := _critic_source(config)):
        reading.check_loadable(source, *_loaded_for_critic(setup, source))


def origin(config: Config) -> str:
    """A line on the parameters with which a run begins."""
    if source := config.init_from or config.pretrained:
        return f"the policy starts from {source}"
    return "the policy starts with random parameters: config.init_from and config.pretrained are empty"


def param_shapes(setup: Setup) -> Params:
    """Shapes, dtypes and shardings of the policy's parameters, for loading."""
    return network_shapes(setup.policy, setup.mesh)


def load_run(setup: Setup, workdir: Path, step: int | None = None) -> tuple[Params, int]:
    """The parameters of a step, by default the newest, of a run with the same policy as this setup, and the step.

    Raises:
      ConfigError, CheckpointError: there are none, or they are of another policy.
    """
    _check_alpha(setup, workdir)
    return reading.load_params(workdir, param_shapes(setup), step)


@contextlib.contextmanager
def open_run(
    setup: Setup, workdir: Path, step: int | None = None, network: str = "policy"
) -> Iterator[tuple[Params, int]]:
    """The parameters of `load_run`, or of another network, each of which is read when it is needed; the step."""
    _check_alpha(setup, workdir)
    with reading.open_params(workdir, network_shapes(setup.policy, setup.mesh, network), step, network) as opened:
        yield opened


def _check_alpha(setup: Setup, source: Path) -> None:
    """Refuses an adapter scale other than that of the run in `source`, which trained them."""
    ours = setup.policy.lora
    theirs = read_config(source).policy.lora if ours.rank else ours
    if theirs.rank and theirs.alpha != ours.alpha:
        raise ConfigError(
            f"config.policy.lora.alpha is {ours.alpha}, and the adapters in {source} were trained with "
            f"{theirs.alpha}; set the same"
        )


def start(
    setup: Setup,
    optimizers: Mapping[str, optax.GradientTransformation],
    manager: ocp.CheckpointManager,
    key: Key[Array, ""],
    needs_reference: bool = False,
) -> tuple[Learner, Params | None]:
    """The initial or resumed state and, if the loss needs a reference policy that stays, its trained parameters.

    The state is that of the newest checkpoint; otherwise it has the parameters of `config.init_from`,
    `config.pretrained`, or random ones, and is saved as step 0, from which a resumed run loads the reference policy.
    With new adapters the reference policy is the unchanged base, so nothing is copied; adapters of another run are
    copied. A reference policy that moves is a part of the state.

    Args:
      setup: of the run.
      optimizers: by the names of the networks.
      manager: of the run's checkpoints.
      key: of random parameters.
      needs_reference: whether anything is scored by a reference policy.
    """
    config, algorithm = setup.config, setup.config.algorithm
    own = needs_reference and algorithm.reference == "initial"
    moves = own and algorithm.reference_every > 0
    stays = own and not moves and not (setup.policy.lora.rank and not config.init_from)
    shapes = states_of(config, setup.run, setup.policy, setup.mesh)
    others = {"reference": policy.trainable(shapes["policy"].params)} if moves else {}
    kept = partial(parallel.moved_to, parallel.HOST if config.training.offload_reference else "device")
    coef, everywhere = algorithm.kl_reward_coef, parallel.replicated(setup.mesh)
    shape = jax.ShapeDtypeStruct((), jnp.float32, sharding=everywhere)
    if needs_reference and coef and algorithm.kl_reward_target:
        others["kl_coef"] = {"value": shape}
    if algorithm.entropy == "adaptive":
        others["entropy_coef"] = {"value": shape, "entropy": shape}
    step = manager.latest_step()
    if step is not None:
        learner = checkpoints.restore(manager, Learner(shapes, others), step)
        if not stays:
            return learner, None
        return learner, kept(policy.trainable(checkpoints.restore_params(manager, param_shapes(setup), 0)))
    params = {"policy": initial_params(setup, key)}
    if "critic" in optimizers:
        params["critic"] = initial_critic(setup, params["policy"], jax.random.fold_in(key, _FRESH_CRITIC))
    if "reward" in optimizers:
        params["reward"] = initial_reward(setup, params["policy"])
    reference = _copied(policy.trainable(params["policy"])) if moves or stays else None
    number = lambda x: parallel.put(np.asarray(x, np.float32), everywhere)  # noqa: E731
    of_start = {"reference": reference, "kl_coef": {"value": number(coef)}}
    of_start["entropy_coef"] = {"value": number(algorithm.entropy_coef), "entropy": number(np.inf)}
    states = {}
    for name, optimizer in optimizers.items():
        shardings = jax.tree.map(lambda x: x.sharding, shapes[name])
        new = jax.jit(new_state, static_argnums=0, out_shardings=shardings, donate_argnums=1)
        states[name] = new(optimizer, params.pop(name))
    learner = Learner(states, {name: of_start[name] for name in others})
    checkpoints.save(manager, learner, 0)
    return learner, kept(reference) if stays else None


@jax.jit
def _copied(params: Params) -> Params:
    """The parameters in arrays of their own: updates donate theirs."""
    return jax.tree.map(jnp.copy, params)


def initial_params(setup: Setup, key: Key[Array, ""], step: int | None = None) -> Params:
    """The initial parameters of a run: those of `config.init_from`, at a step or the newest, or of
    `config.pretrained`, or random ones."""
    config, shardings = setup.config, setup.param_shardings
    if config.init_from:
        params, _ = load_run(setup, Path(config.init_from).expanduser(), step)
    elif config.pretrained:
        folder = find_checkpoint(config.pretrained)
        params = load_params(folder, setup.policy, policy.base(shardings))
    else:
        params = jax.jit(policy.init, static_argnums=0, out_shardings=policy.base(shardings))(setup.policy, key)
    if policy.ADAPTERS in shardings and policy.ADAPTERS not in params:
        fresh = jax.jit(policy.init_adapters, static_argnums=0, out_shardings=policy.trainable(shardings))
        params = params | {policy.ADAPTERS: fresh(setup.policy, key)}
    return params


def initial_critic(setup: Setup, params: Params, key: Key[Array, ""]) -> Params:
    """The initial parameters of the critic, by `config.critic.init`; `params` are those of the policy."""
    if setup.config.critic.init == "fresh":
        shardings = jax.tree.map(lambda x: x.sharding, network_shapes(setup.policy, setup.mesh, "critic"))
        return jax.jit(policy.init_critic, static_argnums=0, out_shardings=shardings)(setup.policy, key)
    if source := _critic_source(setup.config):
        shapes, network = _loaded_for_critic(setup, source)
        params, _ = reading.load_params(source, shapes, network=network)
        if network != "policy":
            return params

    return _with_head(setup, params)


def initial_reward(setup: Setup, params: Params) -> Params:
    """The initial parameters of a reward model: the policy's decoder, and a head of 0."""
    return _with_head(setup, params)


def _with_head(setup: Setup, params: Params) -> Params:
    shardings = jax.tree.map(lambda x: x.sharding, network_shapes(setup.policy, setup.mesh, "critic"))
    copied = lambda params: _copied(policy.with_value_head(setup.policy, params))  # noqa: E731
    return jax.jit(copied, out_shardings=shardings)(params)


def _critic_source(config: Config) -> Path | None:
    """The workdir of the run that the critic starts from, if any."""
    init = config.critic.init
    if init in ("policy", "fresh"):
        return None
    source = Path(init).expanduser()
    if not init or not (source / "checkpoints").is_dir():
        raise ConfigError(
            f"config.critic.init = {init!r} is neither 'policy' nor 'fresh', nor the workdir of a run: it holds no "
            "checkpoints"
        )
    return source


def _loaded_for_critic(setup: Setup, source: Path) -> tuple[Params, str]:
    """Shapes and name of the network that the critic starts from in another run: its critic, or the reward model that
    it trained, or else its policy."""
    network = next((name for name in SCALAR if reading.has_network(source, name)), "policy")
    return network_shapes(setup.policy, setup.mesh, network), network
