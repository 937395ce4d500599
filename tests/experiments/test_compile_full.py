"""Configs of real models, compiled at full size for the hardware that their docstrings state."""

import pytest

from experiments.slices import offline, places
from rlvr_jax.training.setup import make_setup
from tests.test_configs import load

pytestmark = [pytest.mark.full, pytest.mark.usefixtures("no_cache")]


@pytest.mark.parametrize(
    ("config", "topology"), [("gsm8k_llama32_1b", "v5p:2x2x1"), ("tulu3_rlvr_8b", "v5p:2x2x4")], ids=lambda x: x
)
def test_every_program_of_a_step_compiles_and_fits(config, topology):
    where = places(topology, None, 0, compiles=True)
    found = where.analysis(make_setup(offline(load(config)), problems=False, devices=where.devices))
    assert found.missing == {}
    assert found.compiled.keys() == {"update", "scoring", "move", "rollout", "evaluation"}
    assert found.memory.spare > 0
    held = found.memory.phases["update"]
    state = held["parameters"] + held["moments"] + held["batch"]
    assert found.compiled["update"]["argument"] == pytest.approx(state, rel=0.02)
