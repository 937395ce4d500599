"""Construction of a run: tasks, tokenizer, architecture, devices, and initial state."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax

from rlvr_jax import parallel, tasks
from rlvr_jax.config import Config, Run
from rlvr_jax.config_rules import check
from rlvr_jax.device_rules import batch_rows, check_policy
from rlvr_jax.errors import CheckpointError, ConfigError
from rlvr_jax.hf.families import with_shape_of
from rlvr_jax.hf.pretrained import pretrained_config
from rlvr_jax.hf.source import find_checkpoint, listed_stop_tokens
from rlvr_jax.kernels.platform import target_platform
from rlvr_jax.kernels.training import check_platform
from rlvr_jax.parallel import AnyDevice, AnyMesh, MeshConfig, Processes
from rlvr_jax.policy import Params, PolicyConfig
from rlvr_jax.policy.config import shrunk
from rlvr_jax.rollout.memory import USABLE, prompt_bytes, slot_bytes, smallest_tensor, weight_bytes
from rlvr_jax.rollout.playing import Source
from rlvr_jax.tasks import Task
from rlvr_jax.text.prompts import end_of_turn
from rlvr_jax.text.tokenizers import make_tokenizer, stop_tokens
from rlvr_jax.training.agreement import check_agreement
from rlvr_jax.training.memory import Load, resolved
from rlvr_jax.training.networks import network_shapes, states_of
from rlvr_jax.training.problems import make_envs, make_task, prompted_tasks, sources
from rlvr_jax.training.trials import check_algorithm, check_episodes, check_reward, sandbox_engine
from rlvr_jax.verifiers.pool import Pool


@dataclass(frozen=True)
class Setup:
    """The static parts of a run.

    Attributes:
      config: of the run.
      run: its kind.
      tasks: by name, with the prompts of this run.
      sources: the same, with their environments, for rollouts.
      parts: names of the numbers beside the score that verdicts have and rewards may be made of.
      dropped: number of problems dropped from each task for overlong prompts.
      tokenizer: of the policy.
      tokenizer_folder: the checkpoint of the tokenizer; None for a built-in one.
      stop_tokens: the ids that end a response.
      end_token: the one of them that demonstrations end with.
      sandbox: sandbox engine for model-written code; empty if no task has any.
      policy: its architecture, with `policy.remat` and `policy.head_chunk` chosen.
      mesh: the devices that train.
      param_shardings: of the parameters on that mesh.
      sampling_mesh: the devices that sample: the same, or others (`config.rollout.devices`).
      sampling_memory: bytes on each of them for caches and temporaries of sampling; 0 if unknown.
      processes: of the run.
      versions: of its frozen networks, by their keys of the config; of those without one the newest.
    """

    config: Config
    run: Run
    tasks: dict[str, Task]
    sources: dict[str, Source]
    parts: tuple[str, ...]
    dropped: dict[str, int]
    tokenizer: Any
    tokenizer_folder: Path | None
    stop_tokens: tuple[int, ...]
    end_token: int
    sandbox: str
    policy: PolicyConfig
    mesh: AnyMesh
    param_shardings: Any
    sampling_mesh: AnyMesh
    sampling_memory: int
    processes: Processes = field(default_factory=Processes)
    versions: Mapping[str, str] = field(default_factory=dict)


def make_setup(
    config: Config,
    problems: bool = True,
    run: Run = "rl",
    pool: Pool | None = None,
    processes: Processes | None = None,
    devices: Sequence[AnyDevice] | None = None,
    trains: bool = True,
) -> Setup:
    """Checks the config and builds the setup; nothing is compiled.

    Args:
      config: of the run.
      problems: False leaves the tasks out, if only the policy is needed.
      run: the kind of run, whose batches determine `policy.remat` and `policy.head_chunk` if unset.
      pool: tries user-defined verifiers with its limits; None tries them in this process, without limits.
      processes: of the run; by default this one alone.
      devices: of the run, by default all that JAX sees. They may be absent: those of a topology, for the compiler, or
        abstract ones, for arithmetic.
      trains: False needs no training problems, and does not read them to leave out those that are too long.

    Raises:
      ConfigError: the config can't run, with the reason in one line.
    """
    processes = processes or Processes()
    check_agreement(config, processes)
    devices = jax.devices() if devices is None else devices
    with processes.first_goes_ahead():  # to prepare data and download checkpoints, which hosts may share
        return _make_setup(config, problems, run, pool, processes, devices, trains)


def _make_setup(
    config: Config,
    problems: bool,
    run: Run,
    pool: Pool | None,
    processes: Processes,
    devices: Sequence[AnyDevice],
    trains: bool,
) -> Setup:
    check(config, len(devices), processes.count, run)
    checkpoint = _checkpoint_shape(config)  # first, because a wrong folder also lacks a tokenizer
    folder = _tokenizer_folder(config)
    kind = str(folder or config.tokenizer or "characters")
    plain = {label: make_task(config, label) for label in config.tasks if problems or kind == "characters"}
    try:
        more = {x: own.alphabet + own.wording.replace("{question}", "") for x, own in config.tasks.items()}
        alphabets = {x: task.alphabet and task.alphabet + more[x] for x, task in plain.items()}
        tokenizer = make_tokenizer(kind, alphabets)
        turn = end_of_turn(tokenizer) if config.prompt.format == "chat" else None
    except ValueError as error:
        key = "tokenizer" if config.tokenizer else "pretrained"
        other = "; config.tokenizer names another" if key == "pretrained" else ""
        raise ConfigError(f"config.{key}: {error}{other}") from error
    shape = _policy_shape(config, checkpoint, tokenizer)
    plain = plain if problems else {}
    envs = make_envs(config, plain)
    prompted, dropped = prompted_tasks(config, plain, envs, tokenizer, trains)
    of_rollout = sources(config, prompted, envs, tokenizer)
    parts: tuple[str, ...] = ()
    if problems:
        parts = check_reward(config, of_rollout, pool)
        check_algorithm(config, shape)
        check_episodes(config, of_rollout)
    sandbox = sandbox_engine(of_rollout)
    trainers = devices[: len(devices) - config.rollout.devices]
    mesh = parallel.make_mesh(config.mesh, trainers)
    samplers = trainers if len(trainers) == len(devices) else devices[len(trainers) :]
    check_policy(config, shape, tuple(mesh.shape[name] for name in ("fsdp", "context", "tensor")), len(samplers))
    _check_attention(shape, mesh)
    shape = resolved(shape, update_load(config, run, mesh))
    params = network_shapes(shape, mesh)
    shardings = jax.tree.map(lambda x: x.sharding, params)
    listed = listed_stop_tokens(folder) if folder else ()
    stops = stop_tokens(tokenizer, (*listed, turn))
    end = tokenizer.eos_token_id if turn is None else turn
    sampling = _sampling(config, shape, params, mesh, samplers)
    tokens, places = (tokenizer, folder, stops, end), (mesh, shardings, *sampling, processes)
    return Setup(config, run, prompted, of_rollout, parts, dropped, *tokens, sandbox, shape, *places)


def _check_attention(shape: PolicyConfig, mesh: AnyMesh) -> None:
    try:
        with parallel.use_mesh(mesh):
            check_platform(shape.attention, target_platform())
    except ValueError as error:
        raise ConfigError(f"config.policy.attention: {error}") from error


def update_load(config: Config, run: Run, mesh: AnyMesh, packed: bool = False, network: str = "policy") -> Load:
    """The rows of a microbatch on one device, or its parts of rows that devices share.

    `packed` counts the rows of `training.packing`, one for each prompt, in a run of reinforcement learning.
    """
    rollout, devices = config.rollout, mesh.shape["data"] * mesh.shape["fsdp"]
    actions, group = rollout.max_response_length, _responses_in_row(config, run, packed)
    if run == "rl":
        rows, optimizer = rollout.prompts * rollout.group_rows // config.algorithm.minibatches, config.optimizer
        optimizer = config.critic.optimizer if network == "critic" else optimizer
    elif run == "sft":
        rows, optimizer = config.sft.batch_size, config.sft.optimizer
        actions += rollout.max_prompt_length if config.sft.sources else 0
    else:
        rows, optimizer = 2 * config.preferences.batch_size, config.preferences.optimizer
    rows = max(1, rows // (group * optimizer.microbatches * devices))
    length = rollout.max_prompt_length + group * rollout.max_response_length
    actions *= group
    part = lambda length: -(-length // mesh.shape["context"])  # noqa: E731
    branches = group > 1 and run == "rl" and not config.training.packing_multiple
    longest = rollout.max_prompt_length + rollout.max_response_length if branches else 0
    return Load(rows, part(length), part(actions), longest)


def load_of(setup: Setup, network: str = "policy") -> tuple[Load, int]:
    """The rows of a microbatch of a network's updates on one device, and the responses in each."""
    packed = setup.config.training.packing == "prefix_tree"
    load = update_load(setup.config, setup.run, setup.mesh, packed, network)
    return load, _responses_in_row(setup.config, setup.run, packed)


