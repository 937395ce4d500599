"""Validity rules of a config, checked before any long work starts."""

import datetime
import math
import operator
import re
from collections.abc import Iterator
from importlib.util import find_spec

from rlvr_jax import algorithm_rules, curriculum_rules, judge_rules, supervised_rules
from rlvr_jax.config import Config, Run, supervised_options
from rlvr_jax.errors import ConfigError
from rlvr_jax.hf.families import LENGTH
from rlvr_jax.learner.credit import has_critic
from rlvr_jax.parallel.mesh import mesh_shape
from rlvr_jax.policy.config import PolicyConfig
from rlvr_jax.policy.config import problems as policy_problems
from rlvr_jax.rollout.memory import tensor_sizes
from rlvr_jax.supervised_rules import LABEL, RUNS

_OPTIMIZERS = ("optimizer", "critic.optimizer", "sft.optimizer", "preferences.optimizer")
_FINITE = ("learning_rate", "eps", "weight_decay")  # of optimizers
Rules = Iterator[tuple[bool, str]]  # (is it wrong, message)


def check(config: Config, num_devices: int, num_processes: int = 1, run: Run | None = None) -> None:
    """Refuses a config that can't run on `num_devices` devices of `num_processes` processes.

    Args:
      config: of the run.
      num_devices, num_processes: that it has.
      run: its kind, whose batches the devices must divide; None for any.

    Raises:
      ConfigError: the first violated rule, with the keys and what to do.
    """
    _refuse(_numbers(config))
    _refuse(_problems(config))
    _refuse(curriculum_rules.rules(config))
    _refuse(algorithm_rules.rules(config))
    _refuse(_choices(config))
    _refuse(_evaluation(config))
    _refuse(supervised_rules.rules(config))
    _refuse(judge_rules.rules(config))
    sampling = config.rollout.devices
    if sampling and num_processes > 1:
        raise ConfigError(
            f"config.rollout.devices = {sampling}: with {num_processes} processes all devices train and sample; set 0"
        )
    if sampling >= num_devices:
        raise ConfigError(f"config.rollout.devices = {sampling} of {num_devices} devices leaves none to train on")
    try:
        data, fsdp, context, tensor = mesh_shape(config.mesh, num_devices - sampling)
    except ValueError as error:
        raise ConfigError(f"config.mesh: {error}") from error
    _refuse(_sampling(config, sampling or num_devices))
    if not config.pretrained:  # whose architecture is known later
        check_policy(config, config.policy, (fsdp, context, tensor), sampling or num_devices)
    _refuse(_batches(config, data * fsdp, run))


def check_update(config: Config, devices: int, rows_together: int = 1) -> None:
    """Refuses updates that can't be divided into microbatches over the devices of the mesh axes data and fsdp.

    Args:
      config: of a run of reinforcement learning.
      devices: of the mesh axes data and fsdp.
      rows_together: samples that the loss keeps in one microbatch, see `rlvr_jax.learner.losses.Loss`.

    Raises:
      ConfigError: with the keys and numbers.
    """
    _refuse(_update(config, devices, rows_together))


def check_policy(config: Config, policy: PolicyConfig, mesh: tuple[int, int, int], samplers: int) -> None:
    """Refuses a policy that can't be sharded, or whose window is too short.

    Args:
      config: of the run.
      policy: the architecture.
      mesh: sizes of the mesh axes fsdp, context and tensor that train.
      samplers: number of devices that sample.

    Raises:
      ConfigError: with the keys and numbers.
    """
    _refuse(_policy(policy, *mesh))
    _refuse(_sampled_policy(config, policy, samplers))
    rollout, length = config.rollout, policy.max_length or LENGTH
    if rollout.max_prompt_length + rollout.max_response_length > length:
        raise ConfigError(
            f"config.rollout.max_prompt_length + max_response_length = {rollout.max_prompt_length} + "
            f"{rollout.max_response_length} is longer than the policy's window, config.policy.max_length = {length}"
        )


def _refuse(rules: Rules) -> None:
    for wrong, message in rules:
        if wrong:
            raise ConfigError(message)


