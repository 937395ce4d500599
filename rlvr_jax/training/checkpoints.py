"""Checkpoints of the training state, by Orbax: written in the background, visible only once complete.

Each has the checksums of its arrays.
"""

import contextlib
import json
import re
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath
from jaxtyping import Array
from orbax.checkpoint.checkpoint_managers import preservation_policy

from rlvr_jax import quiet
from rlvr_jax.errors import CheckpointError, ConfigError, DivergedError, PreemptedError
from rlvr_jax.learner.step import Learner, TrainState
from rlvr_jax.parallel import Processes
from rlvr_jax.policy import Params
from rlvr_jax.reporting import files
from rlvr_jax.training.checksums import checksum_of_json, checksums_of
from rlvr_jax.training.damage import METADATA, complete, explained, steps_in

_FOLDER = "checkpoints"  # in the workdir
_ADDRESS = "checkpoints.txt"  # that of another folder, in the workdir
_OF_A_STEP = re.compile(r"\d+(\.orbax-checkpoint-tmp.*)?")  # a folder, perhaps half written
_ARRAYS = "in_flight"  # item of arrays beside the host state
_OTHERS = ("reference", "kl_coef", "entropy_coef")  # items for what `Learner.others` holds
NETWORKS = ("policy", "critic", "reward")


@contextlib.contextmanager
def open_manager(
    workdir: Path, keep: int = 1, every: int = 0, best: int = 0, processes: Processes | None = None
) -> Iterator[ocp.CheckpointManager]:
    """The checkpoints of a run.

    Incomplete checkpoints of a killed run are removed first. On exit everything is on disk. All processes write, each
    its own shards.

    Args:
      workdir: of the run.
      keep: number of newest checkpoints kept; that of step 0, the policy that the run started from, is always kept.
      every: those of multiples of this step are kept, too; 0 for none.
      best: number of those with the highest accuracy, see `save`, that are kept, too.
      processes: of the run; by default this one alone.

    Raises:
      CheckpointError: the folder can't be read or written.
    """
    folder = folder_of(workdir)
    kept: list[preservation_policy.PreservationPolicy] = [
        preservation_policy.LatestN(keep),
        preservation_policy.CustomSteps([0]),
        preservation_policy.BestN(get_metric_fn=_accuracy, n=best, keep_checkpoints_without_metrics=False),
    ]
    if every:
        kept.append(preservation_policy.EveryNSteps(every))
    options = ocp.CheckpointManagerOptions(
        preservation_policy=preservation_policy.AnyPreservationPolicy(kept),
        best_fn=_accuracy if best else None,
        cleanup_tmp_directories=True,
        enable_async_checkpointing=True,
    )
    names = (*(item for network in NETWORKS for item in items_of(network)), *_OTHERS, _ARRAYS)
    handlers = {name: ocp.StandardCheckpointHandler() for name in names} | {"host": ocp.JsonCheckpointHandler()}
    if processes and processes.count > 1:
        for handler in handlers.values():
            _end_together(handler, folder, processes)
    with quiet.orbax():
        with explained(folder, "opened"):
            with (processes or Processes()).first_goes_ahead():
                for step in sorted({*steps_in(folder)} - {*complete(folder)}):
                    (folder / str(step)).rmtree()
            manager = ocp.CheckpointManager(folder, options=options, item_handlers=handlers)
        try:
            yield manager
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to report
                manager.close()
            raise
        with explained(folder, "written"):
            manager.close()


@dataclass(frozen=True)
class _Told:
    """A write in the background, whose failure ends all processes: the others wait for this one's part, for minutes."""

    write: Any
    folder: epath.Path
    processes: Processes

    def result(self, timeout: float | None = None) -> Any:
        try:
            with explained(self.folder, "written"):
                return self.write.result(timeout)
        except CheckpointError as error:
            self.processes.end(str(error))


def _end_together(handler: ocp.CheckpointHandler, folder: epath.Path, processes: Processes) -> None:
    save = handler.async_save

    async def async_save(*args: Any, **named: Any) -> list[_Told]:
        return [_Told(write, folder, processes) for write in await save(*args, **named) or ()]

    handler.async_save = async_save


def _accuracy(metrics: Mapping[str, float]) -> float:
    return metrics["accuracy"]


def complete_steps(workdir: Path) -> list[int]:
    """The steps with complete checkpoints, in order; none if there is no such folder."""
    return complete(folder_of(workdir))


def folder_of(workdir: Path) -> epath.Path:
    """The folder of a run's checkpoints."""
    elsewhere = workdir / _ADDRESS
    here = (workdir / _FOLDER).absolute()
    return epath.Path(elsewhere.read_text(encoding="utf-8").strip() if elsewhere.exists() else here)


