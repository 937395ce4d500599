"""Validity rules of `config.algorithm`: names of choices, and choices that contradict each other."""

import difflib
import math
from collections.abc import Iterator, Mapping
from typing import Any

from rlvr_jax import named, objective_rules
from rlvr_jax.config import Config
from rlvr_jax.learner.advantages import KEEPS
from rlvr_jax.learner.aggregation import AGGREGATIONS
from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.baselines import BASELINES, SCALES
from rlvr_jax.learner.clips import CLIPS
from rlvr_jax.learner.correction import CORRECTIONS
from rlvr_jax.learner.credit import by_action, has_critic
from rlvr_jax.learner.entropy import ENTROPIES
from rlvr_jax.learner.kl import KLS, REFUSED
from rlvr_jax.learner.lengths import LENGTHS
from rlvr_jax.learner.ratios import RATIOS

_BOUNDS = ("clip_low", "clip_high", "importance_cap", "cov_high")

Rules = Iterator[tuple[bool, str]]  # (is it wrong, message)

CHOICES: Mapping[str, Mapping[str, Any]] = {
    "baseline": BASELINES,
    "scale": SCALES,
    "length_reward": LENGTHS,
    "keep": KEEPS,
    "ratio": RATIOS,
    "clip": CLIPS,
    "aggregation": AGGREGATIONS,
    "correction": CORRECTIONS,
    "kl": KLS,
    "entropy": ENTROPIES,
}


def rules(c: Config) -> Rules:
    """All rules; later ones rely on earlier ones."""
    yield from _names(c)
    yield from _numbers(c)
    yield from _further_episodes(c.algorithm, c.rollout.group_size)
    yield from _replay(c.algorithm, c.rollout.prompts)
    yield from _lengths(c)
    if c.algorithm.advantage == "baseline":
        yield from _advantages(c)
    yield from _losses(c)
    yield from _tokens(c)
    yield from objective_rules.rules(c)


def _names(c: Config) -> Rules:
    a = c.algorithm
    for key, table in CHOICES.items():
        value = getattr(a, key)
        close = difflib.get_close_matches(value, table, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(table)}"
        if key == "kl" and value in REFUSED:
            hint = REFUSED[value]
        yield value not in table, f"config.algorithm.{key} = {value!r}: {hint}"
    yield (
        a.advantage != "baseline" and not named.is_name(a.advantage),
        f"config.algorithm.advantage = {a.advantage!r}: there are 'baseline', and 'module:function'",
    )


def _numbers(c: Config) -> Rules:
    a = c.algorithm
    yield a.ddof not in (0, 1), f"config.algorithm.ddof must be 0 or 1, not {a.ddof}"
    yield not a.clip_dual > 1, f"config.algorithm.clip_dual must be above 1, not {a.clip_dual}"
    for key in (
        *("tau_positive", "tau_negative", "importance_cap", "minibatches", "epochs", "pass_k"),
        *("demonstration_shaping", "preference_beta"),
        *("max_draws", "state_samples", "max_states", "tracker_prior", "tracker_drift", "replay_size"),
        "kl_reward_horizon",
    ):
        yield not getattr(a, key) > 0, f"config.algorithm.{key} must be above 0, not {getattr(a, key)}"
        yield _endless(a, key)
    yield (
        not 0 <= a.tracker_low <= a.tracker_high <= 1,
        f"config.algorithm.tracker_low = {a.tracker_low} and tracker_high = {a.tracker_high} must be from 0 to 1, in "
        "this order",
    )
    for key in (
        *("clip_low", "clip_high", "kl_coef", "scale_epsilon", "importance_floor", "length_coef", "mirror_tau"),
        *("length_target", "length_buffer", "aggregation_tokens", "entropy_coef", "entropy_target"),
        *("entropy_delta", "cov_low"),
        *("kl_reward_coef", "kl_reward_target", "reference_every", "gae_length", "step_length"),
    ):
        yield not getattr(a, key) >= 0, f"config.algorithm.{key} must be 0 or more, not {getattr(a, key)}"
        yield _endless(a, key)


def _endless(a: AlgorithmConfig, key: str) -> tuple[bool, str]:
    """Only bounds may be infinite."""
    value = getattr(a, key)
    return value == math.inf and key not in _BOUNDS, f"config.algorithm.{key} must be finite, not {value}"