def _numbers(c: Config) -> Rules:
    """Ranges of single numbers; the other rules rely on them."""
    optimizer = ("learning_rate", "eps", "clip_norm", "microbatches")
    updates = ("num_steps", "batch_size", "updates_per_call", "save_every")
    positive = {
        "rollout": (
            *("prompts", "max_prompt_length", "max_response_length", "max_turns"),
            *("group_size", "temperature", "chunk", "prefill_chunk", "max_sequences"),
        ),
        "optimizer": optimizer,
        "critic.optimizer": optimizer,
        "training": ("num_steps", "save_every", "keep_checkpoints", "max_skipped_in_a_row"),
        "sft": updates,
        "sft.optimizer": optimizer,
        "preferences": (*updates, "beta"),
        "preferences.optimizer": optimizer,
        "evaluation": ("every", "problems", "pass_samples"),
        "verifier": ("timeout", "memory_mib"),
    }
    not_negative = {
        "rollout": ("top_k", "slots", "max_turn_length", "devices", "batch_size", "patience"),
        "mesh": ("rollout_tensor",),
        "critic": ("clip", "warmup_steps"),
        "optimizer": ("warmup_steps", "weight_decay"),
        "critic.optimizer": ("warmup_steps", "weight_decay"),
        "sft.optimizer": ("warmup_steps", "weight_decay"),
        "preferences": ("margin", "centring", "desirable", "undesirable"),
        "preferences.optimizer": ("warmup_steps", "weight_decay"),
        "evaluation": ("pass_problems", "shown"),
        "training": ("packing_multiple", "max_lag", "keep_every", "keep_best", "watchdog"),
        "verifier": ("workers",),
    }
    value_of = lambda name: operator.attrgetter(name)(c)  # noqa: E731
    for name in (f"{group}.{key}" for group, keys in positive.items() for key in keys):
        yield not value_of(name) > 0, f"config.{name} must be above 0, not {value_of(name)}"  # catches nan, too
    for name in (f"{group}.{key}" for group, keys in not_negative.items() for key in keys):
        yield not value_of(name) >= 0, f"config.{name} must be 0 or more, not {value_of(name)}"
    for text in policy_problems(c.policy):
        yield True, f"config.policy.{text}"
    for name in (f"{group}.{key}" for group in _OPTIMIZERS for key in ("b1", "b2", "beta")):
        yield not 0 <= value_of(name) < 1, f"config.{name} must be in [0, 1), not {value_of(name)}"


def _choices(c: Config) -> Rules:
    """Combinations of keys."""
    p, r = c.policy, c.rollout
    yield c.shrink < 1, f"config.shrink must be 1 or more, not {c.shrink}"
    yield (
        c.shrink > 1 and c.pretrained != "",
        f"config.shrink = {c.shrink} makes another policy than config.pretrained = {c.pretrained!r}; set one of them",
    )
    yield not 0 <= c.seed < 2**32, f"config.seed must be in [0, 2**32), not {c.seed}"
    of_optimizers = [f"{group}.{key}" for group in _OPTIMIZERS for key in _FINITE]
    for name in ("rollout.temperature", "verifier.timeout", *of_optimizers):
        value = operator.attrgetter(name)(c)
        yield not math.isfinite(value), f"config.{name} must be finite, not {value}"
    for name, o in {
        "optimizer": c.optimizer,
        "critic.optimizer": c.critic.optimizer,
        "sft.optimizer": c.sft.optimizer,
    }.items():
        yield (
            o.name == "adafactor" and o.moments == "float8",
            f"config.{name}.moments = 'float8' is for Adam and Muon; Adafactor's moments are small, leave 'float32'",
        )
    yield (
        p.lora.rank > 0 and "muon" in (c.optimizer.name, c.sft.optimizer.name),
        f"config.optimizer.name = 'muon' orthogonalises whole matrices, and config.policy.lora.rank = {p.lora.rank} "
        "trains adapters only; use 'adamw'",
    )
    yield (
        c.training.offload_reference and c.algorithm.reference_every > 0,
        f"config.training.offload_reference needs a reference policy that stays, and config.algorithm.reference_every "
        f"= {c.algorithm.reference_every} moves it",
    )
    yield (
        c.training.offload_reference and c.algorithm.reference != "initial",
        "config.training.offload_reference has no effect: with config.algorithm.reference = "
        f"{c.algorithm.reference!r} the run keeps no copy of its first policy; set False",
    )
    yield not 0 < r.top_p <= 1, f"config.rollout.top_p must be in (0, 1], not {r.top_p}"
    yield (
        "wandb" in c.reporting and find_spec("wandb") is None,
        "config.reporting names 'wandb', whose package is not installed: pip install 'rlvr_jax[wandb]'",
    )
    yield (
        c.training.max_lag >= c.training.num_steps,
        f"config.training.max_lag = {c.training.max_lag} must be below config.training.num_steps = "
        f"{c.training.num_steps}: no more steps than there are can be sampled ahead",
    )
    profile = c.training.profile
    yield (
        bool(profile) and not (len(profile) == 2 and 1 <= profile[0] <= profile[1]),
        f"config.training.profile = {profile} must be two steps, the first and the last, or empty",
    )
    yield (
        r.prompts % c.algorithm.minibatches != 0,
        (
            f"config.algorithm.minibatches = {c.algorithm.minibatches} does not divide config.rollout.prompts = "
            f"{r.prompts}"
        ),
    )
    yield (
        r.max_sequences > 1 and c.training.packing == "prefix_tree",
        f"config.training.packing = 'prefix_tree' makes one row of a prompt's samples, and with "
        f"config.rollout.max_sequences = {r.max_sequences} these have several prompts; set 'none'",
    )
    yield (
        p.attention == "cudnn",
        "config.policy.attention = 'cudnn' supports no padding, which training rows have; use 'auto'",
    )
    yield (
        p.attention == "splash" and c.training.packing == "prefix_tree",
        "config.policy.attention = 'splash' has no shared prefixes, which config.training.packing = 'prefix_tree' "
        "needs; use 'auto'",
    )


