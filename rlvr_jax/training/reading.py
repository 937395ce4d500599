"""Reading parameters from the checkpoints of a run, finished or running, all at once or one at a time."""

import contextlib
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from jaxtyping import Array

from rlvr_jax import quiet
from rlvr_jax.errors import CheckpointError
from rlvr_jax.hf.export import Lazy
from rlvr_jax.policy import ADAPTERS, Params, base
from rlvr_jax.training.checkpoints import (
    check_params,
    folder_of,
    items_of,
    name_of,
    restore_item,
    saved_leaves,
)
from rlvr_jax.training.damage import complete, explained


def load_params(workdir: Path, shapes: Params, step: int | None = None, network: str = "policy") -> tuple[Params, int]:
    """The parameters that a finished or running run saved at a step, the newest by default, and the step.

    Parameters of another dtype are converted. Adapters that the run didn't have are left out.

    Raises:
      CheckpointError: there are none, they can't be read, or they have other shapes.
    """
    with _open(workdir, step, network) as (manager, step):
        shapes, as_saved = _wanted(manager, shapes, step, network)
        params = restore_item(manager, items_of(network)[0], as_saved, step)
        return jax.tree.map(lambda x, wanted: x.astype(wanted.dtype), params, shapes), step


@contextlib.contextmanager
def open_params(
    workdir: Path, shapes: Params, step: int | None = None, network: str = "policy"
) -> Iterator[tuple[Params, int]]:
    """The parameters of `load_params`, each a `Lazy` array, which is read from the checkpoint when it is needed.

    Raises as `load_params`; reading raises CheckpointError if the array is damaged.
    """
    with _open(workdir, step, network, ocp.PyTreeCheckpointHandler()) as (manager, step):
        shapes, as_saved = _wanted(manager, shapes, step, network)
        leaves, tree = jax.tree.flatten(as_saved)

        def read(number: int, dtype: Any) -> Array:
            only = [x if i == number else ocp.PLACEHOLDER for i, x in enumerate(leaves)]
            args = ocp.args.PyTreeRestore(tree.unflatten(only), ocp.checkpoint_utils.construct_restore_args(as_saved))
            params = restore_item(manager, items_of(network)[0], args, step)
            return jax.tree.leaves(params)[number].astype(dtype)

        lazy = [Lazy(x.shape, x.dtype, partial(read, i, x.dtype)) for i, x in enumerate(jax.tree.leaves(shapes))]
        yield tree.unflatten(lazy), step


def _wanted(manager: ocp.CheckpointManager, shapes: Params, step: int, network: str) -> tuple[Params, Params]:
    """The parameters to read, and as they were saved. Raises CheckpointError if the checkpoint holds others."""
    saved = saved_leaves(manager, step, network)
    shapes = _without_new_adapters(shapes, saved)
    check_params(manager, shapes, saved, step, network)
    as_saved = jax.tree_util.tree_map_with_path(
        lambda path, x: jax.ShapeDtypeStruct(x.shape, saved[name_of(path)].dtype, sharding=x.sharding),
        shapes,
    )
    return shapes, as_saved


def check_loadable(workdir: Path, shapes: Params, network: str = "policy", step: int | None = None) -> None:
    """Raises CheckpointError if `load_params` would find no or other parameters; reads no arrays."""
    with _open(workdir, step, network) as (manager, step):
        saved = saved_leaves(manager, step, network)
        check_params(manager, _without_new_adapters(shapes, saved), saved, step, network)


def has_network(workdir: Path, network: str) -> bool:
    """True if the newest checkpoint of a run holds this network; raises CheckpointError if there is no checkpoint."""
    with _open(workdir, network=network) as (manager, step):
        return (manager.directory / str(step) / items_of(network)[0]).exists()


def _without_new_adapters(shapes: Params, saved: Mapping[str, Any]) -> Params:
    return shapes if any(name.startswith(ADAPTERS) for name in saved) else base(shapes)


@contextlib.contextmanager
def _open(
    workdir: Path, step: int | None = None, network: str = "policy", handler: ocp.CheckpointHandler | None = None
) -> Iterator[tuple[ocp.CheckpointManager, int]]:
    """The complete checkpoint of a step, the newest by default, of a run which may still be running."""
    folder = folder_of(workdir)
    if not folder.is_dir():
        place = workdir.absolute()
        missing = "holds no checkpoints: it is not the workdir of a run" if place.is_dir() else "is no folder"
        raise CheckpointError(f"{place} {missing}")
    steps = complete(folder)
    if not steps:
        raise CheckpointError(f"{folder} holds no complete checkpoint")
    if step is not None and step not in steps:
        raise CheckpointError(f"{folder} holds no complete checkpoint of step {step}; there are {steps}")
    handlers = {items_of(network)[0]: handler or ocp.StandardCheckpointHandler()}
    with quiet.orbax():
        options = ocp.CheckpointManagerOptions(read_only=True)
        with explained(folder, "opened"):
            manager = ocp.CheckpointManager(folder, options=options, item_handlers=handlers)
        with manager:
            yield manager, steps[-1] if step is None else step
