"""TinyZero's Countdown problems as a task."""

import io

import pyarrow
import pyarrow.parquet
import pytest

from rlvr_jax.tasks import make_task
from rlvr_jax.tasks.countdown_tinyzero import PROBLEMS
from rlvr_jax.tasks.published import checked_records
from rlvr_jax.verifiers import verify
from tests.data.read import rows


@pytest.fixture(scope="module")
def published(data_sets) -> list[dict]:
    return rows(data_sets / "countdown" / "train.jsonl")


def examples(task):
    return [task.example(split, index) for split in ("train", "heldout") for index in range(task.num_examples(split))]


def test_known_solutions_of_all_problems_are_right(real_task, published):
    task = real_task("countdown_tinyzero")
    solutions = {(tuple(record["nums"]), record["target"]): record["solution"] for record in published}
    assert len(solutions) == len(published)
    for example in examples(task):
        numbers, target = example.reference["numbers"], example.reference["target"]
        solution = solutions.pop((tuple(numbers), target))
        completion = f"44 and 19 first. </think>\n<answer> {solution} </answer>"
        assert verify(task.verifier, completion, example.reference).score == 1
        assert f"Using the numbers {numbers}, create an equation that equals {target}." in example.prompt
    assert not solutions


@pytest.mark.whole
def test_about_a_tenth_of_the_problems_is_held_out(real_task):
    task = real_task("countdown_tinyzero")
    assert (task.num_examples("train"), task.num_examples("heldout")) == (7266, 735)


def test_problems_never_straddle_the_split_whatever_the_order_of_their_numbers(real_task):
    task = real_task("countdown_tinyzero")
    keys = {
        split: {
            (tuple(sorted(reference["numbers"])), reference["target"])
            for reference in (task.example(split, index).reference for index in range(task.num_examples(split)))
        }
        for split in ("train", "heldout")
    }
    assert not keys["train"] & keys["heldout"]


def test_problems_that_countdown_makes_for_training_are_never_held_out_here(real_task):
    made = make_task("countdown", {"numbers": 3, "largest": 99, "operators": "+-*/"})
    task = real_task("countdown_tinyzero")
    key = lambda reference: (tuple(sorted(reference["numbers"])), reference["target"])  # noqa: E731
    heldout = {key(task.example("heldout", index).reference) for index in range(task.num_examples("heldout"))}
    assert not heldout & {key(made.example("train", index).reference) for index in range(2000)}


def test_a_prompt_of_ones_own_replaces_tinyzeros(real_task, published):
    task = real_task("countdown_tinyzero", prompt="{target} of {numbers}, e.g. {1}?", heldout_share=0.0)
    assert task.example("train", 0).prompt == "98 of [44, 19, 35], e.g. {1}?"
    assert (task.num_examples("train"), task.num_examples("heldout")) == (len(published), 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": "{numbers}?"}, r"the prompt lacks the place \{target\}"),
        ({"heldout_share": -1}, "heldout_share must"),
    ],
)
def test_impossible_options_are_refused(real_task, options, message):
    with pytest.raises(ValueError, match=f"countdown_tinyzero: {message}"):
        real_task("countdown_tinyzero", **options)


def test_the_parquet_file_of_the_repository_passes_too(published):
    # its columns, as far as they are read, and another one
    table = pyarrow.table(
        {key: [record[key] for record in published] for key in ("target", "nums")}
        | {"data_source": ["countdown"] * len(published)}
    )
    file = io.BytesIO()
    pyarrow.parquet.write_table(table, file)
    records = checked_records(PROBLEMS, file.getvalue(), "train.parquet")
    assert records == [{key: record[key] for key in ("nums", "target")} for record in published]
    with pytest.raises(ValueError, match=r"train\.parquet, no row can be read: .*Take the file again"):
        checked_records(PROBLEMS, file.getvalue()[:-100], "train.parquet")
    file = io.BytesIO()
    pyarrow.parquet.write_table(table.slice(0, 10), file)
    message = rf"train\.parquet ends after row 10, TinyZero's train\.parquet has {len(published)}"
    with pytest.raises(ValueError, match=message):
        checked_records(PROBLEMS, file.getvalue(), "train.parquet")