def _problems(c: Config) -> Rules:
    """Tasks, their prompts and the reward."""
    yield not c.tasks, "config.tasks is empty: a run needs problems"
    for label, task in c.tasks.items():
        where = f"config.tasks.{label}"
        yield (
            not re.fullmatch(LABEL, label),
            f"{where}: a task's key is made of letters, digits, _ . and -",
        )
        yield (
            task.template != "" and "{question}" not in task.template,
            f"{where}.template lacks the place {{question}}",
        )
        yield task.level != "" and not task.file, f"{where}.level is a field of a {where}.file, which is not set"
        yield task.heldout_file != "" and not task.file, f"{where}.heldout_file goes with a {where}.file"
        yield (
            task.file != "" and (task.name != "" or bool(task.options)),
            f"{where} has a file and the name or options of a built-in task; set one of them",
        )
        yield (
            task.file != "" and task.verifier == "",
            f"{where}.file needs a {where}.verifier: a kind such as 'math', or 'module:function'",
        )
        yield not 0 <= task.heldout_share < 1, f"{where}.heldout_share must be in [0, 1), not {task.heldout_share}"
        yield not 0 <= task.weight < math.inf, f"{where}.weight must be 0 or more and finite, not {task.weight}"
        yield task.shots < 0, f"{where}.shots must be 0 or more, not {task.shots}"
    yield not any(task.weight > 0 for task in c.tasks.values()), "config.tasks: no task has a weight above 0"
    yield "{prompt}" not in c.prompt.template, "config.prompt.template lacks the place {prompt}"
    yield not _is_day(c.prompt.date), f"config.prompt.date must be year-month-day, not {c.prompt.date!r}"
    yield not c.reward, "config.reward has no terms; the plain one is (('score', 1.0),)"
    names = [name for name, _ in c.reward]
    for name, weight in c.reward:
        yield names.count(name) > 1, f"config.reward names the term {name!r} twice"
        yield not math.isfinite(weight), f"config.reward gives {name!r} the weight {weight}, which is not finite"


def _is_day(text: str) -> bool:
    try:
        return datetime.date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _evaluation(c: Config) -> Rules:
    e = c.evaluation
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


def _update(c: Config, devices: int, rows_together: int) -> Rules:
    r = c.rollout
    packed = c.training.packing == "prefix_tree"
    per_update = r.prompts * (1 if packed else r.group_rows) // c.algorithm.minibatches
    what, factors = ("prompts", "") if packed else ("samples", " * group_size")
    if r.max_sequences > 1:
        what, factors = "rows", " * group_size * max_sequences"
    reason = f"; the loss keeps {rows_together} samples together" if rows_together > 1 else ""
    if packed:
        reason = "; with config.training.packing = 'prefix_tree' the samples of a prompt stay together"
    yield (
        packed and rows_together > 1,
        f"config.training.packing = 'prefix_tree' makes one row of a prompt's samples, and the loss reads "
        f"{rows_together} rows together; set 'none'",
    )
    optimizers = {"optimizer": c.optimizer}
    if has_critic(c.algorithm):
        optimizers["critic.optimizer"] = c.critic.optimizer
    for name, o in optimizers.items():
        yield (
            per_update % (devices * o.microbatches * rows_together) != 0,
            (
                f"an update has {per_update} {what} (config.rollout.prompts{factors} / config.algorithm.minibatches), "
                f"which can't be divided into config.{name}.microbatches = {o.microbatches} parts among "
                f"{_split(devices)}{reason}"
            ),
        )