def _responses_in_row(config: Config, run: Run, packed: bool) -> int:
    if run == "rl":
        return config.rollout.group_rows if packed else 1
    return 2 if run == "preferences" and config.preferences.packing == "prefix_tree" else 1


def _sampling(
    config: Config, shape: PolicyConfig, params: Params, mesh: AnyMesh, devices: Sequence[AnyDevice]
) -> tuple[AnyMesh, int]:
    """The mesh that samples, and the memory on each of its devices for caches and temporaries; 0 if unknown."""
    own = next((x for x in devices if getattr(x, "process_index", 0) == jax.process_index()), devices[0])
    rollout, memory = config.rollout, parallel.device_memory(own)
    if memory is not None:
        memory = int(USABLE * memory)
        if not rollout.devices:
            states = states_of(config, "rl", shape, mesh)
            keeps_reference = config.algorithm.reference == "initial" and not shape.lora.rank
            keeps_reference = keeps_reference and not config.training.offload_reference
            memory -= parallel.bytes_on_device((states, params if keeps_reference else ()))
    key, rows = batch_rows(config)
    lengths = rollout.max_prompt_length, rollout.max_response_length
    if key == "slots":
        each = partial(slot_bytes, shape, lengths[0], sum(lengths), rollout.group_size, platform=own.platform)
    else:
        each = partial(prompt_bytes, shape, *lengths, rollout.group_size, platform=own.platform)
    tensor = config.mesh.rollout_tensor or smallest_tensor(shape, len(devices), rows, each, memory)
    order = parallel.devices_of(parallel.make_mesh(MeshConfig(), devices) if rollout.devices else mesh)
    left = 0 if memory is None else max(1, memory - weight_bytes(shape, tensor))
    return parallel.rollout_mesh(order, tensor), left


