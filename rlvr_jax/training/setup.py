"""The parts of a run before its first step: tasks, tokenizer, the policy's shape, devices, and its state."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
import orbax.checkpoint as ocp
from jax.sharding import Mesh
from jaxtyping import Array, Key

from rlvr_jax import named, parallel, policy, tasks
from rlvr_jax.config import Config
from rlvr_jax.config_rules import check, check_policy
from rlvr_jax.errors import CheckpointError, ConfigError
from rlvr_jax.policy import Params, PolicyConfig
from rlvr_jax.policy.config import shrunk
from rlvr_jax.policy.families import with_shape_of
from rlvr_jax.policy.pretrained import check_weights, load_params, pretrained_config
from rlvr_jax.policy.source import find_checkpoint, listed_stop_tokens
from rlvr_jax.rewards import reward
from rlvr_jax.rollout.trajectory import empty_trajectory
from rlvr_jax.sandbox.engine import open_sandbox
from rlvr_jax.sandbox.host import SandboxError
from rlvr_jax.tasks import Example, Task
from rlvr_jax.tasks.finite import redrawn, subset
from rlvr_jax.training import checkpoints
from rlvr_jax.training.memory import Load, resolved
from rlvr_jax.training.step import TrainState, new_state, state_shardings
from rlvr_jax.training.workdir import read_config
from rlvr_jax.verifiers import verifier_of, verify

_CHECKED_PROMPTS = 256  # of tasks without end


@dataclass(frozen=True)
class Setup:
    """The parts of a run.

    Attributes:
      config: of the run.
      tasks: by name, with the prompts of this run.
      dropped: for each task, how many problems were dropped because their prompts are too long.
      tokenizer: of the policy.
      tokenizer_folder: the checkpoint that it came from; None for one that was made here.
      stop_tokens: the ids that end a response.
      end_token: the one of them that demonstrations end with.
      sandbox: the engine that holds programs which the policy writes; empty if no task asks for any.
      policy: its shape.
      memory: what was chosen to save memory, in one line; empty if nothing.
      mesh: the devices.
      param_shardings: how the parameters lie on them.
    """

    config: Config
    tasks: dict[str, Task]
    dropped: dict[str, int]
    tokenizer: Any
    tokenizer_folder: Path | None
    stop_tokens: tuple[int, ...]
    end_token: int
    sandbox: str
    policy: PolicyConfig
    memory: str
    mesh: Mesh
    param_shardings: Any


def make_setup(config: Config, problems: bool = True, run: Literal["sft", "rl"] = "rl") -> Setup:
    """Checks the config and builds what it names; nothing is compiled.

    Args:
      config: of the run.
      problems: False leaves the tasks out, for those who only need the policy.
      run: whose batches decide what `policy.remat` and `policy.head_chunk` are, where they are not set.

    Raises:
      ConfigError: the config can't run, with one line that says why.
    """
    check(config, jax.device_count())
    checkpoint = _checkpoint_shape(config)  # first, because a wrong folder has no tokenizer either
    folder = _tokenizer_folder(config)
    kind = str(folder or config.tokenizer or "characters")
    plain = {label: _make_task(config, label) for label in config.tasks if problems or kind == "characters"}
    try:
        tokenizer = tasks.make_tokenizer(kind, tuple(plain.values()))
        turn = tasks.end_of_turn(tokenizer) if config.prompt.format == "chat" else None
    except ValueError as error:
        key = "tokenizer" if config.tokenizer else "pretrained"
        other = "; config.tokenizer names another" if key == "pretrained" else ""
        raise ConfigError(f"config.{key}: {error}{other}") from error
    shape = _policy_shape(config, checkpoint, tokenizer)
    plain = plain if problems else {}
    prompted = {label: _with_prompts(config, label, task, tokenizer) for label, task in plain.items()}
    fitting = {}
    for label, task in prompted.items():
        try:
            fitting[label] = _fitting_prompts(config, task, tokenizer)
        except ConfigError:
            raise
        except ValueError as error:  # of a prompt that can't be rendered or encoded
            raise ConfigError(f"config.tasks.{label}: {error}") from error
    prompted, dropped = ({label: both[i] for label, both in fitting.items()} for i in (0, 1))
    if problems:
        _check_reward(config, prompted)
    sandbox = _sandbox_engine(prompted)
    mesh = parallel.make_mesh(config.mesh)
    check_policy(config, shape, mesh.shape["fsdp"], mesh.shape["tensor"])
    shape, memory = resolved(shape, _load(config, run, mesh))
    shapes = jax.eval_shape(partial(policy.init_with_adapters, shape), jax.random.key(0))
    shardings = parallel.param_shardings(mesh, policy.axes_with_adapters(shape), shapes)
    listed = listed_stop_tokens(folder) if folder else ()
    stops = tasks.stop_tokens(tokenizer, (*listed, turn))
    end = tokenizer.eos_token_id if turn is None else turn
    return Setup(config, prompted, dropped, tokenizer, folder, stops, end, sandbox, shape, memory, mesh, shardings)


def _load(config: Config, run: Literal["sft", "rl"], mesh: Mesh) -> Load:
    """The rows of a microbatch that lie on one device."""
    rollout, devices = config.rollout, mesh.shape["data"] * mesh.shape["fsdp"]
    rows, optimizer = config.sft.batch_size, config.sft.optimizer
    if run == "rl":
        rows, optimizer = rollout.prompts * rollout.group_size // config.algorithm.minibatches, config.optimizer
    rows = max(1, rows // (optimizer.microbatches * devices))
    return Load(rows, rollout.max_prompt_length + rollout.max_response_length, rollout.max_response_length)


def _checkpoint_shape(config: Config) -> PolicyConfig | None:
    """That of the pretrained checkpoint, if there is one."""
    if not config.pretrained:
        return None
    try:
        return pretrained_config(config.pretrained)
    except CheckpointError as error:
        raise ConfigError(f"config.pretrained: {error}") from error


def _tokenizer_folder(config: Config) -> Path | None:
    """The folder of a tokenizer that comes with a checkpoint."""
    source = config.tokenizer or config.pretrained
    if source in ("", "characters", "bytes"):
        return None
    try:
        return find_checkpoint(source, weights=False)
    except CheckpointError as error:
        raise ConfigError(f"config.tokenizer: {error}; the others are 'characters' and 'bytes'") from error


def _policy_shape(config: Config, checkpoint: PolicyConfig | None, tokenizer: Any) -> PolicyConfig:
    """That of the pretrained checkpoint, or else the config's, with room for the tokenizer's tokens."""
    if checkpoint:
        shape = with_shape_of(config.policy, checkpoint)
        where = f"the checkpoint {config.pretrained} has vocab_size"
    else:
        shape = shrunk(config.policy, config.shrink)
        shape = replace(shape, vocab_size=shape.vocab_size or len(tokenizer))
        where = "config.policy.vocab_size is"
    if shape.vocab_size < len(tokenizer):
        raise ConfigError(
            f"{where} {shape.vocab_size}, but the tokenizer has {len(tokenizer)} tokens"
            + ("; 0 takes the tokenizer's" if not config.pretrained else ": it is another model's")
        )
    return shape


def _make_task(config: Config, label: str) -> Task:
    task, data = config.tasks[label], config.data
    own = dict(task.verifier_options)
    try:
        if task.verifier:
            verifier_of(task.verifier)  # for its errors
        if task.file:
            check = partial(_wrong_reference, task.verifier, own)
            columns = task.prompt, task.reference
            heldout = task.heldout_file, task.heldout_share
            return tasks.file_task(label, task.file, *columns, task.verifier, own, *heldout, check)
        made = tasks.make_task(task.name or label, task.options, data_dir=data.data_dir, manual_dir=data.manual_dir)
    except OSError as error:
        if not task.file:
            raise
        raise ConfigError(f"config.tasks.{label}: {error}") from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"config.tasks.{label}: {error}") from error
    options = own if task.verifier else {**made.verifier_options, **own}
    return replace(made, verifier=task.verifier or made.verifier, verifier_options=options)


def _wrong_reference(verifier: str, options: Mapping[str, Any], reference: Any) -> str | None:
    """Why a built-in verifier can't judge against a reference; None if it can, or asking would take long."""
    if named.is_name(verifier) or verifier == "code":
        return None
    return verify(verifier, "", reference, **options).error


