"""What a run is made of before its first step: tasks, tokenizer, the policy's shape, devices, and its state."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
from jax.sharding import Mesh
from jaxtyping import Array, Key

from rlvr_jax import parallel, policy, tasks
from rlvr_jax.config import Config, check
from rlvr_jax.errors import ConfigError
from rlvr_jax.policy import Params, PolicyConfig
from rlvr_jax.rewards.reward import TERMS
from rlvr_jax.tasks import Task
from rlvr_jax.training import checkpoints
from rlvr_jax.training.step import TrainState, new_state, state_shardings
from rlvr_jax.verifiers import verify

_CHECKED_PROMPTS = 256  # of tasks without end


@dataclass(frozen=True)
class Setup:
    """Tasks by name, with the prompts of this run; the tokenizer, the policy's shape, and the devices."""

    config: Config
    tasks: dict[str, Task]
    tokenizer: Any
    stop_tokens: tuple[int, ...]
    policy: PolicyConfig
    mesh: Mesh
    param_shardings: Any


def make_setup(config: Config) -> Setup:
    """Checks the config and builds what it names; nothing is compiled.

    Raises:
      ConfigError: the config can't run, with one line that says why.
    """
    check(config, jax.device_count())
    plain = {label: _make_task(config, label) for label in config.tasks}
    kind = config.tokenizer or config.pretrained or "characters"
    try:
        tokenizer = tasks.make_tokenizer(kind, tuple(plain.values()))
    except ValueError as error:
        raise ConfigError(f"config.tokenizer: {error}") from error
    if config.policy.vocab_size not in (0, len(tokenizer)):
        raise ConfigError(
            f"config.policy.vocab_size is {config.policy.vocab_size}, but the tokenizer has {len(tokenizer)} tokens; "
            "0 takes the tokenizer's"
        )
    prompted = {label: _with_prompts(config, label, task, tokenizer) for label, task in plain.items()}
    for task in prompted.values():
        _check_prompts(config, task, tokenizer)
    _check_reward(config, prompted)
    shape = replace(config.policy, vocab_size=len(tokenizer))
    mesh = parallel.make_mesh(config.mesh)
    shapes = jax.eval_shape(partial(policy.init_with_adapters, shape), jax.random.key(0))
    shardings = parallel.param_shardings(mesh, policy.axes_with_adapters(shape), shapes)
    stops = tasks.stop_tokens(tokenizer, config.pretrained)
    return Setup(config, prompted, tokenizer, stops, shape, mesh, shardings)


def _make_task(config: Config, label: str) -> Task:
    task = config.tasks[label]
    try:
        return tasks.make_task(
            task.name or label, task.options, data_dir=config.data.data_dir, manual_dir=config.data.manual_dir
        )
    except (TypeError, ValueError) as error:
        raise ConfigError(f"config.tasks.{label}: {error}") from error


def _with_prompts(config: Config, label: str, task: Task, tokenizer: Any) -> Task:
    prompt, options = config.prompt, config.tasks[label]
    try:
        render = tasks.renderer(tokenizer, prompt.format, prompt.template, options.system, options.thinking)
    except ValueError as error:
        raise ConfigError(f"config.tasks.{label}: {error}") from error
    return tasks.rendered(task, label, render)


def training_mixture(setup: Setup) -> tasks.Mixture:
    """The tasks that are trained on, with their weights."""
    weights = {label: task.weight for label, task in setup.config.tasks.items() if task.weight > 0}
    return tasks.Mixture(tuple(setup.tasks[label] for label in weights), tuple(weights.values()))