def _checkpoint_shape(config: Config) -> PolicyConfig | None:
    """The architecture of the pretrained checkpoint, if there is one."""
    if not config.pretrained:
        return None
    try:
        return pretrained_config(config.pretrained)
    except CheckpointError as error:
        raise ConfigError(f"config.pretrained: {error}") from error


def _tokenizer_folder(config: Config) -> Path | None:
    """The checkpoint folder of the tokenizer, if it has one."""
    source = config.tokenizer or config.pretrained
    if source in ("", "characters", "bytes"):
        return None
    try:
        return find_checkpoint(source, weights=False)
    except CheckpointError as error:
        raise ConfigError(f"config.tokenizer: {error}; the others are 'characters' and 'bytes'") from error


def _policy_shape(config: Config, checkpoint: PolicyConfig | None, tokenizer: Any) -> PolicyConfig:
    """The architecture of the pretrained checkpoint, or the config's, with the tokenizer's vocabulary."""
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


def training_mixture(setup: Setup, run: Run = "rl") -> tasks.Mixture:
    """The training tasks with their weights; those of a supervised run may be others."""
    weights = {label: task.weight for label, task in setup.config.tasks.items() if task.weight > 0}
    weights = dict(setup.config.sft.tasks) if run == "sft" and setup.config.sft.tasks else weights
    return tasks.Mixture(tuple(setup.tasks[label] for label in weights), tuple(weights.values()))


def check_demonstrations(setup: Setup) -> None:
    """Raises ConfigError if a task to train on has no demonstrations."""
    for task in training_mixture(setup, "sft").tasks:
        if task.demonstration is None:
            raise ConfigError(
                f"config.tasks.{task.name} has no demonstrations to imitate; give it weight=0, "
                "name chats in config.sft.sources, or do without a warm start (`rlvr sweep --nowarm_start`)"
            )