def _advantages(c: Config) -> Rules:
    a, size = c.algorithm, c.rollout.group_size
    of_group = a.baseline in ("group_mean", "leave_one_out", "length_weighted", "pass_at_k", "best_worst")
    yield (
        size < 2 and of_group,
        f"config.rollout.group_size is {size}: config.algorithm.baseline = {a.baseline!r} is relative to the other "
        "samples of a group, so a group needs at least 2; or use baseline = 'batch_mean' or 'none', and scale = "
        "'batch_std' or 'none'",
    )
    yield (
        a.baseline == "leave_one_out" and a.scale in ("group_std", "group_mean"),
        f"config.algorithm.baseline = 'leave_one_out' with scale = {a.scale!r}, which has the sample itself in it, is "
        "'group_mean' times G / (G - 1); use scale = 'none' or 'batch_std', or baseline = 'group_mean'",
    )
    yield (
        a.baseline in ("batch_mean", "none", "greedy", "tracker", "best_worst")
        and a.scale in ("group_std", "group_mean"),
        f"config.algorithm.scale = {a.scale!r} with baseline = {a.baseline!r}: in a group of equal rewards the "
        "deviation is 0 and the difference is not; use scale = 'batch_std' or 'none', or baseline = 'group_mean'",
    )
    yield (
        (a.scale == "pass_at_k_std") != (a.baseline == "pass_at_k") and (a.baseline, a.scale) != ("pass_at_k", "none"),
        f"config.algorithm.baseline = {a.baseline!r} with scale = {a.scale!r}: 'pass_at_k' goes with 'pass_at_k_std' "
        "or 'none', and 'pass_at_k_std' with 'pass_at_k' alone",
    )
    yield (
        a.baseline == "pass_at_k" and a.pass_k >= size,
        f"config.algorithm.pass_k = {a.pass_k} must be below config.rollout.group_size = {size}: with as many samples "
        "all advantages are 0",
    )
    of_binary = (("baseline", "pass_at_k"), ("scale", "group_mean"))
    binary = next((f"{key} = {value!r}" for key, value in of_binary if getattr(a, key) == value), "")
    terms = tuple((name, weight) for name, weight in c.reward if weight != 0)
    for key, value, plain in (
        ("reward", c.reward, terms == (("score", 1.0),)),
        ("algorithm.length_reward", a.length_reward, a.length_reward == "none"),
        ("algorithm.kl_reward_coef", a.kl_reward_coef, a.kl_reward_coef == 0),
    ):
        wanted = {"reward": "(('score', 1.0),)", "algorithm.length_reward": "'none'"}.get(key, "0")
        yield (
            binary != "" and not plain,
            f"config.algorithm.{binary} needs rewards of 0 and 1: config.{key} must be {wanted}, not {value!r}; or use "
            "baseline = 'group_mean' and scale = 'group_std'",
        )


def _lengths(c: Config) -> Rules:
    a = c.algorithm
    budget = c.rollout.max_response_length
    yield (
        a.length_reward == "soft_overlong" and a.length_buffer > budget,
        f"config.algorithm.length_buffer = {a.length_buffer} is longer than config.rollout.max_response_length = "
        f"{budget}",
    )
    yield (
        a.length_reward in ("exact", "maximum") and a.length_target == 0,
        f"config.algorithm.length_reward = {a.length_reward!r} needs a config.algorithm.length_target, in tokens",
    )


def _further_episodes(a: AlgorithmConfig, size: int) -> Rules:
    """Replaced groups, demonstrations, greedy baselines, values of states."""
    yield (
        a.advantage != "baseline" and a.baseline in ("greedy", "monte_carlo", "tracker", "value"),
        f"config.algorithm.advantage = {a.advantage!r} takes the place of config.algorithm.baseline = {a.baseline!r}, "
        "whose episodes or values it does not read; set baseline = 'group_mean', and what goes with it "
        f"(preset = {a.preset!r}), or advantage = 'baseline'",
    )
    yield (
        a.max_draws > 1 and a.keep == "all",
        f"config.algorithm.max_draws = {a.max_draws} replaces groups that are dropped, and config.algorithm.keep = "
        "'all' drops none; use keep = 'mixed_groups', or max_draws = 1",
    )
    yield (
        a.baseline == "greedy" and a.max_draws > 1,
        "config.algorithm.baseline = 'greedy' compares with a response to each prompt of the first draw; use max_draws "
        f"= 1 instead of {a.max_draws}, or baseline = 'group_mean'",
    )
    yield (
        not 0 <= a.demonstrations < max(size, 1),
        f"config.algorithm.demonstrations must be from 0 to {size - 1}, below config.rollout.group_size, not "
        f"{a.demonstrations}",
    )
    for key, value, plain in (
        ("baseline", a.baseline, a.baseline in ("group_mean", "leave_one_out", "batch_mean", "none")),
        ("correction", a.correction, a.correction == "none"),
        ("entropy", a.entropy, a.entropy in ("none", "bonus")),
        ("kl_coef", a.kl_coef, a.kl_coef == 0),
        ("kl_reward_coef", a.kl_reward_coef, a.kl_reward_coef == 0),
    ):
        yield (
            a.demonstrations > 0 and not plain,
            f"config.algorithm.{key} = {value!r} needs a policy that sampled, which the demonstrations of "
            f"config.algorithm.demonstrations = {a.demonstrations} do not have; set it to "
            + ("'group_mean'" if key == "baseline" else "0" if "kl" in key else "'none'"),
        )
    yield (
        a.baseline == "monte_carlo" and a.step_length == 0 and not a.step_delimiter,
        "config.algorithm.step_delimiter is empty, and step_length 0, so there are no steps of reasoning; set one",
    )
    changed = "shuffle_rewards" * a.shuffle_rewards or "length_reward" * (a.length_reward != "none")
    yield (
        a.baseline == "monte_carlo" and changed != "",
        f"config.algorithm.{changed} changes the rewards of episodes, and with baseline = 'monte_carlo' those of "
        "states would stay as they are; use another baseline",
    )
    yield (
        a.baseline == "monte_carlo" and (a.gamma < 1 or a.kl_reward_coef > 0),
        f"config.algorithm.gamma = {a.gamma} and kl_reward_coef = {a.kl_reward_coef}: with baseline = 'monte_carlo' "
        "the value of a state is a mean of rewards; use gamma = 1, and a KL term in the loss (kl_coef)",
    )