def keep_elsewhere(workdir: Path, address: str) -> None:
    """Puts the checkpoints of a new run into another folder than its workdir: any path that Orbax takes, gs:// too.

    Raises:
      ConfigError: that folder is not empty, or can't be used.
    """
    where = f"config.training.checkpoints = {address!r}"
    try:
        folder = epath.Path(address).expanduser()
        folder = folder if "://" in address else folder.absolute()
        if folder.exists() and (found := next(iter(folder.iterdir()), None)):  # what is the run's may be removed later
            raise ConfigError(f"{where} is not empty, it holds {found.name}; name a new folder")
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ImportError, NotImplementedError) as error:
        raise ConfigError(f"{where}: {type(error).__name__}: {error}") from error
    files.replace(workdir / _ADDRESS, f"{folder}\n".encode())


def remove(workdir: Path) -> None:
    """Removes all checkpoints of a run, and of a folder that is not in its workdir nothing else."""
    folder, elsewhere = folder_of(workdir), workdir / _ADDRESS
    if folder.exists() and not elsewhere.exists():
        folder.rmtree()
    for path in list(folder.iterdir()) if folder.exists() else ():
        if _OF_A_STEP.fullmatch(path.name):
            path.rmtree()
    elsewhere.unlink(missing_ok=True)


def items_of(network: str) -> tuple[str, str]:
    """The names of the items of a network's parameters and of the rest of its state."""
    return ("params", "rest") if network == "policy" else (f"{network}_params", f"{network}_rest")


def save(
    manager: ocp.CheckpointManager,
    learner: Learner,
    step: int,
    host: Mapping[str, Any] | None = None,
    accuracy: float | None = None,
) -> None:
    """Saves the state after a step of the run; returns once it is copied, before it is written.

    The parameters of each network are an item of their own, which can be loaded alone.

    Args:
      manager: from `open_manager`.
      learner: on the device.
      step: of the run.
      host: further state, as JSON data.
      accuracy: of the policy on held-out problems, if it was evaluated at this step.

    Raises:
      CheckpointError: this or an earlier checkpoint could not be written.
    """
    items = dict(learner.others)
    for network, state in learner.states.items():
        items |= dict(zip(items_of(network), (state.params, _rest(state)), strict=True))
    checksums: dict[str, Any] = {name: checksums_of(dict(leaves_of(item))) for name, item in items.items()}
    args = {name: ocp.args.StandardSave(item) for name, item in items.items()}
    if host:
        args["host"] = ocp.args.JsonSave(deepcopy(dict(host)))  # it is written while the run changes its own
        checksums["host"] = checksum_of_json(host)
    with explained(manager.directory, "written"):
        metrics = None if accuracy is None else {"accuracy": accuracy}
        manager.save(step, metrics=metrics, args=ocp.args.Composite(**args), custom_metadata={"checksums": checksums})


def wait(manager: ocp.CheckpointManager) -> None:
    """Blocks until everything is on disk; raises CheckpointError if a write failed."""
    with explained(manager.directory, "written"):
        manager.wait_until_finished()


def end_step(
    manager: ocp.CheckpointManager,
    learner: Learner,
    step: int,
    due: bool,
    stop: signal.Signals | None,
    max_skipped_in_a_row: int,
    host: Callable[[], tuple[Mapping[str, Any], Sequence[Array]]] = lambda: ({}, ()),
    accuracy: float | None = None,
) -> dict[str, float]:
    """Saves the state of a step, and JSON data and arrays of `host`, if due, and ends the run if necessary.

    The arguments without a name here are those of `save`.

    Returns:
      `time/save`, the seconds that saving held up the run; empty if nothing was saved. A metric of the next step: the
      row of this one is on disk before its checkpoint.

    Raises:
      CheckpointError: this or an earlier checkpoint could not be written.
      DivergedError: too many consecutive updates were skipped. This state is not saved.
      PreemptedError: `stop` has arrived; the state is on disk.
    """
    if not manager.is_saving_in_progress():
        wait(manager)  # raises the error of a checkpoint that could not be written meanwhile
    skipped = max(int(state.skipped_in_a_row) for state in learner.states.values())
    if skipped >= max_skipped_in_a_row:
        wait(manager)
        raise DivergedError(
            f"step {step}: {skipped} updates in a row were skipped: their gradients, or what the "
            f"optimizer made of them, were not finite. The parameters from before them are safe in "
            f"{manager.directory}. Lower the learning rate, or look for the samples that do it"
        )
    if not (due or stop):
        return {}
    began = time.perf_counter()
    state, arrays = host()
    others = learner.others | ({_ARRAYS: list(arrays)} if arrays else {})
    save(manager, Learner(learner.states, others), step, state, accuracy)
    if stop:
        wait(manager)
        raise PreemptedError(stop, f"the state of step {step}")
    return {"time/save": time.perf_counter() - began}


def restore(manager: ocp.CheckpointManager, shapes: Learner, step: int) -> Learner:
    """The learner saved at `step`.

    Args:
      manager: from `open_manager`.
      shapes: `jax.ShapeDtypeStruct`s with shardings, onto which the arrays are placed.
      step: of a checkpoint.

    Raises:
      CheckpointError: it can't be read, is damaged, or holds other shapes.
    """
    states = {}
    for network, state in shapes.states.items():
        params = restore_params(manager, state.params, step, network)
        states[network] = TrainState(params=params, **restore_item(manager, items_of(network)[1], _rest(state), step))
    return Learner(states, {name: restore_item(manager, name, x, step) for name, x in shapes.others.items()})


