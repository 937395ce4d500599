"""Grids: their text, the variants that they stand for, and the values that are refused by name."""

import numpy as np
import pytest

from rlvr_jax.config import Config, from_dict
from rlvr_jax.errors import ConfigError
from rlvr_jax.learner.presets import preset
from rlvr_jax.sweeps.grid import changed, difference, file_name, parse, variants

CONFIG = from_dict({"tasks": {"countdown": {"options": {"numbers": 3, "operators": "+-"}}}, "seed": 4})


@pytest.mark.parametrize(
    ("text", "grid"),
    [
        ("seed=0..4", {"seed": [0, 1, 2, 3, 4]}),
        ("seed=1,3..5,9;", {"seed": [1, 3, 4, 5, 9]}),
        ("config.algorithm.scale=none,group_std", {"algorithm.scale": ["none", "group_std"]}),
        ("optimizer.learning_rate=1e-4, 3e-4", {"optimizer.learning_rate": [1e-4, 3e-4]}),
        ("algorithm.shuffle_rewards=true,false", {"algorithm.shuffle_rewards": [True, False]}),
        (
            "reward=(('score',1.0),),(('score',1.0),('format',0.1))",
            {"reward": [(("score", 1.0),), (("score", 1.0), ("format", 0.1))]},
        ),
        (
            "algorithm={'scale':'none','clip_low':0.1},{};seed=2",
            {"algorithm": [{"scale": "none", "clip_low": 0.1}, {}], "seed": [2]},
        ),
        ("prompt.template='a, b; {prompt}',{prompt}", {"prompt.template": ["a, b; {prompt}", "{prompt}"]}),
        ("init_from=,runs/5", {"init_from": ["", "runs/5"]}),
        ("tokenizer=5", {"tokenizer": ["5"]}),
        ("tasks={'modsum': {'weight': 2.0}}", {"tasks": [{"modsum": {"weight": 2.0}}]}),
    ],
)
def test_a_text_is_a_grid(text, grid):
    assert parse(text, CONFIG) == grid


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("seed", "'seed' is not of the form"),
        ("=3", "'=3'"),
        ("seed=1;seed=2", "config.seed twice"),
        ("seed=4..0", "seed=4..0"),
        ("seed=1,,2", "config.seed has an empty value"),
        ("algorithm={'scale':'none'", r"'}' is missing"),
        ("algorithm='scale", r"\"'\" is missing"),
        ("reward=('score',1.0))", r"'\)' closes nothing"),
    ],
)
def test_a_text_of_another_form_is_refused_with_its_part(text, named):
    with pytest.raises(ConfigError, match=named):
        parse(text, CONFIG)


def test_all_combinations_the_first_of_which_is_the_base():
    found, seeds = variants(
        CONFIG, {"algorithm.scale": ["group_std", "none"], "seed": range(3), "algorithm.clip_low": [0.1, 0.2]}
    )
    assert seeds == (0, 1, 2)
    assert [x.label for x in found] == [
        "scale=group_std, clip_low=0.1",
        "scale=group_std, clip_low=0.2",
        "scale=none, clip_low=0.1",
        "scale=none, clip_low=0.2",
    ]
    assert found[2].name == "algorithm.scale=none,algorithm.clip_low=0.1"
    (one, other), _ = variants(CONFIG, {"algorithm.scale": ["group_std", "none"], "algorithm.clip_low": [0.1]})
    assert (one.label, other.label) == ("scale=group_std", "scale=none")
    assert other.name == "algorithm.scale=none,algorithm.clip_low=0.1"
    assert found[2].changes == {"algorithm.scale": "none", "algorithm.clip_low": 0.1}


def test_a_label_has_the_values_as_the_grid_has_them_and_the_name_of_a_folder_stays():
    typed = ["(('score',1.0),)", "(('score',1.0),('length',-0.1))"]
    found, _ = variants(CONFIG, parse(f"reward={','.join(typed)};policy.tie_embeddings=true,false", CONFIG))
    assert [x.label for x in found[:3:2]] == [f"reward={text}, tie_embeddings=True" for text in typed]
    assert found[0].name.startswith("reward=-score-,1.0-,policy.tie_embeddings=true")
    grid = {"tasks": [{"modsum": {"options": {"digits": x}}} for x in (2, 3)]}
    assert variants(CONFIG, grid)[0][1].label == "tasks={'modsum':{'options':{'digits':3}}}"


