"""Tasks by name, as configs ask for them."""

import subprocess
import sys

import pytest

from rlvr_jax.tasks import TASKS, make_task, modsum, published, reasoning_gym


def test_a_task_is_made_by_name_with_its_options():
    task = make_task("modsum", {"digits": 4, "direct_share": 0.0})
    assert task.name == task.verifier == "modsum"
    assert task.example("train", 3) == modsum(digits=4).example("train", 3)
    assert make_task("countdown", {"numbers": 4}).name == "countdown"


def test_a_data_set_of_reasoning_gym_is_made_with_its_settings():
    task = make_task("reasoning_gym", {"dataset": "chain_sum", "min_terms": 2, "max_terms": 2})
    assert task.example("heldout", 3) == reasoning_gym("chain_sum", min_terms=2, max_terms=2).example("heldout", 3)


def test_a_data_set_is_made_by_name_from_where_it_is_prepared(gsm8k_data_dir):
    task = make_task("gsm8k", {"instruction": "Go."}, data_dir=str(gsm8k_data_dir))
    assert task.example("train", 0).prompt.endswith("?\nGo.\n")


FILE_TASKS = {
    "arc_agi": {},
    "countdown_tinyzero": {},
    "gsm8k": {},
    "humaneval": {},
    "ifeval": {"heldout_share": 0.5},
    "math": {"heldout": "holdback"},
    "mbpp": {},
}


@pytest.mark.parametrize("name", FILE_TASKS)
def test_one_folder_of_files_serves_every_data_set_and_examples_know_their_place(real_task, name):
    assert name in TASKS
    task = real_task(name, **FILE_TASKS[name])
    assert task.name == name
    ids, prompts = set(), {}
    for split in ("train", "heldout"):
        prompts[split] = set()
        for index in range(task.num_examples(split)):
            example = task.example(split, index)
            assert example.prompt.strip()
            assert (example.id, example.task) == (f"{name}/{split}/{index}", name)
            ids.add(example.id)
            prompts[split].add(example.prompt)
    assert len(ids) == task.num_examples("train") + task.num_examples("heldout") > 0
    assert not prompts["train"] & prompts["heldout"]


def test_an_unknown_name_or_option_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"unknown task 'mod_sum'; choose one of: .*countdown, .*gsm8k, .*modsum"):
        make_task("mod_sum")
    with pytest.raises(ValueError, match="'modsum' has no option 'digit'; it has: digits, direct_share"):
        make_task("modsum", {"digit": 4})
    with pytest.raises(ValueError, match="task 'reasoning_gym' needs the option 'dataset'"):
        make_task("reasoning_gym")
    with pytest.raises(ValueError, match="'gsm8k' has no option 'data_dir'; it has: answer_format, instruction"):
        make_task("gsm8k", {"data_dir": "elsewhere"})


def test_reading_data_sets_imports_neither_tensorflow_nor_torch(gsm8k_data_dir):
    program = (
        "import sys; from pathlib import Path; from rlvr_jax.tasks import make_task, published; "
        f"published.CHECKSUMS = Path({str(published.CHECKSUMS)!r}); "
        f"print(make_task('gsm8k', data_dir={str(gsm8k_data_dir)!r}).example('train', 0).reference); "
        "assert not {'tensorflow', 'torch'} & set(sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout == "72\n"


def test_tasks_without_files_do_not_wait_for_the_import_of_tfds():
    program = (
        "import sys; from rlvr_jax.tasks import make_task; make_task('modsum'); "
        "assert 'tensorflow_datasets' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
