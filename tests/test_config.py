"""The configuration: dictionaries in and out, what is refused and how it is said, and differences."""

import dataclasses
import itertools
import json
import math
import re
from typing import Any

import pytest

from rlvr_jax.config import (
    Config,
    MeshConfig,
    RolloutConfig,
    TaskConfig,
    anywhere,
    differences,
    flatten,
    from_dict,
    overridden,
    to_dict,
)
from rlvr_jax.config_rules import check
from rlvr_jax.device_rules import check_update
from rlvr_jax.errors import ConfigError


def changed(**values: Any) -> Config:
    """The defaults with values by full name, dots written as double underscores."""
    data: dict[str, Any] = {}
    for name, value in values.items():
        *groups, key = name.split("__")
        inner = data
        for group in groups:
            inner = inner.setdefault(group, {})
        inner[key] = value
    return from_dict(data)


OTHER = {
    "seed": 7,
    "init_from": "runs/sft",
    "tasks": {"small": {"name": "countdown", "options": {"numbers": 3}, "weight": 2}, "modsum": {}},
    "reward": [["score", 1.0], ["format", 0.5]],
    "rollout": {"prompts": 32, "top_p": 0.9},
    "evaluation": {"ks": [1, 2, 4]},
    "sft": {"optimizer": {"weight_decay": 0.1}},
}


@pytest.mark.parametrize("data", [{}, OTHER], ids=["defaults", "others"])
def test_a_config_comes_back_from_its_dictionary_and_from_json(data):
    config = from_dict(data)
    assert from_dict(to_dict(config)) == config
    assert from_dict(json.loads(json.dumps(to_dict(config)))) == config


def test_absent_keys_take_the_defaults_of_their_place():
    assert from_dict({}) == Config()
    config = from_dict(OTHER)
    assert config.rollout == dataclasses.replace(Config().rollout, prompts=32, top_p=0.9)
    # The optimizer of the warm start has other defaults than that of reinforcement learning.
    assert config.sft.optimizer == dataclasses.replace(Config().sft.optimizer, weight_decay=0.1)
    assert config.sft.optimizer.learning_rate != config.optimizer.learning_rate


def test_lists_become_tuples_and_integers_floats_where_the_type_says_so():
    config = from_dict({"reward": [["score", 1]], "evaluation": {"ks": [1, 2]}, "optimizer": {"learning_rate": 1}})
    assert config.reward == (("score", 1.0),)
    assert config.evaluation.ks == (1, 2)
    assert isinstance(config.reward[0][1], float)
    assert isinstance(config.optimizer.learning_rate, float)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"rolout": {}}, "config.rolout: there is no such key; did you mean 'rollout'?"),
        ({"rollout": {"promts": 4}}, "config.rollout.promts: there is no such key; did you mean 'prompts'?"),
        ({"sft": {"optimizer": {"learning_rat": 1.0}}}, "config.sft.optimizer.learning_rat: there is no such key; did"),
        ({"mesh": {"zzz": 1}}, "config.mesh.zzz: there is no such key; known keys: data, fsdp, tensor"),
    ],
)
def test_an_unknown_key_is_named_in_full_with_a_proposal_or_all_that_there_are(data, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        from_dict(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"seed": "1"}, "config.seed must be of type int, not '1'"),
        ({"seed": 1.0}, "config.seed must be of type int, not 1.0"),
        ({"seed": True}, "config.seed must be of type int, not True"),
        ({"seed": None}, "config.seed must be of type int, not None"),
        ({"init_from": 3}, "config.init_from must be of type str, not 3"),
        ({"rollout": {"top_p": "0.9"}}, "config.rollout.top_p must be of type float, not '0.9'"),
        ({"rollout": {"top_p": True}}, "config.rollout.top_p must be of type float, not True"),
        ({"rollout": {"prompts": 16.0}}, "config.rollout.prompts must be of type int, not 16.0"),
        ({"policy": {"qkv_bias": 1}}, "config.policy.qkv_bias must be of type bool, not 1"),
        ({"rollout": 3}, "config.rollout must be a group of keys, not 3"),
        ({"sft": {"optimizer": []}}, "config.sft.optimizer must be a group of keys, not []"),
        ({"policy": {"dtype": "float16"}}, "config.policy.dtype must be one of 'float32', 'bfloat16', not 'float16'"),
        ({"policy": {"dtype": ["float32"]}}, "config.policy.dtype must be one of 'float32', 'bfloat16', not"),
        ({"reward": ("score", 1)}, "config.reward must be (('score', 1),), with a comma"),
        ({"evaluation": {"ks": 8}}, "config.evaluation.ks must be of type tuple[int, ...], not 8"),
        ({"evaluation": {"ks": [1, "8"]}}, "config.evaluation.ks[1] must be of type int, not '8'"),
        ({"reward": {"score": 1.0}}, "config.reward must be of type tuple[tuple[str, float], ...], not {'score': 1.0}"),
        ({"reward": "score"}, "config.reward must be of type tuple[tuple[str, float], ...], not 'score'"),
        ({"reward": [["score"]]}, "config.reward[0] must be of type tuple[str, float], not ['score']"),
        ({"reward": [["score", 1.0], ["length", "x"]]}, "config.reward[1][1] must be of type float, not 'x'"),
        ({"tasks": {"modsum": {"options": 3}}}, "config.tasks.modsum.options must be of type"),
        ({"sft": {"tasks": {"modsum": "1"}}}, "config.sft.tasks.modsum must be of type float, not '1'"),
        ({"policy": {1: 2}}, "config.policy.1: there is no such key"),
        ({"tasks": {1: {}}}, "config.tasks has the key 1, and keys are texts"),
        ({"tasks": {"modsum": {"options": {2: 3}}}}, "config.tasks.modsum.options has the key 2, and keys are texts"),
        ({"training": {"checkpoints": "a\0b"}}, "config.training.checkpoints holds a NUL character: 'a"),
        ({"policy": {"head_dim": 2**63}}, "config.policy.head_dim is beyond 64 bits: 9223372036854775808"),
        ({"rollout": {"temperature": 1e-40}}, "config.rollout.temperature is beyond the floating-point numbers of 32"),
        ({"optimizer": {"learning_rate": 10**400}}, "config.optimizer.learning_rate is beyond the floating-point num"),
    ],
)
def test_a_wrong_type_is_one_line_with_the_full_name(data, message):
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        from_dict(data)
    assert "\n" not in str(caught.value)