def _replay(a: AlgorithmConfig, prompts: int) -> Rules:
    """Groups that are trained on again."""
    yield (
        not 0 <= a.replay < max(prompts, 1),
        f"config.algorithm.replay must be from 0 to {prompts - 1}, below config.rollout.prompts, not {a.replay}",
    )
    yield (
        a.replay > a.replay_size,
        f"config.algorithm.replay = {a.replay} is more than config.algorithm.replay_size = {a.replay_size}",
    )
    corrected = (a.ratio != "none" and a.proximal == "behaviour") or a.correction != "none"
    yield (
        a.replay > 0 and not corrected,
        f"config.algorithm.replay = {a.replay} trains on samples of earlier policies, and config.algorithm.ratio = "
        f"{a.ratio!r}, proximal = {a.proximal!r} and correction = 'none' do not weigh them; set ratio = 'token' and "
        "proximal = 'behaviour', or proximal = 'recompute' and correction = 'token_tis'",
    )
    plain = ("group_mean", "leave_one_out", "batch_mean", "none", "length_weighted", "pass_at_k")
    for key, value, fits in (
        ("baseline", a.baseline, a.baseline in plain),
        ("kl_reward_coef", a.kl_reward_coef, a.kl_reward_coef == 0),
    ):
        yield (
            a.replay > 0 and not fits,
            f"config.algorithm.{key} = {value!r} is of the samples of this step, and those of config.algorithm.replay "
            f"= {a.replay} are older; set it to {0 if 'kl' in key else repr('group_mean')}, or replay = 0",
        )


def _losses(c: Config) -> Rules:
    a = c.algorithm
    yield (
        a.ratio in ("none", "geometric") and a.clip != "none",
        f"config.algorithm.ratio = {a.ratio!r} leaves no ratio to clip"
        + (", since it clips the log-ratios of tokens itself" if a.ratio == "geometric" else "")
        + f": set config.algorithm.clip = 'none' instead of {a.clip!r}",
    )
    yield (
        a.clip in ("dcpo", "dppo", "mirror") and a.ratio != "token",
        f"config.algorithm.clip = {a.clip!r} is of the log-probs of tokens; use ratio = 'token' instead of {a.ratio!r}",
    )
    yield (
        a.correction != "none" and a.proximal == "behaviour",
        f"config.algorithm.correction = {a.correction!r} with proximal = 'behaviour', whose ratio already is relative "
        "to the policy that sampled, would count that twice; use proximal = 'recompute', or correction = 'none'",
    )
    filters = f"config.rollout.top_k = {c.rollout.top_k} and top_p = {c.rollout.top_p}"
    yield (
        (c.rollout.top_k > 0 or 0 < c.rollout.top_p < 1) and a.correction == "none",
        f"{filters} sample from a part of the distribution that is trained, which config.algorithm.correction = 'none' "
        "does not correct; set top_k = 0 and top_p = 1, or correction = 'token_tis' with proximal = 'recompute'",
    )
    yield (
        a.proximal == "current" and a.minibatches * a.epochs > 1,
        f"config.algorithm.proximal = 'current' is for one update in a step, and config.algorithm.minibatches = "
        f"{a.minibatches} and epochs = {a.epochs}; use 'recompute'",
    )
    yield (
        a.proximal != "behaviour" and a.ratio == "none" and a.correction == "none",
        f"config.algorithm.proximal = {a.proximal!r}: without a ratio and a correction nothing reads it; use "
        "'behaviour'",
    )
    yield (
        a.importance_floor > a.importance_cap,
        f"config.algorithm.importance_floor = {a.importance_floor} is above importance_cap = {a.importance_cap}",
    )
    yield (
        a.entropy != "adaptive" and (a.entropy in ("bonus", "kl_cov")) != (a.entropy_coef > 0),
        f"config.algorithm.entropy_coef = {a.entropy_coef} with entropy = {a.entropy!r}: 'bonus' and 'kl_cov' need a "
        "coefficient above 0, 'adaptive' may start with one, and the others have none",
    )
    yield (
        not 0 < a.entropy_share < 1,
        f"config.algorithm.entropy_share must be between 0 and 1, not {a.entropy_share}",
    )
    yield (
        not a.cov_low < a.cov_high,
        f"config.algorithm.cov_low = {a.cov_low} must be below config.algorithm.cov_high = {a.cov_high}",
    )
    yield (
        a.kl_coef > 0 and a.kl == "none",
        f"config.algorithm.kl_coef = {a.kl_coef} with kl = 'none'; set one of them, such as kl = 'k3'",
    )
    yield (
        a.kl_coef > 0 and a.reference == "none",
        f"config.algorithm.kl_coef = {a.kl_coef} needs config.algorithm.reference = 'initial'",
    )


