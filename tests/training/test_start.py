"""What a run starts from: demonstrations that fit, parameters of another dtype, held-out problems that differ."""

import dataclasses

import jax
import numpy as np
import pytest

from rlvr_jax.errors import ConfigError
from rlvr_jax.training import heldout, reading
from rlvr_jax.training.setup import make_setup
from rlvr_jax.training.sft import sft
from rlvr_jax.training.start import param_shapes
from tests.training.test_loop import TINY

pytestmark = pytest.mark.usefixtures("one_device")


def test_demonstrations_that_are_too_long_are_refused_before_a_workdir_is_made(tmp_path):
    config = dataclasses.replace(TINY, rollout=dataclasses.replace(TINY.rollout, max_response_length=2))
    with pytest.raises(ConfigError, match=r"^config\.rollout: .*max_response_length"):
        sft(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_parameters_saved_in_float32_start_a_run_in_bfloat16(tmp_path):
    sft(TINY, tmp_path)
    saved, step = reading.load_params(tmp_path, param_shapes(make_setup(TINY)))
    half = dataclasses.replace(TINY, policy=dataclasses.replace(TINY.policy, param_dtype="bfloat16"))
    loaded, same_step = reading.load_params(tmp_path, param_shapes(make_setup(half)))
    assert step == same_step == TINY.sft.num_steps
    for before, after in zip(jax.tree.leaves(saved), jax.tree.leaves(loaded), strict=True):
        assert after.dtype == jax.numpy.bfloat16
        np.testing.assert_array_equal(np.asarray(before.astype(jax.numpy.bfloat16)), np.asarray(after))


def test_held_out_problems_all_have_different_prompts():
    task = make_setup(TINY).tasks["modsum"]
    examples = heldout.heldout_examples(task, 40)
    assert len({example.prompt for example in examples}) == 40
    assert examples[:8] == heldout.heldout_examples(task, 8)


def test_a_task_with_fewer_held_out_problems_than_wanted_gives_all_of_them():
    task = make_setup(TINY).tasks["modsum"]  # 1,000 problems, of which a tenth is held out
    assert 80 < len(heldout.heldout_examples(task, 400)) < 120


def test_more_held_out_problems_than_can_be_drawn_are_refused_before_a_workdir_is_made(tmp_path):
    config = dataclasses.replace(TINY, evaluation=dataclasses.replace(TINY.evaluation, problems=10**12))
    with pytest.raises(ConfigError, match=r"config\.evaluation\.problems = 1000000000000, .*config\.tasks\.modsum"):
        sft(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
