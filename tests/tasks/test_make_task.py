"""Tasks by name, as configs ask for them."""

import pytest

from rlvr_jax.tasks import make_task, modsum


def test_a_task_is_made_by_name_with_its_options():
    task = make_task("modsum", {"digits": 4, "direct_share": 0.0})
    assert task.name == task.verifier == "modsum"
    assert task.example("train", 3) == modsum(digits=4).example("train", 3)
    assert make_task("countdown", {"numbers": 4}).name == "countdown"


def test_gsm8k_is_made_by_name_from_its_folder(gsm8k_data_dir):
    task = make_task("gsm8k", {"instruction": "Go."}, data_dir=str(gsm8k_data_dir))
    assert task.example("train", 0).prompt.endswith("?\nGo.\n")


def test_an_unknown_name_or_option_lists_the_known_ones():
    with pytest.raises(ValueError, match="unknown task 'mod_sum'; choose one of: countdown, gsm8k, modsum"):
        make_task("mod_sum")
    with pytest.raises(ValueError, match="'modsum' has no option 'digit'; it has: digits, direct_share"):
        make_task("modsum", {"digit": 4})
    with pytest.raises(ValueError, match="'gsm8k' has no option 'data_dir'; it has: instruction"):
        make_task("gsm8k", {"data_dir": "elsewhere"})