def _tokens(c: Config) -> Rules:
    """The critic, rewards of tokens, and the reference policy."""
    a, critic, learned = c.algorithm, c.critic, has_critic(c.algorithm)
    for name, value in (
        ("algorithm.gamma", a.gamma),
        ("algorithm.gae_lambda", a.gae_lambda),
        ("algorithm.return_lambda", a.return_lambda),
        ("algorithm.reference_share", a.reference_share),
        ("algorithm.distillation_beta", a.distillation_beta),
    ):
        yield not 0 <= value <= 1, f"config.{name} must be in [0, 1], not {value}"
    for name, value, plain in (
        ("algorithm.gae_lambda", a.gae_lambda, 1),
        ("algorithm.gae_length", a.gae_length, 0),
        ("algorithm.return_lambda", a.return_lambda, 1),
        ("critic.warmup_steps", critic.warmup_steps, 0),
    ):
        yield (
            value != plain and not learned,
            f"config.{name} = {value} needs a critic: set config.algorithm.baseline = 'value', or leave it at {plain}",
        )
    yield (
        a.gamma < 1 and not by_action(a),
        f"config.algorithm.gamma = {a.gamma} discounts single tokens, and config.algorithm.baseline = {a.baseline!r} "
        "compares whole samples; use the baseline 'value' or 'none', or gamma = 1",
    )
    yield (
        by_action(a) and a.scale not in ("none", "token_whitening"),
        f"config.algorithm.scale = {a.scale!r} scales advantages of samples, and with config.algorithm.baseline = "
        f"{a.baseline!r}, gamma = {a.gamma} and kl_reward_coef = {a.kl_reward_coef} each token has its own; use "
        "'token_whitening' or 'none'",
    )
    yield (
        learned and c.policy.lora.rank > 0,
        f"config.algorithm.baseline = 'value' trains a critic of all parameters, and config.policy.lora.rank = "
        f"{c.policy.lora.rank} adapters alone; set rank = 0, or a baseline without critic such as 'group_mean'",
    )
    yield (
        critic.warmup_steps >= c.training.num_steps and learned,
        f"config.critic.warmup_steps = {critic.warmup_steps} must be below config.training.num_steps = "
        f"{c.training.num_steps}, or the policy is never trained",
    )
    for name in ("kl_reward_coef", "reference_every"):
        value = getattr(a, name)
        yield (
            value > 0 and a.reference == "none",
            f"config.algorithm.{name} = {value} needs config.algorithm.reference = 'initial'",
        )
    yield (
        a.kl_reward_coef > 0 and a.kl_coef > 0,
        f"config.algorithm.kl_reward_coef = {a.kl_reward_coef} and config.algorithm.kl_coef = {a.kl_coef} penalise the "
        "same divergence, in the reward and in the loss; set one of them to 0",
    )
    yield (
        a.kl_reward_target > 0 and not a.kl_reward_coef,
        f"config.algorithm.kl_reward_target = {a.kl_reward_target} needs a first config.algorithm.kl_reward_coef above "
        "0, such as 0.05",
    )
