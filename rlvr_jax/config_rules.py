"""Validity rules of a config, checked before any long work starts."""

import datetime
import math
import operator
import re
from importlib.util import find_spec

from rlvr_jax import algorithm_rules, curriculum_rules, judge_rules, supervised_rules
from rlvr_jax.config import Config, Run
from rlvr_jax.device_rules import Rules, check_devices, refuse
from rlvr_jax.policy.config import problems as policy_problems
from rlvr_jax.supervised_rules import LABEL

_OPTIMIZERS = ("optimizer", "critic.optimizer", "sft.optimizer", "preferences.optimizer")
_NUMBERS = (
    "policy",
    "policy.lora",
    "policy.rope_scaling",
    "rollout",
    "verifier",
    "critic",
    "preferences",
    *_OPTIMIZERS,
)
_BOUNDS = ("clip", "clip_norm")  # of these, that may be infinite
_LONGEST = 1e6  # seconds that a thread can wait for


def check(config: Config, num_devices: int, num_processes: int = 1, run: Run | None = None) -> None:
    """Refuses a config that can't run on `num_devices` devices of `num_processes` processes.

    Args:
      config: of the run.
      num_devices, num_processes: that it has.
      run: its kind, whose batches the devices must divide; None for any.

    Raises:
      ConfigError: the first violated rule, with the keys and what to do.
    """
    refuse(_numbers(config))
    refuse(_problems(config))
    refuse(curriculum_rules.rules(config))
    refuse(algorithm_rules.rules(config))
    refuse(_choices(config))
    refuse(_evaluation(config))
    refuse(supervised_rules.rules(config))
    refuse(judge_rules.rules(config))
    check_devices(config, num_devices, num_processes, run)


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
        "evaluation": ("every", "problems"),
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
    for group in _NUMBERS:
        for key, value in vars(operator.attrgetter(group)(c)).items():
            endless = isinstance(value, float) and key not in _BOUNDS and not math.isfinite(value)
            yield endless, f"config.{group}.{key} must be finite, not {value}"
    yield (
        c.training.watchdog > _LONGEST,
        f"config.training.watchdog must be at most {_LONGEST:g} seconds, not {c.training.watchdog:g}; 0 for never",
    )
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
    yield (
        bool(c.training.profile) and not c.training.profiled,
        f"config.training.profile = {c.training.profile!r} must be the first and the last step of a trace, such as "
        "'10:13', or empty",
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
            task.template != "" and "{question}" not in task.wording,
            f"{where}.template lacks the place {{question}}, which stands for the text of the problem"
            + (f", or {{{task.prompt}}}, the field of the file" if task.file else ""),
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
    yield (
        e.pass_samples < 1,
        f"config.evaluation.pass_samples must be above 0, not {e.pass_samples}; config.evaluation.pass_problems = 0 "
        "samples none",
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
