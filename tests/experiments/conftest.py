"""Runs that a reader of the pages has made."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.experiments.calls import complete, one_process
from tests.experiments.runs import SMALL, overrides


@pytest.fixture(scope="session")
def quickstart_sft(tmp_path_factory, commands) -> Path:
    """The warm start of `make quickstart`, of the size of `SMALL`."""
    workdir = tmp_path_factory.mktemp("quickstart") / "sft"
    flags = ["--config=quickstart", f"--workdir={workdir}", *overrides(SMALL).split()]
    complete([sys.executable, "-m", "experiments.sft", *flags], workdir.parent, commands)
    return workdir


@pytest.fixture
def after_quickstart(quickstart_sft, tmp_path) -> Path:
    """An empty folder but for `runs/quickstart/sft`."""
    (tmp_path / "runs" / "quickstart").mkdir(parents=True)
    (tmp_path / "runs" / "quickstart" / "sft").symlink_to(quickstart_sft)
    return tmp_path


@pytest.fixture(scope="session")
def commands() -> Iterator[str]:
    """Address of the one process in which the commands of the pages run."""
    with one_process() as address:
        yield address
