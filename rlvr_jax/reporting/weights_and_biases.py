"""Metrics of a run at Weights & Biases (the optional package `wandb`).

Its own environment variables apply: WANDB_PROJECT (`rlvr_jax` if not set), WANDB_NAME (the workdir's name), WANDB_MODE
(`offline` writes to the workdir, for `wandb sync`), WANDB_API_KEY and the others.
"""

import contextlib
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rlvr_jax.errors import RunError


@contextlib.contextmanager
def weights_and_biases(workdir: Path, config: Mapping[str, Any]) -> Iterator[Callable[[Mapping[str, Any]], None]]:
    """A function that logs a row of metrics. A resumed run continues its curves.

    Raises:
      RunError: the package could not start a run, for lack of a login or network.
    """
    import wandb  # optional

    try:
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "rlvr_jax"),
            name=os.environ.get("WANDB_NAME", workdir.resolve().name),
            id=_run_id(workdir),
            resume="allow",
            dir=str(workdir),
            config=dict(config),
            settings=wandb.Settings(console="off", silent=True),
        )
    except Exception as error:  # its errors are of many kinds
        raise RunError(
            f"config.reporting: wandb can't start a run: {' '.join(str(error).split())}; log in by `wandb login`, or "
            "set WANDB_MODE=offline"
        ) from error
    # Steps that are repeated after a kill come twice, with the same numbers.
    run.define_metric("step")
    run.define_metric("*", step_metric="step")
    try:
        yield lambda row: run.log(dict(row))
    except BaseException:
        run.finish(exit_code=1)
        raise
    run.finish()


def _run_id(workdir: Path) -> str:
    """The name of the workdir's run at Weights & Biases, created on first use."""
    path = workdir / "wandb_run_id.txt"
    if not path.exists():
        path.write_text(secrets.token_hex(6), encoding="ascii")
    return path.read_text(encoding="ascii").strip()
