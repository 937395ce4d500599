"""Runs that a reader of the pages has made."""

import sys
from pathlib import Path

import pytest

from tests.experiments.runs import SHORT, complete


@pytest.fixture(scope="session")
def quickstart_sft(tmp_path_factory) -> Path:
    """The warm start of `make quickstart`, with one step and the policy of `SHORT`."""
    workdir = tmp_path_factory.mktemp("quickstart") / "sft"
    flags = ["--config=quickstart", f"--workdir={workdir}", *f"--config.training.{SHORT}".split()]
    steps = [f"--config.sft.{key}=1" for key in ("num_steps", "save_every", "updates_per_call")]
    complete([sys.executable, "-m", "experiments.sft", *flags, *steps])
    return workdir


@pytest.fixture
def after_quickstart(quickstart_sft, tmp_path) -> Path:
    """An empty folder but for `runs/quickstart/sft`."""
    (tmp_path / "runs" / "quickstart").mkdir(parents=True)
    (tmp_path / "runs" / "quickstart" / "sft").symlink_to(quickstart_sft)
    return tmp_path