NAN = math.nan
ANYTHING = [None, True, -1, 10**400, -1e308, NAN, math.inf, "x\0", [], [None], ["x", "x"], {1: 2}, {"x": {}}]


def test_every_key_is_a_clear_error_or_fine_whatever_it_holds():
    names = {
        name for leaf in flatten(to_dict(Config())) for name in itertools.accumulate(leaf.split("."), "{}.{}".format)
    }
    for name, value in itertools.product(sorted(names), ANYTHING):
        try:
            check(from_dict(overridden({}, {name: value})), 1)
        except ConfigError as error:
            said = str(error)
        else:
            continue
        assert said.startswith("config.")
        assert "\n" not in said


OPTIMIZERS = ("optimizer", "critic__optimizer", "sft__optimizer", "preferences__optimizer")
POSITIVE = [
    *(f"policy__{x}" for x in ("num_layers", "width", "num_heads", "num_kv_heads", "head_dim", "mlp_width")),
    *(f"policy__{x}" for x in ("rope_theta", "norm_eps", "init_scale")),
    *(f"rollout__{x}" for x in ("prompts", "max_prompt_length", "max_response_length", "temperature")),
    *(f"rollout__{x}" for x in ("group_size", "max_turns", "max_sequences", "chunk", "prefill_chunk")),
    *(f"algorithm__{x}" for x in ("minibatches", "epochs", "kl_reward_horizon")),
    *(f"algorithm__{x}" for x in ("importance_cap", "tau_positive", "tau_negative", "pass_k")),
    *(f"algorithm__{x}" for x in ("max_draws", "state_samples", "max_states", "demonstration_shaping")),
    "algorithm__preference_beta",
    *(f"algorithm__{x}" for x in ("tracker_prior", "tracker_drift", "replay_size")),
    "policy__lora__alpha",
    *(f"{group}__{x}" for group in OPTIMIZERS for x in ("learning_rate", "eps", "clip_norm", "microbatches")),
    *(f"training__{x}" for x in ("num_steps", "save_every", "keep_checkpoints", "max_skipped_in_a_row")),
    *(
        f"{run}__{x}"
        for run in ("sft", "preferences")
        for x in ("num_steps", "batch_size", "updates_per_call", "save_every")
    ),
    "preferences__beta",
    *(f"evaluation__{x}" for x in ("every", "problems", "pass_samples")),
    "verifier__timeout",
    "verifier__memory_mib",
]
NOT_NEGATIVE = [
    *(f"policy__{x}" for x in ("vocab_size", "max_length", "score_dim", "rope_theta_unscaled", "rotary_dim")),
    "policy__lora__rank",
    "rollout__top_k",
    *(f"training__{x}" for x in ("packing_multiple", "keep_every", "keep_best")),
    *(f"rollout__{x}" for x in ("slots", "max_turn_length", "devices", "batch_size", "patience")),
    "mesh__rollout_tensor",
    "training__max_lag",
    *(f"algorithm__{x}" for x in ("clip_low", "clip_high", "kl_coef", "entropy_coef", "cov_low", "scale_epsilon")),
    *(f"algorithm__{x}" for x in ("entropy_target", "entropy_delta", "mirror_tau")),
    *(f"algorithm__{x}" for x in ("importance_floor", "aggregation_tokens")),
    *(f"algorithm__length_{x}" for x in ("coef", "target", "buffer")),
    *(
        f"algorithm__{x}"
        for x in ("kl_reward_coef", "kl_reward_target", "reference_every", "gae_length", "step_length")
    ),
    *("critic__clip", "critic__warmup_steps"),
    *(f"preferences__{x}" for x in ("margin", "centring", "desirable", "undesirable")),
    *(f"{group}__{x}" for group in OPTIMIZERS for x in ("warmup_steps", "weight_decay")),
    "evaluation__pass_problems",
    "evaluation__shown",
    "verifier__workers",
]
BETAS = [f"{group}__{beta}" for group in OPTIMIZERS for beta in ("b1", "b2", "beta")]
SHARES = [f"algorithm__{x}" for x in ("gamma", "gae_lambda", "return_lambda", "reference_share", "distillation_beta")]

