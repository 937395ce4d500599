"""What a run builds from its config before the first step: task, mesh, state, and its compiled functions."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key

from rlvr_jax import parallel, policy, tasks
from rlvr_jax.config import Config, check
from rlvr_jax.errors import ConfigError
from rlvr_jax.evaluation.evaluate import Judge, evaluate
from rlvr_jax.policy import Params, PolicyConfig
from rlvr_jax.rewards.reward import TERMS
from rlvr_jax.rollout import engine
from rlvr_jax.rollout.sampler import SamplingConfig
from rlvr_jax.tasks import Task
from rlvr_jax.training import checkpoints
from rlvr_jax.training.batch import Batch
from rlvr_jax.training.record import sample_rows
from rlvr_jax.training.step import Loss, TrainState, new_state, score, state_shardings, train_step
from rlvr_jax.verifiers import verify

_CHECKED_PROMPTS = 256  # of tasks without end
_DRAWS_PER_PROBLEM = 50  # to find different held-out problems


@dataclass(frozen=True)
class Setup:
    """Task, tokenizer, the policy's shape with its vocabulary, and the devices."""

    config: Config
    task: Task
    tokenizer: Any
    policy: PolicyConfig
    mesh: Mesh
    param_shardings: Any


def make_setup(config: Config) -> Setup:
    """Checks the config and builds what it names; nothing is compiled.

    Raises:
      ConfigError: the config can't run, with one line that says why.
    """
    check(config, jax.device_count())
    try:
        task = tasks.make_task(
            config.task.name, config.task.options, data_dir=config.data.data_dir, manual_dir=config.data.manual_dir
        )
        tokenizer = tasks.make_tokenizer(config.task.tokenizer, task.alphabet)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"config.task: {error}") from error
    if config.policy.vocab_size not in (0, len(tokenizer)):
        raise ConfigError(
            f"config.policy.vocab_size is {config.policy.vocab_size}, but the tokenizer has {len(tokenizer)} tokens; "
            "0 takes the tokenizer's"
        )
    _check_prompts(config, task, tokenizer)
    _check_reward(config, task)
    shape = replace(config.policy, vocab_size=len(tokenizer))
    mesh = parallel.make_mesh(config.mesh)
    shapes = jax.eval_shape(lambda key: policy.init(shape, key), jax.random.key(0))
    shardings = parallel.param_shardings(mesh, policy.logical_axes(shape), shapes)
    return Setup(config, task, tokenizer, shape, mesh, shardings)


def _check_prompts(config: Config, task: Task, tokenizer: Any) -> None:
    for split in ("train", "heldout"):
        count = task.num_examples(split)
        examples = [task.example(split, i) for i in range(_CHECKED_PROMPTS if count is None else count)]
        lengths = [len(ids) for ids in tasks.encode_batch(tokenizer, [example.prompt for example in examples])]
        if max(lengths) > config.rollout.max_prompt_length:
            longest = examples[lengths.index(max(lengths))]
            raise ConfigError(
                f"the prompt of {longest.id} has {max(lengths)} tokens, more than config.rollout.max_prompt_length = "
                f"{config.rollout.max_prompt_length}"
            )
        if split == "heldout" and count is not None and config.evaluation.problems > count:
            wanted = config.evaluation.problems
            raise ConfigError(f"config.evaluation.problems = {wanted}, but {task.name} holds out only {count}")


def _check_reward(config: Config, task: Task) -> None:
    """A verifier gives all of its parts in every verdict, so the verdict on nothing tells which there are."""
    parts = verify(task.verifier, "", task.example("train", 0).reference, **task.verifier_options).parts
    for name, _ in config.reward:
        if name not in TERMS and name not in parts:
            known = ", ".join([*TERMS, *sorted(parts)])
            raise ConfigError(f"config.reward: there is no term {name!r}; for task {task.name} there are: {known}")


def check_start(setup: Setup, workdir: Path) -> None:
    """Raises CheckpointError if the run is to start from `config.init_from` and can't; reads no arrays."""
    if setup.config.init_from and not checkpoints.complete_steps(workdir):
        checkpoints.check_loadable(Path(setup.config.init_from).expanduser(), param_shapes(setup))


def param_shapes(setup: Setup) -> Params:
    """Shapes, dtypes and places of the policy's parameters, to load them into."""
    shapes = jax.eval_shape(partial(policy.init, setup.policy), jax.random.key(0))
    return checkpoints.with_shardings(shapes, setup.param_shardings)