def _with_prompts(config: Config, label: str, task: Task, tokenizer: Any) -> Task:
    prompt, options = config.prompt, config.tasks[label]
    try:
        task = tasks.worded(task, options.template)
        shots = tasks.shots_of(task, options.shots)
        render = tasks.renderer(
            tokenizer, prompt.format, prompt.template, options.system, options.thinking, shots, prompt.date
        )
    except ValueError as error:
        raise ConfigError(f"config.tasks.{label}: {error}") from error
    return tasks.rendered(task, label, render)


def training_mixture(setup: Setup) -> tasks.Mixture:
    """The tasks that are trained on, with their weights."""
    weights = {label: task.weight for label, task in setup.config.tasks.items() if task.weight > 0}
    return tasks.Mixture(tuple(setup.tasks[label] for label in weights), tuple(weights.values()))


def _fitting_prompts(config: Config, task: Task, tokenizer: Any) -> tuple[Task, int]:
    """The task with the problems whose prompts fit, and how many don't.

    Every prompt of a task that has an end is looked at, and some of one without, of which others stand in for those
    that are too long; there must be some to train on.
    """
    rollout, where = config.rollout, f"config.tasks.{task.name}"
    trained = config.tasks[task.name].weight > 0
    if trained and task.num_examples("train") == 0:
        raise ConfigError(f"{where}: it has no training problems; weight=0 only evaluates it")
    kept: dict[tasks.Split, list[int]] = {"train": [], "heldout": []}
    dropped, endless = 0, False
    for split in ("train",) * trained + ("heldout",):
        count = task.num_examples(split)
        endless |= count is None
        examples = [task.example(split, i) for i in range(_CHECKED_PROMPTS if count is None else count)]
        lengths = [len(ids) for ids in tasks.encode_batch(tokenizer, [example.prompt for example in examples])]
        kept[split] = [i for i, length in enumerate(lengths) if length <= rollout.max_prompt_length]
        dropped += len(lengths) - len(kept[split])
        if dropped and (rollout.overlong_prompts == "refuse" or not kept[split]):
            longest = examples[lengths.index(max(lengths))]
            choices = "; config.rollout.overlong_prompts='drop' leaves such out" if kept[split] else ""
            raise ConfigError(
                f"the prompt of {longest.id} has {max(lengths)} tokens, more than config.rollout.max_prompt_length = "
                f"{rollout.max_prompt_length}{choices}"
            )
    if endless and rollout.overlong_prompts == "drop":
        fits = lambda prompt: len(tasks.encode(tokenizer, prompt)) <= rollout.max_prompt_length  # noqa: E731
        return redrawn(task, fits), dropped
    return (subset(task, kept) if dropped else task), dropped