def test_one_thing_at_a_time_leaves_out_what_is_the_base():
    grid = {"algorithm.scale": ["group_std", "none"], "algorithm.clip_low": [0.1, 0.2, 0.3]}
    found, seeds = variants(CONFIG, grid, one_at_a_time=True)
    assert seeds == (4,)
    assert [x.changes for x in found] == [
        {},
        {"algorithm.scale": "none"},
        {"algorithm.clip_low": 0.1},
        {"algorithm.clip_low": 0.3},
    ]
    assert found[0].name == found[0].label == "base"


def test_keys_that_change_together_are_single_changes():
    grid = {
        "algorithm": [{}, {"scale": "none", "aggregation": "constant"}],
        "optimizer.learning_rate": [np.float64(0.5)],
    }
    found, _ = variants(CONFIG, grid)
    assert [x.changes for x in found] == [
        {"optimizer.learning_rate": 0.5},
        {"algorithm.scale": "none", "algorithm.aggregation": "constant", "optimizer.learning_rate": 0.5},
    ]
    config = changed(CONFIG, found[1].changes)
    assert (config.algorithm.scale, config.algorithm.aggregation, config.algorithm.clip_low) == (
        "none",
        "constant",
        0.2,
    )
    assert config == changed(CONFIG, {"algorithm": grid["algorithm"][1], "optimizer.learning_rate": 0.5})


def test_tasks_and_options_are_replaced_as_a_whole_and_an_option_is_a_key():
    config = changed(CONFIG, {"tasks": {"modsum": {}}})
    assert list(config.tasks) == ["modsum"]
    config = changed(CONFIG, {"tasks.countdown.options.largest": 9})
    assert config.tasks["countdown"].options == {"numbers": 3, "operators": "+-", "largest": 9}
    assert changed(CONFIG, {"tasks.countdown.options": {"largest": 9}}).tasks["countdown"].options == {"largest": 9}


@pytest.mark.parametrize(
    ("grid", "named"),
    [
        ({"algorithm.scal": ["none"]}, r"config\.algorithm\.scal.*did you mean 'scale'"),
        ({"algoritm.scale": ["none"]}, r"config\.algoritm"),
        ({"seed.x": [1]}, r"config\.seed has no keys"),
        ({"algorithm.scale.foo": [1]}, r"config\.algorithm\.scale has no keys"),
        ({"algorithm.proximal": ["nine"]}, r"config\.algorithm\.proximal must be one of .* not 'nine'"),
        ({"rollout.prompts": [2.5]}, r"config\.rollout\.prompts"),
        ({"seed": ["x"]}, r"config\.seed"),
        ({"seed": []}, r"config\.seed no values"),
        ({"seed": [1, 1]}, r"config\.seed the value 1 twice"),
        ({"algorithm": [{"scal": 1}]}, r"config\.algorithm\.scal"),
        ({"algorithm": [{"scale": "none"}], "algorithm.scale": ["none"]}, r"config\.algorithm\.scale .*at once"),
        ({"tasks": [{"modsum": {}}], "tasks.modsum.weight": [1.0]}, r"config\.tasks and config\.tasks\.modsum\.weight"),
    ],
)
def test_bad_keys_and_values_are_refused_by_name(grid, named):
    with pytest.raises(ConfigError, match=named):
        variants(CONFIG, grid)


def test_what_differs_from_the_defaults_is_the_whole_config():
    config = changed(
        CONFIG, {"algorithm.clip_low": 0.1, "reward": (("score", 1.0), ("format", 0.5)), "policy.lora.rank": 2}
    )
    assert difference(config)["algorithm"] == {"clip_low": 0.1}
    assert from_dict(difference(config)) == config
    assert difference(Config()) == {}


def test_a_preset_replaces_the_method_and_its_overridden_keys_come_back_even_if_they_are_the_defaults():
    config = changed(CONFIG, {"algorithm.preset": "dapo", "algorithm.clip_high": 0.2})
    assert config.algorithm == preset("dapo", clip_high=0.2, minibatches=CONFIG.algorithm.minibatches)
    assert difference(config)["algorithm"].items() >= {"preset": "dapo", "clip_high": 0.2}.items()
    assert from_dict(difference(config)) == config


def test_names_of_files_are_safe_and_differ():
    assert file_name("a.b=1,c=x-2") == "a.b=1,c=x-2"
    names = [file_name(f"pretrained={x}") for x in ("a/b", "a:b", "a b", "../b", "x" * 300, "x" * 301)]
    assert len(set(names)) == len(names)
    assert not any(set("/: ") & set(name) or len(name) > 120 for name in names)
