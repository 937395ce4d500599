"""Data sets, prepared once for all tests of a process."""

from collections.abc import Callable
from pathlib import Path

import pytest

from rlvr_jax.tasks import Task, make_task


@pytest.fixture(scope="session")
def real_task(data_sets: Path, prepared_dir: Path) -> Callable[..., Task]:
    """(name, options...) -> the task, from the data sets of the tests."""
    made = {}

    def task(name: str, **options: object) -> Task:
        key = name, repr(options)
        if key not in made:
            made[key] = make_task(name, options, str(prepared_dir), str(data_sets))
        return made[key]

    return task


@pytest.fixture(scope="session")
def gsm8k_data_dir(prepared_dir: Path, real_task: Callable[..., Task]) -> Path:
    """A data_dir in which GSM8K is prepared. Not to be changed."""
    real_task("gsm8k")
    return prepared_dir
