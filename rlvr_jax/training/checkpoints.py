"""Checkpoints of the training state, by Orbax: written in the background, visible only once they are whole."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint.checkpoint_managers import preservation_policy

from rlvr_jax.errors import CheckpointError
from rlvr_jax.policy import Params
from rlvr_jax.training.step import TrainState

_FOLDER = "checkpoints"


def open_manager(workdir: Path, keep: int = 1) -> ocp.CheckpointManager:
    """The checkpoints of a run: the newest `keep`, and that of step 0, the policy that the run started from."""
    options = ocp.CheckpointManagerOptions(
        preservation_policy=preservation_policy.AnyPreservationPolicy(
            [preservation_policy.LatestN(keep), preservation_policy.CustomSteps([0])]
        ),
        cleanup_tmp_directories=True,  # what a killed process left half-written
        enable_async_checkpointing=True,
    )
    handlers = {"params": ocp.StandardCheckpointHandler(), "rest": ocp.StandardCheckpointHandler()}
    return ocp.CheckpointManager((workdir / _FOLDER).absolute(), options=options, item_handlers=handlers)


def save(manager: ocp.CheckpointManager, state: TrainState, step: int) -> None:
    """Saves the state after a step of the run; returns once it is copied, while it is still being written.

    The parameters are an item of their own, for those who need nothing else.

    Raises:
      CheckpointError: this or an earlier checkpoint could not be written.
    """
    items = ocp.args.Composite(params=ocp.args.StandardSave(state.params), rest=ocp.args.StandardSave(_rest(state)))
    with _explained(manager, "written"):
        manager.save(step, args=items)


def wait(manager: ocp.CheckpointManager) -> None:
    """Returns when everything is on disk; raises CheckpointError if something could not be written."""
    with _explained(manager, "written"):
        manager.wait_until_finished()


def restore(manager: ocp.CheckpointManager, shapes: TrainState, step: int) -> TrainState:
    """The state saved at `step`.

    Args:
      manager: from `open_manager`.
      shapes: `jax.ShapeDtypeStruct`s with shardings, onto which the arrays are placed.
      step: a step that was saved.

    Raises:
      CheckpointError: it can't be read, or holds other shapes.
    """
    params = restore_params(manager, shapes.params, step)
    with _explained(manager, f"read at step {step}"):
        rest = manager.restore(step, args=ocp.args.Composite(rest=ocp.args.StandardRestore(_rest(shapes))))["rest"]
    return TrainState(params=params, **rest)


def restore_params(manager: ocp.CheckpointManager, shapes: Params, step: int) -> Params:
    """The parameters saved at `step`; see `restore`."""
    with _explained(manager, f"read at step {step}"):
        saved = dict(_leaves(manager.item_metadata(step)["params"]))
    wanted = dict(_leaves(shapes))
    wrong = [
        f"{name}: {_shape(saved.get(name))} instead of {_shape(wanted.get(name))}"
        for name in sorted(saved.keys() | wanted.keys())
        if _shape(saved.get(name)) != _shape(wanted.get(name))
    ]
    if wrong:
        raise CheckpointError(
            f"the checkpoint of step {step} in {manager.directory} holds another policy than this config's: "
            + "; ".join(wrong[:8] + [f"and {len(wrong) - 8} more"] * (len(wrong) > 8))
        )
    with _explained(manager, f"read at step {step}"):
        return manager.restore(step, args=ocp.args.Composite(params=ocp.args.StandardRestore(shapes)))["params"]


def load_params(workdir: Path, shapes: Params) -> Params:
    """The newest parameters of a finished or running run, from its workdir.

    Raises:
      CheckpointError: there are none, they can't be read, or they have other shapes.
    """
    folder = workdir / _FOLDER
    if not folder.is_dir():
        raise CheckpointError(f"{workdir} holds no checkpoints: it is not the workdir of a run")
    options = ocp.CheckpointManagerOptions(read_only=True)
    with ocp.CheckpointManager(
        folder.absolute(), options=options, item_handlers={"params": ocp.StandardCheckpointHandler()}
    ) as manager:
        step = manager.latest_step()
        if step is None:
            raise CheckpointError(f"{folder} holds no complete checkpoint")
        return restore_params(manager, shapes, step)


def with_shardings(shapes: Any, shardings: Any) -> Any:
    """Shapes and dtypes that say where the arrays go."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)


def _rest(state: TrainState) -> dict[str, Any]:
    return {
        "updates": state.updates,
        "opt_state": state.opt_state,
        "skipped": state.skipped,
        "skipped_in_a_row": state.skipped_in_a_row,
    }


def _leaves(tree: Any) -> list[tuple[str, Any]]:
    tree = getattr(tree, "tree", tree)  # Orbax wraps the metadata of a tree
    return [(jax.tree_util.keystr(path, simple=True, separator="/"), x) for path, x in jax.tree.leaves_with_path(tree)]


def _shape(leaf: Any) -> str:
    return "absent" if leaf is None else str(tuple(leaf.shape))


@contextlib.contextmanager
def _explained(manager: ocp.CheckpointManager, what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # Orbax and TensorStore raise many types
        reason = " ".join(str(error).split())[:300]
        steps = [step for step in manager.all_steps() if (Path(manager.directory) / str(step)).is_dir()]
        raise CheckpointError(
            f"a checkpoint in {manager.directory} could not be {what}: {type(error).__name__}: {reason}. "
            f"Complete checkpoints: {sorted(steps) or 'none'}. If the disk is full, free space; if a checkpoint is "
            "damaged, delete its folder; then run the same command again to continue."
        ) from error