def _split(devices: int) -> str:
    return f"the {devices} devices of the mesh axes data and fsdp"


def batch_rows(c: Config) -> tuple[str, int]:
    """The key of `config.rollout`, and its number, that the devices which sample divide among them."""
    keys = ("slots", "batch_size", "prompts")
    return next((key, getattr(c.rollout, key)) for key in keys if getattr(c.rollout, key))


def _sampling(c: Config, devices: int) -> Rules:
    """Sampling on `devices` devices; the policy's part is in `_sampled_policy`."""
    r, tensor, (key, rows) = c.rollout, c.mesh.rollout_tensor, batch_rows(c)
    yield (
        r.slots > 0 and r.batch_size > 0,
        f"config.rollout.batch_size = {r.batch_size} is for sampling without slots, and config.rollout.slots = "
        f"{r.slots}; set one of them",
    )
    if r.in_flight != "finish":
        goes_on = f"config.rollout.in_flight = {r.in_flight!r}"
        for key in ("rollout.slots", "training.max_lag"):
            value = operator.attrgetter(key)(c)
            yield (
                value == 0,
                f"config.{key} = 0: {goes_on} lets episodes go on after an update, which needs more than 0",
            )
        further = {
            "max_draws": c.algorithm.max_draws > 1,
            "baseline": c.algorithm.baseline in ("greedy", "monte_carlo"),
        }
        for key, asks in further.items():
            yield (
                asks,
                f"config.algorithm.{key} = {getattr(c.algorithm, key)!r} samples further episodes in a step, and "
                f"{goes_on} trains it on the groups that finish first; set 'finish'",
            )
    if tensor:
        yield devices % tensor != 0, f"config.mesh.rollout_tensor = {tensor} does not divide {_samplers(c, devices)}"
        yield (
            rows % (devices // tensor) != 0,
            f"config.rollout.{key} = {rows} can't be divided among {_samplers(c, devices)}, in groups of "
            f"config.mesh.rollout_tensor = {tensor}",
        )


def _sampled_policy(c: Config, p: PolicyConfig, devices: int) -> Rules:
    tensor, (key, rows) = c.mesh.rollout_tensor, batch_rows(c)
    yield from _divided(p, tensor or 1, "rollout_tensor")
    yield (
        not tensor and not tensor_sizes(p, devices, rows),
        f"config.rollout.{key} = {rows} can't be divided among {_samplers(c, devices)}, nor among groups of them whose "
        f"size divides config.policy.num_heads = {p.num_heads} and mlp_width = {p.mlp_width}",
    )


def _samplers(c: Config, devices: int) -> str:
    return f"the {devices} devices that sample" + " (config.rollout.devices)" * bool(c.rollout.devices)


def _batches(c: Config, rows: int, run: Run | None) -> Rules:
    """Batches of training are divided among the `rows` devices of the mesh axes data and fsdp."""
    if run in ("rl", None):
        yield from _update(c, rows, 1)
    for name in RUNS if run is None else {run} & {*RUNS}:
        s = supervised_options(c, name)
        yield (
            s.batch_size % (rows * s.optimizer.microbatches) != 0,
            f"config.{name}.batch_size = {s.batch_size} can't be divided into config.{name}.optimizer.microbatches = "
            f"{s.optimizer.microbatches} parts among {_split(rows)}",
        )


def _divided(p: PolicyConfig, tensor: int, key: str) -> Rules:
    for name, size in (("num_heads", p.num_heads), ("mlp_width", p.mlp_width)):
        yield (
            size % tensor != 0,
            f"config.policy.{name} = {size} can't be divided among config.mesh.{key} = {tensor} devices",
        )


def _policy(p: PolicyConfig, fsdp: int, context: int, tensor: int) -> Rules:
    yield from _divided(p, tensor, "tensor")
    yield (
        p.num_heads % (context * tensor) != 0,
        f"config.policy.num_heads = {p.num_heads} can't be divided among config.mesh.context = {context} times "
        f"config.mesh.tensor = {tensor} devices",
    )
    yield (
        p.width % (fsdp * context) != 0,
        f"config.policy.width = {p.width} can't be divided among config.mesh.fsdp = {fsdp}"
        + f" times config.mesh.context = {context}" * (context > 1)
        + " devices",
    )