def _check_reward(config: Config, prompted: dict[str, Task]) -> None:
    """Tries the verifiers and the reward on answers that say nothing.

    A verifier gives all of its parts in every verdict, so such a verdict tells which there are.

    Raises:
      ConfigError: a verifier or a term that the config names can't be used, with its file and line.
    """
    verdicts, trajectories = [], []
    for label, task in prompted.items():
        example = task.example("train" if task.num_examples("train") != 0 else "heldout", 0)
        if named.is_name(task.verifier):
            _try_verifier(label, task, example)
        verdicts.append(verify(task.verifier, "", example.reference, **task.verifier_options))
        trajectories.append(empty_trajectory(example))
    for before, after in zip(verdicts, reward(config.reward, verdicts, trajectories, 1).verdicts, strict=True):
        if after.error and not before.error:
            raise ConfigError(f"config.reward: on an empty completion {after.error}")


def _try_verifier(label: str, task: Task, example: Example) -> None:
    """Raises ConfigError, with file and line, if a function of the user's fails on an answer that says little."""
    name, key = task.verifier, f"config.tasks.{label}.verifier"
    try:
        named.check_arguments(name, "", example.reference, **task.verifier_options)
    except ValueError as error:
        raise ConfigError(f"{key}: {error}") from None
    for text in ("", "?"):
        verdict = verify(name, text, example.reference, **task.verifier_options)
        if verdict.error:
            raise ConfigError(
                f"{key}: {named.where(name)}: {name!r} on the completion {text!r} of {example.id}: {verdict.error}. "
                "Let it give 0 to what it can't read; a sample with an error is left out of the training"
            )


def _sandbox_engine(prompted: dict[str, Task]) -> str:
    """The engine that holds programs which the policy writes, by trial on this machine; empty if no task has any."""
    engines = set()
    for label, task in prompted.items():
        if task.verifier == "code":
            try:
                options = task.verifier_options
                with open_sandbox(options.get("engine", "auto"), options.get("packages", ())) as sandbox:
                    engines.add(sandbox.engine)
            except (SandboxError, ValueError) as error:
                raise ConfigError(f"config.tasks.{label}: {error}") from error
    return ", ".join(sorted(engines))


