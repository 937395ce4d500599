"""The configuration of a run: one frozen record, every default in one place, checked before any long work starts.

Files in `configs/` start from these defaults and state what differs; see `configs/base.py`.
"""

import dataclasses
import difflib
import math
import operator
import re
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from rlvr_jax.algorithms.config import AlgorithmConfig
from rlvr_jax.errors import ConfigError
from rlvr_jax.parallel.mesh import MeshConfig, mesh_shape
from rlvr_jax.policy.config import PolicyConfig
from rlvr_jax.policy.config import problems as policy_problems
from rlvr_jax.tasks.prompts import R1_ZERO
from rlvr_jax.training.optimizer import OptimizerConfig


@dataclass(frozen=True)
class TaskConfig:
    """A source of problems.

    Attributes:
      name: of the task, see `rlvr_jax.tasks.make_task`; empty takes the task's key in `config.tasks`.
      options: keyword arguments of the task.
      weight: its share of the training problems, relative to the other tasks'; 0 only evaluates it.
      system: system prompt.
      thinking: whether the model thinks before it answers, see `rlvr_jax.tasks.prompts`; "default" leaves it to the
        chat template.
    """

    name: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    weight: float = 1.0
    system: str = ""
    thinking: Literal["default", "on", "off"] = "default"


@dataclass(frozen=True)
class PromptConfig:
    """How a problem becomes the text that the policy continues.

    Attributes:
      format: "plain" is the problem alone; "chat" the tokenizer's chat template, or `template` if it has none;
        "template" always `template`.
      template: text with the places {system} and {prompt}.
    """

    format: Literal["plain", "chat", "template"] = "plain"
    template: str = R1_ZERO


@dataclass(frozen=True)
class DataConfig:
    """Where file data sets lie.

    Attributes:
      data_dir: where prepared data sets are kept.
      manual_dir: a folder with the data sets' own files, to prepare them without network; empty to download them.
    """

    data_dir: str = "~/.cache/rlvr_jax/data"
    manual_dir: str = ""


@dataclass(frozen=True)
class RolloutConfig:
    """What is sampled in every step.

    Attributes:
      prompts: problems in a step.
      group_size: samples of each problem.
      max_prompt_length, max_response_length: tokens; a response's stop token counts.
      overlong_prompts: "refuse" to run if a problem's prompt is longer, or "drop" such problems.
      temperature: of the sampling distribution, and of the policy that is trained.
      top_k, top_p: filters of the sampling distribution; 0 and 1 switch them off.
      slots: sequences that are sampled at one time, each slot being refilled as soon as its sequence ends; 0 samples
        whole batches. Slots pay where lengths differ much and prompts are short: each holds its prompt's keys and
        values by itself, which a batch shares in a group.
      chunk: tokens for each slot between two looks at what has ended.
      prefill_chunk: tokens of a prompt that are computed between two chunks.
    """

    prompts: int = 16
    group_size: int = 8
    max_prompt_length: int = 64
    max_response_length: int = 64
    overlong_prompts: Literal["refuse", "drop"] = "refuse"
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    slots: int = 0
    chunk: int = 16
    prefill_chunk: int = 256


@dataclass(frozen=True)
class VerifierConfig:
    """The pool of host processes that judge completions.

    Attributes:
      workers: processes; 0 judges in the training process, unprotected.
      timeout: seconds that one completion may take.
      memory_mib: address space of a process.
    """

    workers: int = 2
    timeout: float = 10.0
    memory_mib: int = 2048


@dataclass(frozen=True)
class EvaluationConfig:
    """Held-out evaluation.

    Attributes:
      every: steps between evaluations; the first and the last step are evaluated too.
      problems: held-out problems of each task, or all if it has fewer, answered greedily, for the accuracy.
      batch_size: problems that are answered at one time.
      pass_problems: the first so many of each task are also answered `pass_samples` times, at temperature 1 with
        `rollout.top_k` and `rollout.top_p`, for pass@k.
      pass_samples: samples for pass@k.
      ks: the k of pass@k, each at most `pass_samples`.
      shown: problems whose completions are kept in samples.jsonl.
    """

    every: int = 10
    problems: int = 256
    batch_size: int = 256
    pass_problems: int = 64
    pass_samples: int = 8
    ks: tuple[int, ...] = (1, 8)
    shown: int = 16