# (the values changed, devices, how the message begins)
JUDGE = {"model": "m", "endpoint": "http://localhost/v1"}
REFUSED = [
    *(({name: 0}, 1, f"config.{name.replace('__', '.')} must be above 0, not 0") for name in POSITIVE),
    *(({name: -1}, 1, f"config.{name.replace('__', '.')} must be 0 or more, not -1") for name in NOT_NEGATIVE),
    *(({name: 1.0}, 1, f"config.{name.replace('__', '.')} must be in [0, 1), not 1.0") for name in BETAS),
    *(({name: -0.1}, 1, f"config.{name.replace('__', '.')} must be in [0, 1), not -0.1") for name in BETAS),
    *(({name: 1.5}, 1, f"config.{name.replace('__', '.')} must be in [0, 1], not 1.5") for name in SHARES),
    *(({name: NAN}, 1, f"config.{name.replace('__', '.')} must be in [0, 1], not nan") for name in SHARES),
    *(({"curriculum__decay": x}, 1, f"config.curriculum.decay must be in [0, 1), not {x}") for x in (1.0, -0.1, NAN)),
    ({"curriculum__power": 0.0}, 1, "config.curriculum.power must be above 0 and finite, not 0.0"),
    ({"curriculum__floor": NAN}, 1, "config.curriculum.floor must be in [0, 1], not nan"),
    ({"curriculum__floor": 0.0, "curriculum__sampling": "towards_half"}, 1, "config.curriculum.floor = 0 with"),
    ({"curriculum__low": 0.9, "curriculum__high": 0.5}, 1, "config.curriculum.low = 0.9 and high = 0.5 must be from 0"),
    ({"curriculum__tries": 0}, 1, "config.curriculum.tries must be above 0, not 0"),
    ({"curriculum__threshold": 0.0}, 1, "config.curriculum.threshold must be in (0, 1], not 0.0"),
    ({"curriculum__low": 0.5, "algorithm__baseline": "tracker"}, 1, "config.curriculum.by = 'level' with config.algo"),
    ({"tasks__modsum__stage": -1}, 1, "config.tasks.modsum.stage must be 0 or more, not -1"),
    ({"tasks__modsum__stage": 1}, 1, "config.tasks: no task with a weight above 0 has the stage 0"),
    ({"tasks__modsum__steps": (5, 2)}, 1, "config.tasks.modsum.steps = (5, 2) must be two steps"),
    ({"tasks__modsum__steps": (1, 50)}, 1, "config.tasks: no task of stage 0 is trained on in step 51"),
    ({"tasks__modsum__level": "hard"}, 1, "config.tasks.modsum.level is a field of a config.tasks.modsum.file"),
    ({"sft__tasks": {"other": 1.0}}, 1, "config.sft.tasks names 'other', which is not in config.tasks: modsum"),
    ({"sft__tasks": {"modsum": 0.0}}, 1, "config.sft.tasks.modsum must be a weight above 0 and finite, not 0.0"),
    ({"algorithm__replay": 16}, 1, "config.algorithm.replay must be from 0 to 15"),
    ({"algorithm__tracker_low": 0.97}, 1, "config.algorithm.tracker_low = 0.97 and tracker_high = 0.96"),
    ({"algorithm__tracker_high": 1.5}, 1, "config.algorithm.tracker_low = 0.875 and tracker_high = 1.5"),
    ({"optimizer__learning_rate": NAN}, 1, "config.optimizer.learning_rate must be above 0, not nan"),
    ({"algorithm__kl_coef": NAN}, 1, "config.algorithm.kl_coef must be 0 or more, not nan"),
    ({"algorithm__demonstrations": 8}, 1, "config.algorithm.demonstrations must be from 0 to 7"),
    ({"algorithm__ddof": 2}, 1, "config.algorithm.ddof must be 0 or 1, not 2"),
    ({"algorithm__clip_dual": 1.0}, 1, "config.algorithm.clip_dual must be above 1, not 1.0"),
    ({"algorithm__entropy_share": 1.0}, 1, "config.algorithm.entropy_share must be between 0 and 1, not 1.0"),
    ({"algorithm__cov_high": 1.0}, 1, "config.algorithm.cov_low = 1.0 must be below config.algorithm.cov_high = 1.0"),
    ({"optimizer__b2": NAN}, 1, "config.optimizer.b2 must be in [0, 1), not nan"),
    ({"policy__norm_offset": NAN}, 1, "config.policy.norm_offset must be finite, not nan"),
    ({"seed": -1}, 1, "config.seed must be in [0, 2**32), not -1"),
    ({"seed": 2**32}, 1, "config.seed must be in [0, 2**32), not 4294967296"),
    ({"rollout__group_size": 1}, 1, "config.rollout.group_size is 1: config.algorithm.baseline"),
    ({"policy__rope_scaling__factor": 0.5}, 1, "config.policy.rope_scaling.factor must be 1 or more, not 0.5"),
    (
        {"policy__rope_scaling__low_freq_factor": 4.0, "policy__rope_scaling__high_freq_factor": 4.0},
        1,
        "config.policy.rope_scaling.low_freq_factor = 4.0 must be above 0 and below",
    ),
    (
        {"policy__rope_scaling__beta_slow": 40.0, "policy__rope_scaling__beta_fast": 32.0},
        1,
        "config.policy.rope_scaling.beta_slow = 40.0 must be above 0 and below",
    ),
    ({"policy__rope_scaling__attention_factor": -1.0}, 1, "config.policy.rope_scaling.attention_factor must be 0 or"),
    (
        {"policy__rope_scaling__original_length": 0, "policy__rope_scaling__type": "yarn"},
        1,
        "config.policy.rope_scaling.original_length must be above 0 for type 'yarn', not 0",
    ),
    ({"policy__window_pattern": (-1,)}, 1, "config.policy.window_pattern holds a negative number"),
    (
        {"policy__lora__rank": 2, "policy__lora__targets": ("q", "q")},
        1,
        "config.policy.lora.targets must name different weights, at least one, not ('q', 'q')",
    ),
    ({"policy__head_chunk": -2}, 1, "config.policy.head_chunk must be -1, 0 or more, not -2"),
    (
        {"rollout__slots": 13},
        8,
        "config.rollout.slots = 13 can't be divided among the 8 devices that sample, nor among",
    ),
    ({"mesh__rollout_tensor": 3}, 8, "config.mesh.rollout_tensor = 3 does not divide the 8 devices that sample"),
    (
        {"mesh__rollout_tensor": 8},
        8,
        "config.policy.num_heads = 4 can't be divided among config.mesh.rollout_tensor = 8 devices",
    ),
    (
        {"rollout__batch_size": 10},
        8,
        "config.rollout.batch_size = 10 can't be divided among the 8 devices that sample, in groups of "
        "config.mesh.rollout_tensor = 2",
        {"mesh__rollout_tensor": 2},
    ),
    ({"rollout__batch_size": 8}, 1, "config.rollout.batch_size = 8 is for sampling without", {"rollout__slots": 8}),
    ({"shrink": 0}, 1, "config.shrink must be 1 or more, not 0"),
    ({"shrink": 2, "pretrained": "x"}, 1, "config.shrink = 2 makes another policy than config.pretrained = 'x'"),
    ({"tasks__modsum__weight": -1.0}, 1, "config.tasks.modsum.weight must be 0 or more and finite, not -1.0"),
    ({"tasks__modsum__weight": NAN}, 1, "config.tasks.modsum.weight must be 0 or more and finite, not nan"),
    ({"tasks__modsum__shots": -1}, 1, "config.tasks.modsum.shots must be 0 or more, not -1"),
    ({"tasks__modsum__heldout_share": 1.0}, 1, "config.tasks.modsum.heldout_share must be in [0, 1), not 1.0"),
    ({"tasks__modsum__weight": 0}, 1, "config.tasks: no task has a weight above 0"),
    ({"tasks": {}}, 1, "config.tasks is empty: a run needs problems"),
    ({"tasks": {"a/b": {"name": "modsum"}}}, 1, "config.tasks.a/b: a task's key is made of letters, digits, _ . and -"),
    ({"prompt__template": "Q:"}, 1, "config.prompt.template lacks the place {prompt}"),
    ({"training__watchdog": -1.0}, 1, "config.training.watchdog must be"),
    *(({"training__profile": steps}, 1, "config.training.profile = ") for steps in ("3", "3:2", "0:2", "1:2:3", "a:b")),
    ({"prompt__date": "2025-02-30"}, 1, "config.prompt.date must be year-month-day, not '2025-02-30'"),
    ({"rollout__top_p": 0.0}, 1, "config.rollout.top_p must be in (0, 1], not 0.0"),
    ({"rollout__top_p": 1.5}, 1, "config.rollout.top_p must be in (0, 1], not 1.5"),
    (
        {"policy__max_length": 127},
        1,
        "config.rollout.max_prompt_length + max_response_length = 64 + 64 is longer than the policy's window, "
        "config.policy.max_length = 127",
    ),
    ({"policy__num_kv_heads": 3}, 1, "config.policy.num_kv_heads = 3 does not divide config.policy.num_heads = 4"),
    ({"policy__head_dim": 15}, 1, "config.policy.head_dim = 15 must be even"),
    ({"reward": []}, 1, "config.reward has no terms"),
    ({"reward": [["score", 1.0], ["score", 2.0]]}, 1, "config.reward names the term 'score' twice"),
    ({"verifier__timeout": math.inf}, 1, "config.verifier.timeout must be finite, not inf"),
    ({"policy__rope_theta": math.inf}, 1, "config.policy.rope_theta must be finite, not inf"),
    ({"policy__lora__alpha": math.inf}, 1, "config.policy.lora.alpha must be finite, not inf"),
    ({"preferences__beta": math.inf}, 1, "config.preferences.beta must be finite, not inf"),
    ({"training__watchdog": 1e10}, 1, "config.training.watchdog must be at most 1e+06 seconds, not 1e+10"),
    ({"sft__optimizer__learning_rate": math.inf}, 1, "config.sft.optimizer.learning_rate must be finite, not inf"),
    ({"reward": [["score", math.inf]]}, 1, "config.reward gives 'score' the weight inf, which is not finite"),
    (
        {"algorithm__kl_coef": 0.1, "algorithm__reference": "none"},
        1,
        "config.algorithm.kl_coef = 0.1 needs config.algorithm.reference = 'initial'",
    ),
    ({"algorithm__minibatches": 3}, 1, "config.algorithm.minibatches = 3 does not divide config.rollout.prompts = 16"),
    ({"evaluation__ks": [1, 9]}, 1, "config.evaluation.ks holds 9, which is not between 1 and config.evaluation.pass_"),
    (
        {"evaluation__pass_samples": 0},
        1,
        "config.evaluation.pass_samples must be above 0, not 0; config.evaluation.pass_problems = 0 samples none",
    ),
    ({"evaluation__ks": [0]}, 1, "config.evaluation.ks holds 0, which is not between 1 and config.evaluation.pass_sa"),
    (
        {"evaluation__problems": 63},
        1,
        "config.evaluation.pass_problems = 64 is more than config.evaluation.problems = 63",
    ),
    (
        {"preferences__batch_size": 60},
        8,
        "config.preferences.batch_size = 60 can't be divided into",
    ),
    ({"preferences__heldout_share": 1.0}, 1, "config.preferences.heldout_share must be in [0, 1), not 1.0"),
    ({"preferences__label_smoothing": 0.5}, 1, "config.preferences.label_smoothing must be in [0, 0.5), not 0.5"),
    ({"preferences__desirable": 2.0}, 1, "config.preferences.desirable = 2.0 has no effect on config.preferences.loss"),
    ({"preferences__margin": 1.0, "preferences__loss": "ipo"}, 1, "config.preferences.margin = 1.0 has no effect on"),
    (
        {"preferences__loss": "bradley_terry", "policy__lora__rank": 4},
        1,
        "config.preferences.loss = 'bradley_terry' trains a whole decoder",
    ),
    ({"sft__roles": ()}, 1, "config.sft.roles is empty"),
    ({"sft__sources": {"a b": {"file": "x"}}}, 1, "config.sft.sources.a b: the name of a source is made of"),
    ({"sft__sources": {"a": {}}}, 1, "config.sft.sources.a.file is empty"),
    (
        {"sft__sources": {"a": {"file": "x", "weight": -1.0}}},
        1,
        "config.sft.sources.a.weight must be 0 or more and finite",
    ),
    ({"sft__sources": {"a": {"file": "x", "weight": 0.0}}}, 1, "config.sft.sources: none has a weight above 0"),
    (
        {"sft__sources": {"a": {"file": "x"}}, "sft__tasks": {"modsum": 1.0}},
        1,
        "config.sft.sources and config.sft.tasks are both set",
    ),
    ({"reward_models": {"a b": "x"}}, 1, "config.reward_models.a b: the name of a reward model is made of"),
    ({"judges": {"a b": JUDGE}}, 1, "config.judges.a b: the name of a judge is made of"),
    ({"judges": {"j": {}}}, 1, "config.judges.j.model is empty"),
    (
        {"judges": {"j": JUDGE}, "reward_models": {"j": "x"}},
        1,
        "config.judges.j: config.reward_models has the same name",
    ),
    ({"judges": {"j": {"model": "policy"}}}, 1, "config.judges.j.model = 'policy' is the policy that the run starts"),
    ({"judges": {"j": {"model": "x", "temperature": 1.0}}}, 1, "config.judges.j.temperature = 1.0: a judge in this"),
    ({"judges": {"j": {"model": "x", "per_minute": 9}}}, 1, "config.judges.j.per_minute has no effect without"),
    ({"judges": {"j": JUDGE | {"endpoint": "x"}}}, 1, "config.judges.j.endpoint must begin with http:// or https://"),
    ({"judges": {"j": JUDGE | {"template": "x"}}}, 1, "config.judges.j.template has no place {response}"),
    ({"judges": {"j": JUDGE | {"lowest": 10}}}, 1, "config.judges.j.lowest = 10 must be below"),
    ({"judges": {"j": JUDGE | {"in_flight": 0}}}, 1, "config.judges.j.in_flight must be 1 or more, not 0"),
    *(
        ({"judges": {"j": JUDGE | {"timeout": x}}}, 1, "config.judges.j.timeout must be a number of seconds above 0")
        for x in (0.0, 1e10)
    ),
    ({"judges": {"j": JUDGE | {"options": {"a": {1}}}}}, 1, "config.judges.j.options must be plain JSON data"),
    ({"judges": {"j": JUDGE | {"options": {"n": 2, "model": "y"}}}}, 1, "config.judges.j.options sets model, n, which"),
    ({"judges": {"j": JUDGE | {"options": {"stream": True}}}}, 1, "config.judges.j.options sets stream, which"),
    ({"judges": {"j": JUDGE | {"rubric": "reference", "highest": 5}}}, 1, "config.judges.j.highest has no effect with"),
    (
        {"judges": {"j": JUDGE | {"rubric": "generated", "template": "{response}"}}},
        1,
        "config.judges.j.template has no effect with config.judges.j.rubric = 'generated'",
    ),
    ({"training__offload_reference": True}, 1, "config.training.offload_reference has no effect: with config.algori"),
    ({"rollout__devices": 8}, 8, "config.rollout.devices = 8 of 8 devices leaves none to train on"),
    ({"rollout__devices": 3}, 8, "config.rollout.prompts = 16 can't be divided among the 3 devices that sample"),
    ({"training__max_lag": 100}, 1, "config.training.max_lag = 100 must be below config.training.num_steps = 100"),
    ({"rollout__in_flight": "keep"}, 1, "config.rollout.slots = 0: config.rollout.in_flight", {"training__max_lag": 1}),
    ({"rollout__in_flight": "keep"}, 1, "config.training.max_lag = 0: config.rollout.in_flight", {"rollout__slots": 8}),
    (
        {"algorithm__max_draws": 2},
        1,
        "config.algorithm.max_draws = 2 samples further episodes in a step",
        {"rollout__slots": 8, "training__max_lag": 1, "algorithm__keep": "mixed_groups", "rollout__in_flight": "keep"},
    ),
    (
        {"mesh__data": 3},
        8,
        "config.mesh: mesh (data=3, fsdp=1, context=1, tensor=1) needs 3 devices, and 8 are available",
    ),
    ({"rollout__prompts": 13}, 8, "config.rollout.prompts = 13 can't be divided among the 8 devices that sample, nor"),
    ({"optimizer__microbatches": 32}, 8, "an update has 128 samples (config.rollout.prompts * group_size / config.al"),
    ({"algorithm__minibatches": 16}, 8, "an update has 8 samples", {"optimizer__microbatches": 2}),
    (
        {"training__packing": "prefix_tree"},
        8,
        "an update has 8 prompts (config.rollout.prompts / config.algorithm.minibatches), which can't be divided into "
        "config.optimizer.microbatches = 2 parts among the 8 devices of the mesh axes data and fsdp; with "
        "config.training.packing = 'prefix_tree' the samples of a prompt stay together",
        {"algorithm__minibatches": 2, "optimizer__microbatches": 2},
    ),
    (
        {"policy__attention": "splash"},
        1,
        "config.policy.attention = 'splash' has no shared prefixes, which config.training.packing = 'prefix_tree'",
        {"training__packing": "prefix_tree"},
    ),
    ({"policy__attention": "cudnn"}, 1, "config.policy.attention = 'cudnn'"),
    (
        {"policy__attention": "splash", "policy__window_pattern": (8, 0)},
        1,
        "config.policy.attention = 'splash' takes one window for all layers, not (8, 0); use 'pallas'",
    ),
    ({"sft__batch_size": 60}, 8, "config.sft.batch_size = 60 can't be divided into config.sft.optimizer.microbatches"),
    ({"sft__optimizer__microbatches": 16}, 8, "config.sft.batch_size = 64 can't be divided into config.sft.optimize"),
    (
        {"mesh__tensor": 8, "policy__mlp_width": 64},
        8,
        "config.policy.num_heads = 4 can't be divided among config.mesh.tensor = 8 devices",
    ),
    (
        {"mesh__tensor": 4, "policy__mlp_width": 66},
        8,
        "config.policy.mlp_width = 66 can't be divided among config.mesh.tensor = 4 devices",
    ),
    (
        {"mesh__context": 8, "policy__num_heads": 4},
        8,
        "config.policy.num_heads = 4 can't be divided among config.mesh.context = 8 times config.mesh.tensor = 1",
    ),
    (
        {"mesh__fsdp": 8, "policy__width": 68},
        8,
        "config.policy.width = 68 can't be divided among config.mesh.fsdp = 8 devices",
    ),
]