def start(
    setup: Setup, optimizer: optax.GradientTransformation, manager: ocp.CheckpointManager, key: Key[Array, ""]
) -> tuple[TrainState, Params | None]:
    """The state to go on from, and the frozen reference policy if the algorithm has one.

    The newest checkpoint, or else `config.init_from`'s parameters, or else random ones; a fresh state is saved as that
    of step 0, which is where the reference policy comes from when the run is continued.
    """
    config = setup.config
    new = partial(new_state, optimizer)
    shapes = jax.eval_shape(new, param_shapes(setup))
    shardings = state_shardings(shapes, optimizer, setup.param_shardings, parallel.replicated(setup.mesh))
    keeps_reference = config.algorithm.reference == "initial"
    step = manager.latest_step()
    if step is not None:
        state = checkpoints.restore(manager, checkpoints.with_shardings(shapes, shardings), step)
        return state, checkpoints.restore_params(manager, param_shapes(setup), 0) if keeps_reference else None
    if config.init_from:
        params, _ = checkpoints.load_params(Path(config.init_from).expanduser(), param_shapes(setup))
    else:
        params = jax.jit(partial(policy.init, setup.policy), out_shardings=setup.param_shardings)(key)
    state = jax.jit(new, out_shardings=shardings)(params)
    checkpoints.save(manager, state, 0)
    # A copy, because updates reuse the memory of the state they are given.
    return state, jax.tree.map(jnp.copy, state.params) if keeps_reference else None


def make_update(setup: Setup, optimizer: optax.GradientTransformation, loss: Loss, microbatches: int) -> Callable:
    """The jitted training step (state, batch) -> (state, metrics); the given state's memory is reused."""
    step = partial(train_step, setup.policy, loss, optimizer, microbatches, setup.config.rollout.temperature)
    return jax.jit(step, in_shardings=(None, parallel.batch_sharding(setup.mesh)), donate_argnums=0)


def make_score(setup: Setup) -> Callable:
    """The jitted function (params, batch) -> log-probability of each action."""

    def logprobs(params: Params, batch: Batch) -> Float[Array, "batch response"]:
        return score(setup.policy, params, batch, setup.config.rollout.temperature)[0]

    batch = parallel.batch_sharding(setup.mesh)
    return jax.jit(logprobs, in_shardings=(setup.param_shardings, batch), out_shardings=batch)


def make_rollout(setup: Setup, group_size: int, batch_size: int) -> engine.Rollout:
    """The rollout function of a run, for groups of `group_size` in device batches of `batch_size` prompts."""
    rollout = setup.config.rollout
    sampling = SamplingConfig(
        group_size=group_size,
        max_response_length=rollout.max_response_length,
        stop_tokens=(setup.tokenizer.eos_token_id,),
        pad_token=setup.tokenizer.pad_token_id,
        top_k=rollout.top_k,
        top_p=rollout.top_p,
        policy_temperature=rollout.temperature,
    )
    batch, params = parallel.batch_sharding(setup.mesh), setup.param_shardings
    length = rollout.max_prompt_length
    return engine.make_rollout(setup.policy, sampling, setup.tokenizer, length, batch_size, params, batch)


def _heldout_examples(task: Task, count: int) -> list[tasks.Example]:
    """The first `count` held-out problems of which no two have the same prompt; the same for every seed."""
    found: dict[str, tasks.Example] = {}
    for position in range(_DRAWS_PER_PROBLEM * count):
        (example,) = tasks.batch(task, "heldout", seed=0, step=position, size=1)
        found.setdefault(example.prompt, example)
        if len(found) == count:
            return list(found.values())
    raise ConfigError(f"config.evaluation.problems = {count}, but {task.name} holds out only about {len(found)}")


def make_evaluation(setup: Setup, rollout: engine.Rollout, judge: Judge) -> Callable:
    """A function (params, step, key) -> (metrics, rows of samples) over the held-out problems.

    They don't depend on the seed, so that runs can be compared. `rollout` is the one of training, which also samples
    for pass@k if its groups have the right size: that saves a compilation.
    """
    config = setup.config.evaluation
    examples = _heldout_examples(setup.task, config.problems)
    greedy = make_rollout(setup, 1, config.batch_size)
    if config.pass_samples != setup.config.rollout.group_size:
        rollout = make_rollout(setup, config.pass_samples, setup.config.rollout.prompts)

    def run(params: Params, step: int, key: Key[Array, ""]) -> tuple[dict[str, float], list[dict[str, Any]]]:
        metrics, trajectories, verdicts = evaluate(
            params, examples, greedy, rollout, judge, key, config.pass_problems, config.ks
        )
        return metrics, sample_rows(step, "heldout", trajectories[: config.shown], verdicts[: config.shown])

    return run
