"""MBPP and HumanEval as tasks."""

import contextlib
import io

import pytest

from tests.data.read import rows


def examples(task, split):
    return [task.example(split, index) for index in range(task.num_examples(split))]


def program_of(completion: str) -> str:
    """What stands in the one code block of a completion."""
    head, program, tail = completion.split("```")
    assert (head, tail) == ("", "")
    return program.removeprefix("python\n")


@pytest.mark.parametrize(
    ("options", "train", "heldout"),
    [
        ({}, range(601, 975), range(11, 511)),
        ({"heldout": "validation"}, range(601, 975), range(511, 601)),
        ({"sanitized": True}, range(601, 975), range(11, 511)),
    ],
)
def test_mbpp_is_split_as_in_its_paper(real_task, data_sets, options, train, heldout):
    task = real_task("mbpp", **options)
    name, text = ("sanitized-mbpp", "prompt") if "sanitized" in options else ("mbpp", "text")
    records = rows(data_sets / "mbpp" / f"{name}.jsonl")
    for split, ids in (("train", train), ("heldout", heldout)):
        expected = [record for record in records if record["task_id"] in ids]
        found = examples(task, split)
        assert len(found) == len(expected) > 10
        for example, record in zip(found, expected, strict=True):
            assert example.prompt.startswith(record[text].strip())
            assert all(test in example.prompt for test in record["test_list"][:3])
            assert example.reference["type"] == "asserts"
            assert example.reference["tests"] == record["test_list"]


@pytest.mark.whole
def test_mbpp_has_the_published_counts(real_task):
    sizes = lambda task: (task.num_examples("train"), task.num_examples("heldout"))  # noqa: E731
    assert sizes(real_task("mbpp")) == (374, 500)
    assert sizes(real_task("mbpp", sanitized=True)) == (120, 257)


def test_mbpp_hides_all_but_the_tests_that_are_to_be_shown(real_task):
    example = real_task("mbpp", shown_tests=1).example("train", 1)
    first, *others = example.reference["tests"]
    assert first in example.prompt
    assert not any(test in example.prompt for test in others)
    assert len(others) == 2
    assert example.prompt.endswith("in one block of Python code, between ```python and ```.\n")


@pytest.mark.parametrize(("options", "word"), [({"shown_tests": 0}, "shown_tests"), ({"heldout": "train"}, "heldout")])
def test_mbpp_refuses_impossible_options(real_task, options, word):
    with pytest.raises(ValueError, match=f"mbpp: {word} must be"):
        real_task("mbpp", **options)


@pytest.mark.parametrize("sanitized", [False, True])
def test_the_published_programs_of_mbpp_pass_their_tests_in_the_order_program_setup_tests(real_task, sanitized):
    task = real_task("mbpp", sanitized=sanitized)
    assert task.verifier == "code"
    for example in examples(task, "train")[:40]:
        namespace = {}
        with contextlib.redirect_stdout(io.StringIO()):
            for part in (
                program_of(task.demonstration(example, 0)),
                example.reference["setup"],
                *example.reference["tests"],
            ):
                exec(part, namespace)


def test_setup_comes_with_the_problems_that_have_it(real_task):
    with_setup = [example for example in examples(real_task("mbpp"), "train") if example.reference["setup"]]
    assert len(with_setup) == 1
    assert "Node" in with_setup[0].reference["setup"]
    imports = [e for e in examples(real_task("mbpp", sanitized=True), "heldout") if e.reference["setup"]]
    assert imports
    assert all(example.reference["setup"].startswith(("import ", "from ")) for example in imports)


def test_humaneval_is_held_out_as_a_whole(real_task, data_sets):
    task, problems = real_task("humaneval"), rows(data_sets / "humaneval" / "HumanEval.jsonl")
    assert (task.num_examples("train"), task.num_examples("heldout")) == (0, len(problems))
    with pytest.raises(IndexError, match="humaneval: train has no problems, there is no index 0"):
        task.example("train", 0)


def test_published_functions_of_humaneval_pass_their_tests(real_task):
    task = real_task("humaneval")
    assert task.verifier == "code"
    for example in examples(task, "heldout")[:30]:
        reference = example.reference
        assert set(reference) == {"type", "prompt", "entry_point", "test"}
        assert reference["type"] == "humaneval"
        assert reference["prompt"].strip() in example.prompt
        namespace = {}
        exec(program_of(task.demonstration(example, 0)) + reference["test"], namespace)
        namespace["check"](namespace[reference["entry_point"]])


def test_humaneval_without_instruction_is_the_bare_head_that_the_body_continues(real_task):
    task = real_task("humaneval", instruction="")
    example = task.example("heldout", 0)
    assert example.prompt == example.reference["prompt"]
    compile(example.prompt + task.demonstration(example, 0), "program", "exec")
