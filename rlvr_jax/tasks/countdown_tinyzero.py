"""Countdown problems of TinyZero (https://github.com/Jiayi-Pan/TinyZero): three or four numbers up to 99 and a target.

The file is the training set in the repository, 8,001 problems of its `Jiayi-Pan/Countdown-Tasks-3to4`. All are
solvable. `countdown` generates problems.
"""

import io
from collections.abc import Iterator
from typing import Any

from rlvr_jax.tasks.finite import finite_task
from rlvr_jax.tasks.prepared import load
from rlvr_jax.tasks.published import PublishedFile, Record, json_records
from rlvr_jax.tasks.task import Split, Task, split_of

# TinyZero's wording (Apache-2.0), to reproduce its curves; {numbers} is a list in brackets.
PROMPT = (
    "Using the numbers {numbers}, create an equation that equals {target}. You can use basic arithmetic operations "
    "(+, -, *, /) and each number can only be used once. Show your work in <think> </think> tags. And return the final "
    "answer in <answer> </answer> tags, for example <answer> (1 + 2) / 3 </answer>."
)


def _read(content: bytes) -> Iterator[tuple[str, Any]]:
    """The rows of the published Parquet file, or of JSON Lines."""
    if not content.startswith(b"PAR1"):
        yield from json_records(content)
        return
    from pyarrow import ArrowException, parquet  # slow to import, and needed for this file only

    try:
        rows = parquet.read_table(io.BytesIO(content), columns=["nums", "target"]).to_pylist()
    except (ArrowException, OSError) as error:
        raise ValueError(f"no row can be read: {error}") from error
    yield from ((f"row {number}", row) for number, row in enumerate(rows, start=1))


PROBLEMS = PublishedFile(
    name="countdown_tinyzero",
    title="TinyZero's train.parquet",
    license="Apache-2.0",
    url="https://raw.githubusercontent.com/Jiayi-Pan/TinyZero/c5cdbbe253b9db880f3e7ff17a161cbd0d8b42b0"
    "/data/countdown/train.parquet",
    folder="countdown",
    local_names=("train.parquet", "train.jsonl"),
    fields=("nums", "target"),
    read=_read,
)


def countdown_tinyzero(
    data_dir: str = "", manual_dir: str = "", prompt: str = PROMPT, heldout_share: float = 0.1
) -> Task:
    """TinyZero's problems as a task.

    Problems that differ only in the order of the numbers are in the same split, which is also their split in
    `countdown`.

    Args:
      data_dir: folder of the prepared data, see `prepared.load`.
      manual_dir: a folder with `train.parquet`, or the same problems as `train.jsonl`, see `prepared.load`.
      prompt: the prompt, with the placeholders {numbers} and {target}.
      heldout_share: share of the problems that are held out. `countdown` holds out 0.1.

    Raises:
      FileNotFoundError, ValueError, ConnectionError, OSError: see `prepared.load`.
      ValueError: `heldout_share` is not from 0 to 1, or the prompt lacks a placeholder.
    """
    if not 0 <= heldout_share <= 1:
        raise ValueError(f"countdown_tinyzero: heldout_share must be from 0 to 1, not {heldout_share}")
    for place in ("{numbers}", "{target}"):
        if place not in prompt:
            raise ValueError(f"countdown_tinyzero: the prompt lacks the place {place}")
    splits: dict[Split, list[Record]] = {"train": [], "heldout": []}
    for record in load(PROBLEMS, data_dir, manual_dir):
        splits[split_of(f"countdown/{sorted(record['nums'])}/{record['target']}", heldout_share)].append(record)
    return finite_task(
        "countdown_tinyzero",
        "countdown",
        splits,
        prompt=lambda record: prompt.replace("{numbers}", str(record["nums"])).replace(
            "{target}", str(record["target"])
        ),
        reference=lambda record: {"numbers": record["nums"], "target": record["target"]},
    )
