"""Every config file, read as the command line reads it, runs on one device and on eight."""

from dataclasses import replace
from pathlib import Path

import pytest
from absl import flags
from ml_collections import config_flags

from configs import base
from rlvr_jax.config import Config, differences, from_dict, overridden, to_dict
from rlvr_jax.config_rules import check
from rlvr_jax.learner.presets import preset

FOLDER = Path(base.__file__).parent
FILES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in ("__init__", "base", "models", "suites"))


def load(name: str, *overrides: str) -> Config:
    file, colon, argument = name.partition(":")
    values, argv = flags.FlagValues(), ["a command", f"--config={FOLDER / file}.py{colon}{argument}", *overrides]
    config_flags.DEFINE_config_file("config", flag_values=values, sys_argv=argv)
    values(argv)
    given = config_flags.get_override_values(values["config"])
    return from_dict(
        overridden(values.config.to_dict(), {k: v for k, v in given.items() if k.startswith("algorithm.")})
    )


def test_the_base_holds_every_default_and_nothing_else():
    values = base.get_config().to_dict()
    assert set(values.pop("algorithm").values()) == {None}
    assert values == {key: value for key, value in to_dict(Config()).items() if key != "algorithm"}
    assert load("base") == Config()


def test_there_are_the_documented_configs():
    assert {"quickstart", "countdown", "gsm8k"} <= set(FILES)


@pytest.mark.parametrize("num_devices", [1, 8])
@pytest.mark.parametrize("name", FILES)
def test_a_config_file_builds_and_runs_on_one_and_on_eight_devices(name, num_devices):
    check(load(name), num_devices)


@pytest.mark.parametrize("name", FILES)
def test_a_config_file_differs_from_the_defaults_and_gives_the_same_config_every_time(name):
    assert differences(to_dict(Config()), to_dict(load(name)))
    assert load(name) == load(name)


@pytest.mark.parametrize("name", FILES)
def test_values_are_overridden_on_the_command_line(name):
    config = load(name, "--config.seed=3", "--config.optimizer.learning_rate=0.5", "--config.policy.norm_eps=0.5")
    assert differences(to_dict(load(name)), to_dict(config)) == [
        f"optimizer.learning_rate: {load(name).optimizer.learning_rate} -> 0.5",
        f"policy.norm_eps: {load(name).policy.norm_eps} -> 0.5",
        "seed: 0 -> 3",
    ]


def test_options_of_a_task_are_keys_that_can_be_overridden():
    assert load("quickstart", "--config.tasks.modsum.options.digits=5").tasks["modsum"].options["digits"] == 5


def test_a_tuple_is_overridden_as_a_whole():
    config = load("quickstart", "--config.reward=(('score', 1.0), ('format', 0.1))", "--config.evaluation.ks=(1, 2)")
    assert config.reward == (("score", 1.0), ("format", 0.1))
    assert config.evaluation.ks == (1, 2)


def test_an_unknown_key_on_the_command_line_is_an_error_that_names_it():
    with pytest.raises((AttributeError, KeyError), match="promts"):
        load("quickstart", "--config.rollout.promts=16")


def test_a_preset_on_the_command_line_replaces_the_method_of_the_file_and_keys_beside_it_take_precedence():
    method = load("countdown").algorithm
    assert (method.kl_coef, method.minibatches) == (0.02, 4)
    config = load("countdown", "--config.algorithm.preset=gspo", "--config.algorithm.clip_high=0.3")
    assert config.algorithm == preset("gspo", clip_high=0.3, minibatches=4)
    assert load("countdown", "--config.algorithm.clip_high=0.3").algorithm == replace(method, clip_high=0.3)
    assert load("countdown", "--config.algorithm.preset=grpo").algorithm == preset("grpo")