@pytest.mark.parametrize(
    ("values", "num_devices", "message"),
    [(case[0] | (case[3] if len(case) > 3 else {}), case[1], case[2]) for case in REFUSED],
    ids=lambda x: "-".join(x) if isinstance(x, dict) else "",
)
def test_what_cannot_run_is_refused_in_one_line_that_names_the_key(values, num_devices, message):
    with pytest.raises(ConfigError) as caught:
        check(changed(**values), num_devices)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_run_is_not_refused_for_the_batches_of_the_other_kind():
    warm_start, update = {"sft__batch_size": 60}, {"optimizer__microbatches": 32}
    for values, runs, refused in ((warm_start, "rl", "sft"), (update, "sft", "rl")):
        check(changed(**values), 8, run=runs)
        with pytest.raises(ConfigError, match=next(iter(values)).replace("__", ".")):
            check(changed(**values), 8, run=refused)


@pytest.mark.parametrize(
    ("values", "devices", "together", "named"),
    [
        (
            {"optimizer__microbatches": 8},
            4,
            8,
            ("128 samples", "prompts", "microbatches = 8", "4 devices", "8 samples"),
        ),
        (
            {"rollout__group_size": 3, "algorithm__minibatches": 2},
            *(8, 2, ("24 samples", "group_size", "minibatches", "8 devices", "2 samples")),
        ),
        ({"training__packing": "prefix_tree"}, 1, 2, ("training.packing = 'prefix_tree'", "2 rows")),
    ],
)
def test_updates_whose_rows_belong_together_are_refused_where_they_cannot_be_divided(values, devices, together, named):
    check_update(changed(**values), devices)
    with pytest.raises(ConfigError) as caught:
        check_update(changed(**values), devices, together)
    assert [x for x in named if x not in str(caught.value)] == []