def restore_host(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    """The host state saved at `step`; raises CheckpointError if it can't be read."""
    if not (manager.directory / str(step) / "host").exists():
        return {}
    with explained(manager.directory, "read", step):
        host = manager.restore(step, args=ocp.args.Composite(host=ocp.args.JsonRestore()))["host"]
        if _checksums(manager, step).get("host") != checksum_of_json(host):
            raise ValueError("host is damaged: its checksum is wrong or missing")
        return host


def restore_arrays(
    manager: ocp.CheckpointManager, shapes: Sequence[jax.ShapeDtypeStruct], step: int
) -> Sequence[Array]:
    """The arrays saved beside the host state at `step`; raises CheckpointError if they can't be read."""
    return restore_item(manager, _ARRAYS, list(shapes), step)


def restore_params(manager: ocp.CheckpointManager, shapes: Params, step: int, network: str = "policy") -> Params:
    """The parameters of a network saved at `step`; see `restore`."""
    check_params(manager, shapes, saved_leaves(manager, step, network), step, network)
    return restore_item(manager, items_of(network)[0], shapes, step)


def check_params(
    manager: ocp.CheckpointManager, shapes: Params, saved: Mapping[str, Any], step: int, network: str = "policy"
) -> None:
    """Raises CheckpointError if the parameters `saved` at a step, from `saved_leaves`, don't have these shapes."""
    wanted = dict(leaves_of(shapes))
    wrong = [
        f"{name}: {_shape(saved.get(name))} instead of {_shape(wanted.get(name))}"
        for name in sorted(saved.keys() | wanted.keys())
        if _shape(saved.get(name)) != _shape(wanted.get(name))
    ]
    if wrong:
        raise CheckpointError(
            f"the checkpoint of step {step} in {manager.directory} holds another {network} than this config's: "
            + "; ".join(wrong[:8] + [f"and {len(wrong) - 8} more"] * (len(wrong) > 8))
        )


def saved_leaves(manager: ocp.CheckpointManager, step: int, network: str) -> dict[str, Any]:
    """Names and shapes of the parameters saved at a step; raises CheckpointError if they can't be read.

    From the one item, because `manager.item_metadata` opens every array of every item.
    """
    with explained(manager.directory, "read", step):
        item = manager.directory / str(step) / items_of(network)[0]
        saved = dict(leaves_of(ocp.StandardCheckpointHandler().metadata(item)))
        if not saved:
            raise ValueError("it does not say what it holds")
    return saved


def with_shardings(shapes: Any, shardings: Any) -> Any:
    """Shapes and dtypes with shardings."""
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)


def _rest(state: TrainState) -> dict[str, Any]:
    return {
        "updates": state.updates,
        "opt_state": state.opt_state,
        "skipped": state.skipped,
        "skipped_in_a_row": state.skipped_in_a_row,
    }


def restore_item(manager: ocp.CheckpointManager, item: str, shapes: Any, step: int) -> Any:
    """An item of a step, by its shapes or arguments of Orbax; leaves that are `ocp.PLACEHOLDER` are not read."""
    args = shapes if isinstance(shapes, ocp.args.CheckpointArgs) else ocp.args.StandardRestore(shapes)
    with explained(manager.directory, "read", step):
        restored = manager.restore(step, args=ocp.args.Composite(**{item: args}))[item]
        saved = _checksums(manager, step).get(item, {})
        if not isinstance(saved, dict):
            raise ValueError(f"{item} was written by an older version, which had one checksum for all of its arrays")
        found = checksums_of({name: x for name, x in leaves_of(restored) if x is not ocp.PLACEHOLDER})
        if damaged := [name for name, x in found.items() if saved.get(name) != x]:
            raise ValueError(f"{item}/{damaged[0]} is damaged: its checksum is wrong or missing")
    return restored


def _checksums(manager: ocp.CheckpointManager, step: int) -> dict[str, Any]:
    """The checksums saved with a step, by item: of each array, and of the host's state.

    From the file, because `manager.metadata` opens every array of every item.
    """
    metadata = json.loads((manager.directory / str(step) / METADATA).read_text())
    return (metadata.get("custom_metadata") or {}).get("checksums", {})


def leaves_of(tree: Any) -> list[tuple[str, Any]]:
    """The leaves of a pytree with their names, such as "layers/attention/q"."""
    tree = getattr(tree, "tree", tree)  # Orbax wraps the metadata of a tree
    return [(name_of(path), x) for path, x in jax.tree.leaves_with_path(tree)]


def name_of(path: tuple[Any, ...]) -> str:
    """The name of a leaf, by its path."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _shape(leaf: Any) -> str:
    return "absent" if leaf is None else str(tuple(leaf.shape))
