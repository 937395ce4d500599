"""The page about algorithms lists every choice and preset, and its examples run as they stand there."""

import json
import re

import jax.numpy as jnp
import numpy as np
import pytest

from rlvr_jax.algorithm_rules import CHOICES
from rlvr_jax.learner import baselines, clips
from rlvr_jax.learner.advantages import advantages
from rlvr_jax.learner.algorithm import AlgorithmConfig
from rlvr_jax.learner.presets import PRESETS
from rlvr_jax.learner.samples import make_samples
from tests.experiments.calls import run_script
from tests.experiments.runs import ROOT, SHORT
from tests.learner.loss_by_hand import loss_of, random_inputs

PAGE = (ROOT / "docs" / "algorithms.md").read_text()
CLIP, BASELINE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
(COMMAND,) = re.findall(r"```bash\n(.*?)```", PAGE, re.DOTALL)


def rows(heading):
    """The first column of the table of a section."""
    (section,) = re.findall(rf"^## {heading}.*?(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)


@pytest.mark.parametrize("key", CHOICES)
def test_every_choice_has_a_row(key):
    assert rows(f"`{key}`") == list(CHOICES[key])


def test_every_preset_has_a_row_with_its_choices():
    assert rows("Presets") == list(PRESETS)
    for name, x in PRESETS.items():
        choices = ", ".join(f"{key} {value}" for key, value in x.choices.items())
        assert f"| `{name}` | {x.source} | {choices} | {x.paper} | {x.differs} |" in PAGE


def test_the_default_is_the_one_of_the_page():
    (default,) = re.findall(r"the method is GRPO with `(.*?)`", PAGE, re.DOTALL)
    config, choices = AlgorithmConfig(), dict(choice.split("=") for choice in default.replace("\n", " ").split(", "))
    assert {key: getattr(config, key) for key in choices} == choices
    assert (config.kl_coef, config.kl_reward_coef) == (0, 0)
    assert PRESETS["grpo"].choices["aggregation"] == "sequence_mean"


def test_the_examples_are_choices_once_they_are_in_their_tables(monkeypatch):
    space = {"Clipped": clips.Clipped, "jnp": jnp, "np": np}
    exec(CLIP + BASELINE, space)
    monkeypatch.setitem(clips.CLIPS, "one_sided", space["one_sided"])
    monkeypatch.setitem(baselines.BASELINES, "group_median", space["group_median"])
    inputs = random_inputs(0)
    ratio = np.exp(inputs["logprobs"] - inputs["behaviour"]) * inputs["mask"]
    found = loss_of(AlgorithmConfig(clip="one_sided"), inputs)
    assert found.means["train/clip_high"][0] == found.means["train/clip_fraction"][0] == np.sum(ratio > 1.2) > 0
    np.testing.assert_allclose(found.loss, -np.sum(np.minimum(ratio, 1.2) * inputs["advantages"]), rtol=1e-5)
    config = AlgorithmConfig(baseline="group_median", scale="none")
    assert advantages(config, make_samples([1, 5, 3, 2], [0, 0, 0, 1])).tolist() == [-2, 2, 0, 0]


def test_the_command_of_the_page_trains(after_quickstart, commands):
    run_script(COMMAND.replace("num_steps=60", SHORT), after_quickstart, commands)
    config = json.loads((after_quickstart / "dapo" / "config.json").read_text())["algorithm"]
    assert (config["preset"], config["clip_low"], config["clip_high"]) == ("dapo", 0.2, 0.3)
    assert config["aggregation"] == "group_token_mean"
    assert len((after_quickstart / "dapo" / "metrics.jsonl").read_text().splitlines()) == 3