def test_every_number_of_the_config_has_a_rule_or_may_be_anything():
    """So that a new key is not forgotten."""
    numbers = {name for name, value in flatten(to_dict(Config())).items() if type(value) in (int, float)}
    ruled = {name.replace("__", ".") for case in REFUSED for name in case[0]}
    assert numbers - ruled == set()


@pytest.mark.parametrize("num_devices", [1, 2, 4, 8])
def test_the_defaults_run_on_several_numbers_of_devices(num_devices):
    check(Config(), num_devices)


@pytest.mark.parametrize(
    "values",
    [
        {"algorithm__clip_high": math.inf, "optimizer__clip_norm": math.inf},
        {"algorithm__reference": "none"},
        {"verifier__workers": 0},
        {"evaluation__pass_problems": 0},
        {"mesh__data": 2, "mesh__fsdp": 2, "mesh__tensor": 2},
        {"mesh__data": 1, "mesh__fsdp": -1},
        {"policy__max_length": 128},
        {"training__packing": "prefix_tree", "algorithm__minibatches": 2},
    ],
    ids=lambda values: "-".join(values),
)
def test_what_can_run_is_not_refused(values):
    check(changed(**values), 8)


def test_the_tasks_of_a_config_replace_the_default_one_and_take_the_defaults_of_a_task():
    tasks = from_dict(OTHER).tasks
    assert list(tasks) == ["small", "modsum"]
    assert tasks["small"] == TaskConfig("countdown", {"numbers": 3}, weight=2.0)
    assert tasks["modsum"] == TaskConfig()
    with pytest.raises(
        ConfigError, match=r"config\.tasks\.modsum\.weigth: there is no such key; did you mean 'weight'"
    ):
        from_dict({"tasks": {"modsum": {"weigth": 1}}})


