"""ARC-AGI-1: infer the rule of pairs of grids, and apply it (Chollet 2019, https://arxiv.org/abs/1911.01547).

400 training and 400 evaluation tasks. A grid has at most 30 rows and 30 columns of the digits 0 to 9.
"""

import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from rlvr_jax.tasks.finite import finite_task
from rlvr_jax.tasks.prepared import load
from rlvr_jax.tasks.published import PublishedFile, Record, json_records
from rlvr_jax.tasks.task import Split, Task
from rlvr_jax.text import formats

Grid = list[list[int]]

LARGEST_GRID = 30
INSTRUCTION = (
    "Reason step by step. Write the output grid in <answer> </answer> tags, each row on a line of its own, its digits "
    "separated by spaces. If there are several test inputs, write their output grids in order, with an empty line "
    "between them."
)
_COMMIT = "399030444e0ab0cc8b4e199870fb20b863846f34"
_IN_BOTH = "40853293"  # a training task which is also the evaluation task 070dd51e
_SPLITS: dict[str, Split] = {"training": "train", "evaluation": "heldout"}


def _read(content: bytes) -> Iterator[tuple[str, Any]]:
    """The tasks in the zip archive of the repository, one file each, or in JSON Lines."""
    if not content.startswith(b"PK"):
        yield from json_records(content)
        return
    place = "the archive"
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            for place in archive.namelist():
                path = PurePosixPath(place)
                if path.suffix == ".json" and path.parent.name in _SPLITS:
                    yield place, {"task_id": path.stem, "split": path.parent.name, **json.loads(archive.read(place))}
    except (zipfile.BadZipFile, zlib.error, OSError, TypeError, ValueError) as error:
        raise ValueError(f"{place}: can't be read: {error}") from error


TASKS = PublishedFile(
    name="arc_agi",
    title="ARC-AGI-1",
    license="Apache-2.0",
    url=f"https://codeload.github.com/fchollet/ARC-AGI/zip/{_COMMIT}",
    folder="arc_agi1",
    local_names=(f"ARC-AGI-{_COMMIT}.zip", "ARC-AGI-master.zip", "tasks.jsonl"),
    fields=("task_id", "split", "train", "test"),
    read=_read,
)


def arc_agi(
    data_dir: str = "", manual_dir: str = "", largest_grid: int = LARGEST_GRID, instruction: str = INSTRUCTION
) -> Task:
    """ARC-AGI-1 as a task: `train` is its training tasks except one, `heldout` its evaluation tasks.

    The training task 40853293 is left out: it is the evaluation task 070dd51e.

    The reference is the output grids of all test inputs (one, sometimes two or three). The demonstration is these
    grids as an answer.

    Args:
      data_dir: folder of the prepared data, see `prepared.load`.
      manual_dir: a folder with the repository's zip archive, or the tasks as `tasks.jsonl`, see `prepared.load`.
      largest_grid: maximum number of rows and columns of a task's grids, in both splits. Prompts of the full set have
        up to about ten thousand digits.
      instruction: end of the prompt, after the grids.

    Raises:
      FileNotFoundError, ValueError, ConnectionError, OSError: see `prepared.load`.
      ValueError: no task has grids as small as `largest_grid`.
    """
    splits: dict[Split, list[Record]] = {"train": [], "heldout": []}
    for record in load(TASKS, data_dir, manual_dir):
        if _size(record) <= largest_grid and record["task_id"] != _IN_BOTH:
            splits[_SPLITS[record["split"]]].append(record)
    for split, records in splits.items():
        if not records:
            raise ValueError(
                f"arc_agi: no task of split {split!r} has grids of at most {largest_grid} rows and columns"
            )
    return finite_task(
        "arc_agi",
        "arc",
        splits,
        prompt=lambda record: formats.prompt(_problem(record), instruction),
        reference=_outputs,
        demonstration=lambda record: formats.written("answer", "\n" + "\n\n".join(map(_text, _outputs(record))) + "\n"),
    )


def _outputs(record: Record) -> list[Grid]:
    return [pair["output"] for pair in record["test"]]


def _size(record: Record) -> int:
    grids = [grid for pair in record["train"] + record["test"] for grid in pair.values()]
    return max(max(len(grid), len(grid[0])) for grid in grids)


def _text(grid: Grid) -> str:
    return "\n".join(" ".join(map(str, row)) for row in grid)


def _problem(record: Record) -> str:
    parts = ["A rule turns each input grid into its output grid. Find it, and apply it to the test input."]
    for number, pair in enumerate(record["train"], start=1):
        parts.append(f"Example {number}, input:\n{_text(pair['input'])}")
        parts.append(f"Example {number}, output:\n{_text(pair['output'])}")
    for number, pair in enumerate(record["test"], start=1):
        label = f"Test input {number}" if len(record["test"]) > 1 else "Test input"
        parts.append(f"{label}:\n{_text(pair['input'])}")
    return "\n\n".join(parts) + "\n"
