"""Presets: their constants, what of them is overridden, and that their traced loss holds nothing else."""

from dataclasses import fields, replace

import jax
import numpy as np
import pytest

from rlvr_jax.config import Config, from_dict, overridden, to_dict
from rlvr_jax.config_rules import check
from rlvr_jax.errors import ConfigError
from rlvr_jax.learner.advantages import advantages
from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.losses import columns_of
from rlvr_jax.learner.presets import OF_THE_RUN, PRESETS, preset
from rlvr_jax.learner.samples import make_samples
from rlvr_jax.training.frozen import reads_teacher
from tests.learner.loss_by_hand import loss_of, random_inputs

KEYS = {field.name for field in fields(AlgorithmConfig)}
# The constants of the papers, and of the table of their methods.
PINNED = {
    "grpo": {"aggregation": "sequence_mean", "kl": "k3", "kl_coef": 0.04, "clip_low": 0.2, "scale": "group_std"},
    "dr_grpo": {"baseline": "group_mean", "scale": "none", "aggregation": "constant", "kl_coef": 0.0},
    "dapo": {"clip_low": 0.2, "clip_high": 0.28, "keep": "mixed_groups", "aggregation": "group_token_mean"},
    "rloo": {"baseline": "leave_one_out", "scale": "none", "ratio": "none", "aggregation": "sequence_sum"},
    "gspo": {"ratio": "sequence", "clip_low": 3e-4, "clip_high": 4e-4, "aggregation": "sequence_mean", "kl_coef": 0.0},
    "cispo": {"clip": "cispo", "clip_low": 1.0, "clip_high": 4.0},
    "sapo": {"clip": "sapo", "tau_positive": 1.0, "tau_negative": 1.05, "aggregation": "sequence_mean"},
    "gmpo": {"ratio": "geometric", "clip": "none", "clip_low": 0.4, "clip_high": 0.4},
    "lite_ppo": {"baseline": "group_mean", "scale": "batch_std", "aggregation": "token_mean"},
    "opo": {"baseline": "length_weighted", "scale": "none", "ratio": "none", "minibatches": 1},
    "maxrl": {"baseline": "group_mean", "scale": "group_mean", "aggregation": "token_mean"},
    "ppo": {"baseline": "value", "gae_lambda": 0.95, "return_lambda": 0.95, "gamma": 1.0, "epochs": 4, "clip_low": 0.2},
    "tulu3": {"baseline": "value", "gae_lambda": 0.95, "kl_reward_coef": 0.05, "epochs": 4, "minibatches": 1},
    "reinforce_pp": {"baseline": "none", "scale": "token_whitening", "aggregation": "token_mean", "gamma": 1.0},
    "raft": {"baseline": "none", "scale": "none", "ratio": "none", "keep": "right"},
}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_runs_as_it_is_and_a_key_that_is_given_besides_takes_precedence(name):
    teacher = {"teacher": "somewhere"} if reads_teacher(preset(name)) else {}
    config = from_dict({"algorithm": {"preset": name}} | teacher)
    check(config, 1)
    assert config.algorithm == preset(name)
    assert config.algorithm.preset == name
    assert PRESETS[name].choices.keys() <= KEYS
    assert PRESETS[name].source
    assert from_dict(to_dict(config)) == config
    key, value = "clip_high", 0.123
    assert from_dict({"algorithm": {"preset": name, key: value}}).algorithm == replace(preset(name), **{key: value})


@pytest.mark.parametrize("name", PINNED)
def test_the_constants_of_a_preset_are_those_of_its_paper(name):
    found = preset(name)
    assert {key: getattr(found, key) for key in PINNED[name]} == PINNED[name]


def test_no_preset_is_the_defaults_and_none_of_the_keys_of_a_file_is_the_value_of_the_preset():
    assert preset("") == AlgorithmConfig()
    assert from_dict({"algorithm": dict.fromkeys(KEYS)}) == Config()
    assert from_dict({"algorithm": dict.fromkeys(KEYS) | {"preset": "gspo"}}).algorithm == preset("gspo")


def test_an_unknown_preset_is_refused_with_a_similar_one():
    with pytest.raises(ConfigError, match=r"config\.algorithm\.preset: .*'gspoo'.*'gspo'"):
        from_dict({"algorithm": {"preset": "gspoo"}})


def test_a_preset_among_overrides_replaces_the_method_and_keeps_the_keys_of_the_run():
    data = {"seed": 3, "algorithm": {"kl_coef": 0.1, "reference": "initial", "minibatches": 4, "shuffle_rewards": True}}
    plain = from_dict(overridden(data, {"seed": 5, "algorithm.kl_coef": 0.2}))
    assert (plain.seed, plain.algorithm.kl_coef, plain.algorithm.minibatches) == (5, 0.2, 4)
    of = lambda name, **others: from_dict(overridden(data, {"algorithm.preset": name, **others})).algorithm  # noqa: E731
    assert of("dapo") == preset("dapo", minibatches=4, shuffle_rewards=True)
    assert of("opo") == preset("opo", shuffle_rewards=True)  # which is defined by one update
    assert of("opo", **{"algorithm.minibatches": 2}).minibatches == 2
    assert set(OF_THE_RUN) <= KEYS
    assert data["algorithm"]["kl_coef"] == 0.1


def test_grpo_normalises_once():
    rewards = np.array([1, 0, 0, 0, 1, 1, 1, 0.0])
    groups = rewards.reshape(2, 4)
    expected = (groups - groups.mean(1, keepdims=True)) / groups.std(1, keepdims=True)
    found = advantages(preset("grpo"), make_samples(rewards, np.arange(8) // 4))
    np.testing.assert_allclose(found, expected.reshape(-1), rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in PRESETS if preset(name).loss == "policy_gradient"])
def test_the_traced_loss_of_a_preset_reads_its_columns_and_computes_nothing_that_it_does_not_use(name):
    config, inputs = preset(name), random_inputs(0)

    def loss(inputs):
        sums = loss_of(config, inputs)
        return sums.loss, sums

    flat, tree = jax.tree.flatten(inputs)
    traced = jax.make_jaxpr(lambda flat: jax.grad(loss, has_aux=True)(jax.tree.unflatten(tree, flat)))(flat).jaxpr
    used = {id(x) for equation in traced.eqns for x in equation.invars} | {id(x) for x in traced.outvars}
    read = {key for key, variable in zip(sorted(inputs), traced.invars, strict=True) if id(variable) in used}
    assert read - {"mask", "samples", "logprobs", "entropy"} == set(columns_of(config))
    gap = 2  # "train/probability_gap" is that of two probabilities
    assert (str(traced).count("exp") > gap) == (
        config.ratio != "none" or config.reference != "none" or config.demonstrations > 0
    )
    assert "scatter" not in str(traced)