def check_start(setup: Setup, workdir: Path) -> None:
    """Raises CheckpointError if the run can't start from `config.init_from` or `config.pretrained`; before it writes.

    Weights are downloaded, and of those that are here only the heads of files are read.
    """
    config = setup.config
    if checkpoints.complete_steps(workdir):
        return
    if config.init_from:
        source = Path(config.init_from).expanduser()
        checkpoints.check_loadable(source, param_shapes(setup))
        _check_alpha(setup, source)
    elif config.pretrained:
        check_weights(find_checkpoint(config.pretrained), setup.policy)


def param_shapes(setup: Setup) -> Params:
    """Shapes, dtypes and places of the policy's parameters, to load them into."""
    shapes = jax.eval_shape(partial(policy.init_with_adapters, setup.policy), jax.random.key(0))
    return checkpoints.with_shardings(shapes, setup.param_shardings)


def load_run(setup: Setup, workdir: Path) -> tuple[Params, int]:
    """The newest parameters of a run that this setup's policy can be, and their step.

    Raises:
      ConfigError, CheckpointError: there are none, or they are of another policy.
    """
    _check_alpha(setup, workdir)
    return checkpoints.load_params(workdir, param_shapes(setup))


def _check_alpha(setup: Setup, source: Path) -> None:
    """Refuses to count adapters by another factor than the run in `source`, which trained them. Ranks are shapes."""
    ours = setup.policy.lora
    theirs = read_config(source).policy.lora if ours.rank else ours
    if theirs.rank and theirs.alpha != ours.alpha:
        raise ConfigError(
            f"config.policy.lora.alpha is {ours.alpha}, and the adapters in {source} were trained with "
            f"{theirs.alpha}; set the same"
        )


def start(
    setup: Setup, optimizer: optax.GradientTransformation, manager: ocp.CheckpointManager, key: Key[Array, ""]
) -> tuple[TrainState, Params | None]:
    """The state to go on from, and what is trained as it was at first, if the reference policy needs that.

    The newest checkpoint, or else the parameters of `config.init_from` or `config.pretrained`, or random ones; a fresh
    state is saved as that of step 0, which is where the reference policy comes from when the run is continued. With
    fresh adapters the reference is the base policy, which is never changed: then there is no copy. Those of another
    run are copied.
    """
    config = setup.config
    new = partial(new_state, optimizer)
    shapes = jax.eval_shape(new, param_shapes(setup))
    shardings = state_shardings(shapes, optimizer, setup.param_shardings, parallel.replicated(setup.mesh))
    fresh_adapters = setup.policy.lora.rank and not config.init_from
    keeps_reference = config.algorithm.reference == "initial" and not fresh_adapters
    step = manager.latest_step()
    if step is not None:
        state = checkpoints.restore(manager, checkpoints.with_shardings(shapes, shardings), step)
        if not keeps_reference:
            return state, None
        return state, policy.trainable(checkpoints.restore_params(manager, param_shapes(setup), 0))
    state = jax.jit(new, out_shardings=shardings, donate_argnums=0)(initial_params(setup, key))
    checkpoints.save(manager, state, 0)
    # A copy, because updates reuse the memory of the state they are given.
    return state, jax.tree.map(jnp.copy, policy.trainable(state.params)) if keeps_reference else None


def initial_params(setup: Setup, key: Key[Array, ""]) -> Params:
    """The parameters that a run starts from: those of `config.init_from` or `config.pretrained`, or random ones."""
    config, shardings = setup.config, setup.param_shardings
    if config.init_from:
        params, _ = load_run(setup, Path(config.init_from).expanduser())
    elif config.pretrained:
        folder = find_checkpoint(config.pretrained)
        params = load_params(folder, setup.policy, policy.base(shardings))
    else:
        params = jax.jit(partial(policy.init, setup.policy), out_shardings=policy.base(shardings))(key)
    if policy.ADAPTERS in shardings and policy.ADAPTERS not in params:
        fresh = jax.jit(partial(policy.init_adapters, setup.policy), out_shardings=policy.trainable(shardings))
        params = params | {policy.ADAPTERS: fresh(key)}
    return params
