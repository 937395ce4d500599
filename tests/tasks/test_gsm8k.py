"""GSM8K as a task."""

import re
from typing import get_args

import pytest

from rlvr_jax.text import formats
from rlvr_jax.verifiers import verify
from rlvr_jax.verifiers.mathematics import GRADERS
from tests.data.read import rows

INSTRUCTION = "Reason step by step. Write the answer, a number, on the last line after ####."


@pytest.fixture(scope="module")
def published(data_sets) -> dict[str, list[dict]]:
    return {
        split: rows(data_sets / "gsm8k" / f"{name}.jsonl") for split, name in (("train", "train"), ("heldout", "test"))
    }


@pytest.fixture(scope="module")
def task(real_task):
    return real_task("gsm8k")


def test_counts_and_first_examples_are_those_of_the_files(task, published):
    assert {split: task.num_examples(split) for split in published} == {s: len(r) for s, r in published.items()}
    example = task.example("train", 0)
    assert example.id == "gsm8k/train/0"
    assert example.prompt.startswith("Natalia sold clips to 48 of her friends in April, and")
    assert example.prompt.endswith(f"in April and May?\n{INSTRUCTION}\n")
    assert (example.reference, example.task) == ("72", "gsm8k")
    first = task.example("heldout", 0)
    assert first.prompt.startswith("Janet\N{RIGHT SINGLE QUOTATION MARK}s ducks lay 16 eggs per day.")
    assert (first.id, first.reference) == ("gsm8k/heldout/0", "18")


def test_every_example_is_its_line_of_the_file_with_its_own_answer(task, published):
    for split, records in published.items():
        for index, record in enumerate(records):
            example = task.example(split, index)
            assert example.prompt == f"{record['question']}\n{INSTRUCTION}\n"
            assert task.demonstration(example, 0) == record["answer"]
            assert record["answer"].endswith("\n#### " + example.reference)
            assert re.fullmatch(r"-?[0-9]{1,3}(,?[0-9]{3})*", example.reference)


def test_every_published_solution_is_right(task):
    for split in ("train", "heldout"):
        for index in range(task.num_examples(split)):
            example = task.example(split, index)
            assert verify(task.verifier, task.demonstration(example, 0), example.reference).score == 1


@pytest.mark.parametrize(
    ("answer_format", "asks", "ending"),
    [("boxed", "in \\boxed{}.", "\n\\boxed{72}"), ("answer", "in <answer> </answer> tags.", "\n<answer>72</answer>")],
)
def test_the_answer_format_is_asked_for_demonstrated_and_verified(real_task, answer_format, asks, ending):
    task = real_task("gsm8k", answer_format=answer_format)
    example = task.example("train", 0)
    assert example.prompt.endswith(f"\nReason step by step. Write the answer, a number, {asks}\n")
    assert task.demonstration(example, 0).endswith(f"clips altogether in April and May.{ending}")
    assert (task.verifier, task.verifier_options) == ("math", {"formats": (answer_format,)})


def test_an_instruction_of_ones_own_replaces_that_of_the_format(real_task):
    assert real_task("gsm8k", instruction="Go.").example("train", 0).prompt.endswith("and May?\nGo.\n")
    assert real_task("gsm8k", instruction="").example("train", 0).prompt.endswith("and May?\n")


def test_the_grader_is_an_option(real_task):
    for options in ({}, {"answer_format": "boxed"}):
        assert real_task("gsm8k", grader="math_verify", **options).verifier_options == {"grader": "math_verify"}
    with pytest.raises(ValueError, match="grader must be one of rlvr_jax, math_verify, not 'sympy'"):
        real_task("gsm8k", grader="sympy")
    assert get_args(formats.Grader) == GRADERS


def test_an_unknown_answer_format_is_refused_with_the_known_ones(real_task):
    with pytest.raises(ValueError, match="answer_format must be one of hash, boxed, answer, not 'tags'"):
        real_task("gsm8k", answer_format="tags")


@pytest.mark.parametrize("split", ["train", "heldout"])
@pytest.mark.parametrize("beyond", [0, 5, None])
def test_an_index_outside_the_split_is_refused(task, split, beyond):
    index = -1 if beyond is None else task.num_examples(split) + beyond
    with pytest.raises(IndexError, match=f"gsm8k: {split} has the indices 0 to .*, there is no index {index}"):
        task.example(split, index)
