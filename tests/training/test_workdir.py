import dataclasses
import json

import pytest

from rlvr_jax.config import Config, RolloutConfig, TaskConfig
from rlvr_jax.errors import ConfigError
from rlvr_jax.training.workdir import open_workdir, read_config

CONFIG = Config(tasks={"modsum": TaskConfig(options={"digits": 3})}, reward=(("score", 1.0), ("length", -0.5)))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_config_json_gives_the_config_back(tmp_path):
    open_workdir(tmp_path / "a" / "run", CONFIG, "rl")
    assert read_config(tmp_path / "a" / "run") == CONFIG


def test_environment_json_says_where_the_results_came_from(tmp_path):
    open_workdir(tmp_path, CONFIG, "rl")
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert {"command", "python", "jax", "orbax-checkpoint", "devices", "machine"} <= environment.keys()


def test_the_same_config_may_continue(tmp_path):
    open_workdir(tmp_path, CONFIG, "rl")
    before = contents(tmp_path)
    open_workdir(tmp_path, CONFIG, "rl")
    assert contents(tmp_path) == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 3}, "seed: 0 -> 3"),
        ({"rollout": RolloutConfig(group_size=4)}, "rollout.group_size: 8 -> 4"),
        ({"tasks": {"modsum": TaskConfig(options={"digits": 4})}}, "tasks.modsum.options.digits: 3 -> 4"),
        (
            {"tasks": {"modsum": TaskConfig(options={"digits": 3, "direct_share": 0.5})}},
            "direct_share: (absent) -> 0.5",
        ),
        ({"reward": (("score", 1.0),)}, "reward: "),
    ],
)
def test_another_config_is_refused_with_old_and_new_value_and_nothing_changes(change, message, tmp_path):
    open_workdir(tmp_path, CONFIG, "rl")
    before = contents(tmp_path)
    with pytest.raises(ConfigError) as error:
        open_workdir(tmp_path, dataclasses.replace(CONFIG, **change), "rl")
    assert message in str(error.value)
    assert str(tmp_path) in str(error.value)
    assert str(error.value).count(" -> ") == 1
    assert contents(tmp_path) == before


def test_another_kind_of_run_is_refused(tmp_path):
    open_workdir(tmp_path, CONFIG, "sft")
    with pytest.raises(ConfigError, match="run: sft -> rl"):
        open_workdir(tmp_path, CONFIG, "rl")


@pytest.mark.parametrize("text", ["", '{"seed": 0', "[1, 2]", "\x00\xff"])
def test_a_damaged_config_json_is_named_and_left_alone(text, tmp_path):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json is damaged"):
        open_workdir(tmp_path, CONFIG, "rl")
    with pytest.raises(ConfigError, match=r"config\.json is damaged"):
        read_config(tmp_path)
    assert (tmp_path / "config.json").read_text() == text


def test_a_folder_without_config_json_is_not_a_workdir(tmp_path):
    with pytest.raises(ConfigError, match="is not the workdir of a run"):
        read_config(tmp_path)


def test_a_folder_that_can_not_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file/run"):
        open_workdir(tmp_path / "file" / "run", CONFIG, "rl")
