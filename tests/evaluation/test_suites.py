"""Suites: the built-in ones, files, and what is wrong with them."""

import json
from dataclasses import replace

import pytest

from experiments import builtin
from rlvr_jax import envs, tasks
from rlvr_jax.config import Config, DataConfig, TaskConfig
from rlvr_jax.config_rules import check
from rlvr_jax.errors import ConfigError
from rlvr_jax.evaluation.suites import check_lengths, with_suite
from rlvr_jax.training.heldout import heldout_problems
from rlvr_jax.training.setup import make_setup


@pytest.mark.parametrize("name", ["development", "unseen", "tools", "thinking", "small"])
def test_built_in_suites_name_tasks_and_environments_that_there_are(name):
    suite = builtin.suite(name)
    config = with_suite(Config(), suite)
    assert config.tasks == suite.tasks
    assert all((task.name or label) in tasks.TASKS for label, task in suite.tasks.items())
    assert all(task.environment in envs.ENVS for task in suite.tasks.values())
    check(replace(config, pretrained="somewhere"), num_devices=1)
    assert suite.unseen == (name == "unseen")
    assert config.rollout.max_response_length == suite.changes["rollout.max_response_length"]


def test_a_suite_replaces_what_refers_to_the_tasks_of_the_config():
    config = builtin.load("curriculum_modsum")
    assert config.sft.tasks
    assert not with_suite(config, builtin.suite("small")).sft.tasks
    assert not with_suite(builtin.load("distilled_modsum"), builtin.suite("small")).teacher
    changed = with_suite(builtin.load("programs"), builtin.suite("small"))
    assert (changed.reward, changed.policy) == (Config().reward, builtin.load("programs").policy)


def test_a_suite_for_larger_policies_is_refused_for_a_small_one():
    with pytest.raises(ConfigError, match=r"max_response_length = 512 \+ 64 .*config\.policy\.max_length = "):
        check_lengths(with_suite(builtin.load("quickstart"), builtin.suite("small")))


@pytest.mark.usefixtures("one_device")
def test_a_suite_is_evaluated_on_data_sets_that_have_held_out_problems_only(data_sets, prepared_dir):
    config = Config(tokenizer="bytes", data=DataConfig(str(prepared_dir), str(data_sets)))
    config = with_suite(config, builtin.suite("development"))
    held_back = replace(config.tasks["math"], options={"heldout": "holdback"})
    rollout = replace(config.rollout, max_prompt_length=1000, max_response_length=24)
    config = replace(config, tasks={**config.tasks, "math": held_back}, rollout=rollout)
    config = replace(config, evaluation=replace(config.evaluation, problems=2, pass_problems=1))
    setup = make_setup(config, trains=False)
    assert [x.task for x in heldout_problems(setup)[0]] == [task for task in config.tasks for _ in range(2)]
    assert setup.dropped.keys() == config.tasks.keys()
    with pytest.raises(ConfigError, match=r"config\.tasks\.humaneval.*weight=0"):
        make_setup(config)


def test_a_suite_of_a_file(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"tasks": {"x": {"name": "modsum"}}, "unseen": True, "changes": {"seed": 7}}))
    suite = builtin.suite(str(path))
    assert (suite.tasks, suite.unseen) == ({"x": TaskConfig(name="modsum")}, True)
    assert with_suite(Config(), suite).seed == 7
    assert with_suite(Config(), suite, given=["seed"]).seed == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "mine.json"),
        ("[]", "list"),
        ("{}", "tasks"),
        ('{"tasks": {"x": {"nam": 1}}}', "nam"),
        ('{"tasks": {"modsum": {}}, "chanches": {}}', "chanches"),
        ('{"tasks": {"modsum": {}}, "unseen": "yes"}', "unseen"),
        ('{"tasks": {"modsum": {}}, "changes": 3}', "changes"),
    ],
)
def test_wrong_suites_are_named(tmp_path, text, message):
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        builtin.suite(str(path))


def test_unknown_suites_and_keys_are_named(tmp_path):
    with pytest.raises(ConfigError, match="development, unseen"):
        builtin.suite("developement")
    path = tmp_path / "mine.json"
    path.write_text(json.dumps({"tasks": {"modsum": {}}, "changes": {"rollout.prompt": 3}}))
    with pytest.raises(ConfigError, match=r"rollout\.prompt"):
        with_suite(Config(), builtin.suite(str(path)))
