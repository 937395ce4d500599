"""The checkpoints in a folder, and one clear line about one that can't be read or written."""

import contextlib
import json
import re
from collections.abc import Iterator

from etils import epath

from rlvr_jax.errors import CheckpointError

METADATA = "_CHECKPOINT_METADATA"  # JSON beside the items of a step
_COMMITTED = "commit_success.txt"  # Orbax writes it last
_JSON = (METADATA, "*/_METADATA", "*/_sharding", "*/array_metadatas/*", "*/metadata", "*/metrics")
_OF_ARRAYS = ("_METADATA", "manifest.ocdbt")  # files that every item of arrays has
_ARRAYS = "ocdbt.process_0"  # a folder that only they have


def complete(folder: epath.Path) -> list[int]:
    """The steps in a folder with complete checkpoints, in order."""
    return [step for step in steps_in(folder) if (folder / str(step) / _COMMITTED).exists()]


def steps_in(folder: epath.Path) -> list[int]:
    """The steps in a folder with checkpoints, complete or not, in order."""
    return sorted(int(path.name) for path in folder.glob("[0-9]*") if path.name.isdecimal() and path.is_dir())


@contextlib.contextmanager
def explained(folder: epath.Path, what: str, step: int | None = None) -> Iterator[None]:
    """Makes a CheckpointError, in one line, of whatever goes wrong with a checkpoint.

    Args:
      folder: of the checkpoints.
      what: can't be done: "read", of the checkpoint of a step, "opened", or "written".
      step: of the one that is read.
    """
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:  # Orbax and TensorStore raise many types
        # A page of TensorStore's settings follows.
        text = re.split(r"\[tensorstore_spec|See full TensorStore", " ".join(str(error).split()))[0].strip()[:800]
        steps = complete(folder)
        suspects = {"read": [step], "opened": steps}.get(what, [])
        reasons = (damaged_file(folder / str(x)) for x in suspects)
        reason = next(filter(None, reasons), f"{type(error).__name__}: {text}")
        at, others = ("", steps) if step is None else (f" at step {step}", [x for x in steps if x != step])
        advice = "restore what is damaged from a copy, or start in another --workdir"
        if what == "written":
            advice = "free space on the disk, then run the same command again to continue"
        elif others:
            advice = (
                "restore what is damaged from a copy, or delete its folder (that of the step): then the same command "
                f"goes on from step {others[-1]}"
            )
        raise CheckpointError(
            f"a checkpoint in {folder} could not be {what}{at}: {reason}. Complete checkpoints: {steps or 'none'}; "
            f"{advice}"
        ) from error


def damaged_file(step: epath.Path) -> str:
    """The first damaged file in the folder of a step, as far as it can be told without its arrays, and its damage.

    `FILE is missing` or `FILE is damaged`; "" if there is none.
    """
    arrays = sorted(path.parent for path in step.glob(f"*/{_ARRAYS}"))
    needed = [step / METADATA, *(item / name for item in arrays for name in _OF_ARRAYS)]
    if missing := [path for path in needed if not path.is_file()]:
        return f"{missing[0]} is missing"
    texts = [path for pattern in _JSON for path in sorted(step.glob(pattern)) if path.is_file()]
    damaged = [path for path in texts if not _is_json(path)]
    return f"{damaged[0]} is damaged: it is cut off or overwritten" if damaged else ""


def _is_json(path: epath.Path) -> bool:
    try:
        json.loads(path.read_text())
    except (OSError, ValueError):
        return False
    return True