@dataclass(frozen=True)
class TrainingConfig:
    """The reinforcement learning run.

    Attributes:
      num_steps: steps, each of one batch of samples.
      save_every: steps between checkpoints; the last step is saved too.
      keep_checkpoints: how many of the newest are kept; the first always is.
      max_skipped_in_a_row: the run stops after so many updates in a row whose gradient was not finite.
      packing: "none" trains on a row for each sample; "prefix_tree" on a row for each prompt with all samples behind
        it, see `rlvr_jax.training.packing`. It computes the same, in less time where prompts are long.
      packing_multiple: packed rows are as long as the longest of an update, their responses' part rounded up to a
        multiple of this many tokens; each length is compiled once. 0 for one length, that of full responses.
    """

    num_steps: int = 100
    save_every: int = 50
    keep_checkpoints: int = 2
    max_skipped_in_a_row: int = 5
    packing: Literal["none", "prefix_tree"] = "none"
    packing_multiple: int = 0


@dataclass(frozen=True)
class SftConfig:
    """The supervised warm start on a task's demonstrations.

    Attributes:
      num_steps: updates.
      batch_size: demonstrations in each.
      updates_per_call: updates in one compiled call, between which nothing is logged.
      save_every: updates between checkpoints, a multiple of `updates_per_call`.
      optimizer: its optimizer.
    """

    num_steps: int = 1400
    batch_size: int = 64
    updates_per_call: int = 100
    save_every: int = 700
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(learning_rate=3e-3, warmup_steps=50, decay="linear")
    )


