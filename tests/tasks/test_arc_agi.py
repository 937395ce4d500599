"""ARC-AGI-1 as a task."""

import io
import json
import zipfile

import pytest

from rlvr_jax.tasks.arc_agi import TASKS
from rlvr_jax.tasks.published import checked_records
from tests.data.read import rows as records_of


@pytest.fixture(scope="module")
def published(data_sets) -> list[dict]:
    return records_of(data_sets / "arc_agi1" / "tasks.jsonl")


def of_split(records: list[dict], split: str) -> list[dict]:
    return [record for record in records if record["split"] == split]


def rows(text: str) -> list[list[int]]:
    return [[int(digit) for digit in line.split()] for line in text.splitlines()]


def test_training_and_evaluation_tasks_but_the_one_that_is_in_both(real_task, published):
    task = real_task("arc_agi")
    assert {"40853293", "070dd51e"} <= {record["task_id"] for record in published}
    by_split = {"train": of_split(published, "training"), "heldout": of_split(published, "evaluation")}
    by_split["train"] = [record for record in by_split["train"] if record["task_id"] != "40853293"]
    assert task.verifier == "arc"
    for split, records in by_split.items():
        assert task.num_examples(split) == len(records)
        for index, record in enumerate(records):
            assert task.example(split, index).reference == [pair["output"] for pair in record["test"]]


def test_the_prompt_holds_all_pairs_and_test_inputs_and_the_demonstration_the_outputs(real_task, published):
    task = real_task("arc_agi")
    published = of_split(published, "evaluation")
    several = next(index for index, record in enumerate(published) if len(record["test"]) > 1)
    for index in (0, several):
        record, example = published[index], task.example("heldout", index)
        grids = [part.partition(":\n")[2] for part in example.prompt.split("\n\n")[1:-1]]
        pairs = [grid for pair in record["train"] for grid in (pair["input"], pair["output"])]
        assert [rows(grid) for grid in grids] == pairs + [pair["input"] for pair in record["test"]]
        answer = task.demonstration(example, 0).removeprefix("<answer>\n").removesuffix("\n</answer>")
        assert [rows(grid) for grid in answer.split("\n\n")] == example.reference
    assert "Write the output grid in <answer> </answer> tags, each row on a line of its own" in example.prompt


def test_grids_can_be_bounded(real_task):
    task, unbounded = real_task("arc_agi", largest_grid=10), real_task("arc_agi")
    for split in ("train", "heldout"):
        assert 0 < task.num_examples(split) < unbounded.num_examples(split)
        for index in range(task.num_examples(split)):
            example = task.example(split, index)
            lines = [line.split() for line in example.prompt.splitlines() if line[:1].isdigit()]
            assert max(map(len, lines)) <= 10
            assert all(len(grid) <= 10 and len(grid[0]) <= 10 for grid in example.reference)
    with pytest.raises(ValueError, match="arc_agi: no task of split 'train' has grids of at most 1 rows and columns"):
        real_task("arc_agi", largest_grid=1)


def test_the_zip_archive_of_the_repository_passes_too(published):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("ARC-AGI-master/README.md", "ARC")
        archive.writestr("ARC-AGI-master/apps/other.json", "{}")
        for record in reversed(published):  # in which test comes first, as in the repository
            name = f"ARC-AGI-master/data/{record['split']}/{record['task_id']}.json"
            archive.writestr(name, json.dumps({"test": record["test"], "train": record["train"]}))
    content = file.getvalue()
    assert checked_records(TASKS, content, "a.zip") == published
    with pytest.raises(ValueError, match=r"a\.zip, .*can't be read: .*Take the file again"):
        checked_records(TASKS, content[:-100], "a.zip")
    place = content.index(b'{"test"')
    with pytest.raises(
        ValueError, match=rf"a\.zip, .*/data/evaluation/{published[-1]['task_id']}\.json: can't be read"
    ):
        checked_records(TASKS, content[:place] + b"[" + content[place + 1 :], "a.zip")