def _check_prompts(config: Config, task: Task, tokenizer: Any) -> None:
    """Every prompt of a task that has an end must fit, and there must be problems to train on."""
    trained = config.tasks[task.name].weight > 0
    if trained and task.num_examples("train") == 0:
        raise ConfigError(f"config.tasks.{task.name}: it has no training problems; weight=0 only evaluates it")
    for split in ("train",) * trained + ("heldout",):
        count = task.num_examples(split)
        examples = [task.example(split, i) for i in range(_CHECKED_PROMPTS if count is None else count)]
        lengths = [len(ids) for ids in tasks.encode_batch(tokenizer, [example.prompt for example in examples])]
        if max(lengths, default=0) > config.rollout.max_prompt_length:
            longest = examples[lengths.index(max(lengths))]
            raise ConfigError(
                f"the prompt of {longest.id} has {max(lengths)} tokens, more than config.rollout.max_prompt_length = "
                f"{config.rollout.max_prompt_length}"
            )


def _check_reward(config: Config, prompted: dict[str, Task]) -> None:
    """A verifier gives all of its parts in every verdict, so the verdict on nothing tells which there are."""
    parts: set[str] = set()
    for task in prompted.values():
        split = "train" if task.num_examples("train") != 0 else "heldout"
        parts |= set(verify(task.verifier, "", task.example(split, 0).reference, **task.verifier_options).parts)
    for name, _ in config.reward:
        if name not in TERMS and name not in parts:
            known = ", ".join([*TERMS, *sorted(parts)])
            raise ConfigError(f"config.reward: there is no term {name!r}; for these tasks there are: {known}")


def check_start(setup: Setup, workdir: Path) -> None:
    """Raises CheckpointError if the run is to start from `config.init_from` and can't; reads no arrays."""
    if setup.config.init_from and not checkpoints.complete_steps(workdir):
        checkpoints.check_loadable(Path(setup.config.init_from).expanduser(), param_shapes(setup))


def param_shapes(setup: Setup) -> Params:
    """Shapes, dtypes and places of the policy's parameters, to load them into."""
    shapes = jax.eval_shape(partial(policy.init_with_adapters, setup.policy), jax.random.key(0))
    return checkpoints.with_shardings(shapes, setup.param_shardings)


def start(
    setup: Setup, optimizer: optax.GradientTransformation, manager: ocp.CheckpointManager, key: Key[Array, ""]
) -> tuple[TrainState, Params | None]:
    """The state to go on from, and the frozen reference policy if the algorithm has one and it needs a copy.

    The newest checkpoint, or else `config.init_from`'s parameters, or else random ones; a fresh state is saved as that
    of step 0, which is where the reference policy comes from when the run is continued. With adapters the reference
    is the base policy, which is never changed: then there is no copy.
    """
    config = setup.config
    new = partial(new_state, optimizer)
    shapes = jax.eval_shape(new, param_shapes(setup))
    shardings = state_shardings(shapes, optimizer, setup.param_shardings, parallel.replicated(setup.mesh))
    keeps_reference = config.algorithm.reference == "initial" and not setup.policy.lora.rank
    step = manager.latest_step()
    if step is not None:
        state = checkpoints.restore(manager, checkpoints.with_shardings(shapes, shardings), step)
        return state, checkpoints.restore_params(manager, param_shapes(setup), 0) if keeps_reference else None
    state = jax.jit(new, out_shardings=shardings, donate_argnums=0)(_initial_params(setup, key))
    checkpoints.save(manager, state, 0)
    # A copy, because updates reuse the memory of the state they are given.
    return state, jax.tree.map(jnp.copy, state.params) if keeps_reference else None


def _initial_params(setup: Setup, key: Key[Array, ""]) -> Params:
    config, shardings = setup.config, setup.param_shardings
    if config.init_from:
        params, _ = checkpoints.load_params(Path(config.init_from).expanduser(), param_shapes(setup))
    else:
        params = jax.jit(partial(policy.init, setup.policy), out_shardings=policy.base(shardings))(key)
    if policy.ADAPTERS in shardings and policy.ADAPTERS not in params:
        fresh = jax.jit(partial(policy.init_adapters, setup.policy), out_shardings=policy.trainable(shardings))
        params = params | {policy.ADAPTERS: fresh(key)}
    return params