def test_flatten_names_values_by_their_path():
    assert flatten({"a": {"b": 1, "c": {"d": (1, 2)}}, "e": "x"}) == {"a.b": 1, "a.c.d": (1, 2), "e": "x"}


def test_differences_names_each_value_that_differs_old_and_new_in_order():
    old = to_dict(from_dict({"seed": 1, "tasks": {"modsum": {"options": {"digits": 4}}}}))
    new = to_dict(
        from_dict({"seed": 2, "tasks": {"modsum": {"options": {"share": 0.5}}}, "evaluation": {"ks": [1, 4]}})
    )
    assert differences(old, new) == [
        "evaluation.ks: (1, 8) -> (1, 4)",
        "seed: 1 -> 2",
        "tasks.modsum.options.digits: 4 -> (absent)",
        "tasks.modsum.options.share: (absent) -> 0.5",
    ]


def test_there_is_no_difference_between_a_config_and_what_json_makes_of_it():
    record = to_dict(from_dict(OTHER))
    assert differences(json.loads(json.dumps(record)), record) == []


def test_the_policy_of_a_run_keeps_its_mesh_where_that_fits_and_is_replicated_elsewhere():
    config = Config(mesh=MeshConfig(1, -1, 2), rollout=RolloutConfig(devices=4))
    assert anywhere(config, 8).mesh == config.mesh
    assert anywhere(config, 3).mesh == MeshConfig()
    assert anywhere(config, 8).rollout == RolloutConfig()