@dataclass(frozen=True)
class Config:
    """A whole run.

    Attributes:
      seed: of everything random, in [0, 2**32).
      init_from: workdir of an earlier run (SFT or RL) whose newest parameters this run starts from; empty for those of
        `pretrained`, or random ones without it.
      pretrained: folder or hub id of a Hugging Face checkpoint, which then decides the policy's shape, whatever
        `policy` says of it.
      shrink: divides the policy's sizes, to try a config on a small machine with random weights; see `policy.shrunk`.
      tokenizer: "characters" (of the tasks' alphabets), "bytes", or the folder or hub id of a Hugging Face one; empty
        takes that of `pretrained`, or "characters" without it.
      tasks: the problems, by a name for each source; several make a mixture.
      reward: (name, weight) terms whose weighted sum is the reward, see `rlvr_jax.rewards`.
    """

    seed: int = 0
    init_from: str = ""
    pretrained: str = ""
    shrink: int = 1
    tokenizer: str = ""
    tasks: Mapping[str, TaskConfig] = field(default_factory=lambda: {"modsum": TaskConfig()})
    prompt: PromptConfig = field(default_factory=PromptConfig)
    data: DataConfig = field(default_factory=DataConfig)
    policy: PolicyConfig = field(default_factory=PolicyConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    verifier: VerifierConfig = field(default_factory=VerifierConfig)
    reward: tuple[tuple[str, float], ...] = (("score", 1.0),)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    sft: SftConfig = field(default_factory=SftConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)


def from_dict(data: Mapping[str, Any]) -> Config:
    """The record of nested dictionaries, as they come from a config file or config.json; absent keys take defaults.

    Raises:
      ConfigError: an unknown key or a wrong type, by its full name.
    """
    return _record(Config(), data, "")


def to_dict(config: Config) -> dict[str, Any]:
    """Nested dictionaries of plain values, the inverse of `from_dict`."""
    return dataclasses.asdict(config)


def flatten(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a.b": value}` of nested dictionaries."""
    flat = {}
    for key, value in data.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line `key: old -> new` for each value that differs between two nested dictionaries."""
    old, new, absent = flatten(old), flatten(new), "(absent)"
    plain = lambda x: list(map(plain, x)) if isinstance(x, list | tuple) else x  # noqa: E731  JSON has no tuples
    return [
        f"{key}: {old.get(key, absent)} -> {new.get(key, absent)}"
        for key in sorted(old.keys() | new.keys())
        if plain(old.get(key, absent)) != plain(new.get(key, absent))
    ]


def _record(default: Any, data: Any, name: str) -> Any:
    """The record `default` with the values of `data`."""
    if not isinstance(data, Mapping):
        raise ConfigError(f"config.{name.rstrip('.')} must be a group of keys, not {data!r}")
    hints = typing.get_type_hints(type(default))
    for key in data:
        if key not in hints:
            close = difflib.get_close_matches(key, hints, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(hints)}"
            raise ConfigError(f"config.{name}{key}: there is no such key; {hint}")
    values = {key: _value(hints[key], value, name + key, getattr(default, key)) for key, value in data.items()}
    return dataclasses.replace(default, **values)


def _value(hint: Any, value: Any, name: str, default: Any = None) -> Any:
    """`value` as the annotated type `hint`; tuples may come as lists, floats as integers."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return _record(default, value, name + ".")
    if origin is Literal:
        if value not in args:
            raise ConfigError(f"config.{name} must be one of {', '.join(map(repr, args))}, not {value!r}")
        return value
    if origin is tuple and isinstance(value, list | tuple):
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else args
        if len(kinds) == len(value):
            return tuple(_value(kind, x, f"{name}[{i}]") for i, (kind, x) in enumerate(zip(kinds, value, strict=True)))
    elif origin is Mapping and isinstance(value, Mapping):
        if dataclasses.is_dataclass(args[1]):
            return {key: _record(args[1](), x, f"{name}.{key}.") for key, x in value.items()}
        return dict(value)  # a task's options, checked by the task
    elif hint is float and type(value) is int:
        return float(value)
    elif type(value) is hint:
        return value
    wanted = getattr(hint, "__name__", hint) if origin is None else hint
    raise ConfigError(f"config.{name} must be of type {wanted}, not {value!r}")


def check(config: Config, num_devices: int) -> None:
    """Refuses a config that can't run on `num_devices` devices.

    Raises:
      ConfigError: the first thing that is wrong, with the keys concerned and what to do.
    """
    for wrong, message in _problems(config, num_devices):
        if wrong:
            raise ConfigError(message)


def _problems(c: Config, num_devices: int):
    """(is it wrong, message) of every rule, in an order in which each may rely on the ones before."""
    p, r, o, e = c.policy, c.rollout, c.optimizer, c.evaluation
    optimizer = ("learning_rate", "eps", "clip_norm", "microbatches")
    positive = {
        "rollout": ("prompts", "max_prompt_length", "max_response_length", "temperature", "chunk", "prefill_chunk"),
        "algorithm": ("minibatches",),
        "optimizer": optimizer,
        "training": ("num_steps", "save_every", "keep_checkpoints", "max_skipped_in_a_row"),
        "sft": ("num_steps", "batch_size", "updates_per_call", "save_every"),
        "sft.optimizer": optimizer,
        "evaluation": ("every", "problems", "batch_size", "pass_samples"),
        "verifier": ("timeout", "memory_mib"),
    }
    not_negative = {
        "rollout": ("top_k", "slots"),
        "algorithm": ("clip_low", "clip_high", "kl_coef"),
        "optimizer": ("warmup_steps", "weight_decay"),
        "sft.optimizer": ("warmup_steps", "weight_decay"),
        "evaluation": ("pass_problems", "shown"),
        "training": ("packing_multiple",),
        "verifier": ("workers",),
    }
    value_of = lambda name: operator.attrgetter(name)(c)  # noqa: E731
    for name in (f"{group}.{key}" for group, keys in positive.items() for key in keys):
        yield not value_of(name) > 0, f"config.{name} must be above 0, not {value_of(name)}"  # catches nan, too
    for name in (f"{group}.{key}" for group, keys in not_negative.items() for key in keys):
        yield not value_of(name) >= 0, f"config.{name} must be 0 or more, not {value_of(name)}"
    for text in policy_problems(p):
        yield True, f"config.policy.{text}"
    for name in ("optimizer.b1", "optimizer.b2", "sft.optimizer.b1", "sft.optimizer.b2"):
        yield not 0 <= value_of(name) < 1, f"config.{name} must be in [0, 1), not {value_of(name)}"
    yield c.shrink < 1, f"config.shrink must be 1 or more, not {c.shrink}"
    yield (
        c.shrink > 1 and c.pretrained != "",
        f"config.shrink = {c.shrink} makes another policy than config.pretrained = {c.pretrained!r}; set one of them",
    )
    yield not 0 <= c.seed < 2**32, f"config.seed must be in [0, 2**32), not {c.seed}"
    yield (
        r.group_size < 2,
        (
            f"config.rollout.group_size is {r.group_size}: an advantage is relative to the other samples of its group, "
            "so a group needs at least 2"
        ),
    )
    for name, value in (("optimizer.learning_rate", o.learning_rate), ("rollout.temperature", r.temperature)):
        yield not math.isfinite(value), f"config.{name} must be finite, not {value}"
    yield not 0 < r.top_p <= 1, f"config.rollout.top_p must be in (0, 1], not {r.top_p}"
    yield (
        r.max_prompt_length + r.max_response_length > p.max_length,
        (
            f"config.rollout.max_prompt_length + max_response_length = {r.max_prompt_length} + {r.max_response_length} "
            f"is longer than the policy's window, config.policy.max_length = {p.max_length}"
        ),
    )
    yield not c.tasks, "config.tasks is empty: a run needs problems"
    for label, task in c.tasks.items():
        where = f"config.tasks.{label}"
        yield (
            not re.fullmatch(r"[A-Za-z0-9_.-]+", label),
            f"{where}: a task's key is made of letters, digits, _ . and -",
        )
        yield not 0 <= task.weight < math.inf, f"{where}.weight must be 0 or more and finite, not {task.weight}"
    yield not any(task.weight > 0 for task in c.tasks.values()), "config.tasks: no task has a weight above 0"
    yield "{prompt}" not in c.prompt.template, "config.prompt.template lacks the place {prompt}"
    yield not c.reward, "config.reward has no terms; the plain one is (('score', 1.0),)"
    names = [name for name, _ in c.reward]
    for name, weight in c.reward:
        yield names.count(name) > 1, f"config.reward names the term {name!r} twice"
        yield not math.isfinite(weight), f"config.reward gives {name!r} the weight {weight}, which is not finite"
    yield (
        c.algorithm.kl_coef > 0 and c.algorithm.reference == "none",
        (f"config.algorithm.kl_coef = {c.algorithm.kl_coef} needs config.algorithm.reference = 'initial'"),
    )
    yield (
        r.prompts % c.algorithm.minibatches != 0,
        (
            f"config.algorithm.minibatches = {c.algorithm.minibatches} does not divide config.rollout.prompts = "
            f"{r.prompts}"
        ),
    )
    yield (
        p.attention == "cudnn",
        "config.policy.attention = 'cudnn' is for rows without padding, and those of training have some; use 'auto'",
    )
    yield (
        p.attention == "splash" and c.training.packing == "prefix_tree",
        "config.policy.attention = 'splash' has no shared prefixes, which config.training.packing = 'prefix_tree' "
        "needs; use 'auto'",
    )
    for k in e.ks:
        yield (
            not 1 <= k <= e.pass_samples,
            (
                f"config.evaluation.ks holds {k}, which is not between 1 and config.evaluation.pass_samples = "
                f"{e.pass_samples}"
            ),
        )
    yield (
        e.pass_problems > e.problems,
        (f"config.evaluation.pass_problems = {e.pass_problems} is more than config.evaluation.problems = {e.problems}"),
    )
    yield (
        c.sft.save_every % c.sft.updates_per_call != 0 or c.sft.num_steps % c.sft.updates_per_call != 0,
        (
            f"config.sft.updates_per_call = {c.sft.updates_per_call} must divide config.sft.save_every = "
            f"{c.sft.save_every} and config.sft.num_steps = {c.sft.num_steps}"
        ),
    )
    try:
        data, fsdp, tensor = mesh_shape(c.mesh, num_devices)
    except ValueError as error:
        yield True, f"config.mesh: {error}"
    rows = data * fsdp
    split = f"the {rows} devices of the mesh axes data and fsdp"
    packed = c.training.packing == "prefix_tree"
    per_update = r.prompts * (1 if packed else r.group_size) // c.algorithm.minibatches
    what, factors = ("prompts", "") if packed else ("samples", " * group_size")
    yield r.slots % rows != 0, f"config.rollout.slots = {r.slots} can't be divided among {split}"
    yield r.prompts % rows != 0, f"config.rollout.prompts = {r.prompts} can't be divided among {split}"
    yield (
        per_update % (rows * o.microbatches) != 0,
        (
            f"an update has {per_update} {what} (config.rollout.prompts{factors} / config.algorithm.minibatches), "
            f"which can't be divided into config.optimizer.microbatches = {o.microbatches} parts among {split}"
            + ("; with config.training.packing = 'prefix_tree' the samples of a prompt stay together" if packed else "")
        ),
    )
    yield (
        c.sft.batch_size % (rows * c.sft.optimizer.microbatches) != 0,
        (
            f"config.sft.batch_size = {c.sft.batch_size} can't be divided into config.sft.optimizer.microbatches = "
            f"{c.sft.optimizer.microbatches} parts among {split}"
        ),
    )
    yield e.batch_size % rows != 0, f"config.evaluation.batch_size = {e.batch_size} can't be divided among {split}"
    for name, size in (("num_heads", p.num_heads), ("mlp_width", p.mlp_width)):
        yield (
            size % tensor != 0,
            f"config.policy.{name} = {size} can't be divided among config.mesh.tensor = {tensor} devices",
        )
    yield (
        p.width % fsdp != 0,
        f"config.policy.width = {p.width} can't be divided among config.mesh.fsdp = {fsdp} devices",
    )
