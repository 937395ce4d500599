"""MATH as a task."""

import dataclasses
import hashlib
import itertools
import json

import pytest

from rlvr_jax.tasks import math as module
from rlvr_jax.tasks import published
from rlvr_jax.tasks.math import SUBJECTS, boxed
from tests.data.read import rows


@pytest.fixture(scope="module")
def copy(data_sets) -> list[dict]:
    """The records of the copy of the training problems."""
    return rows(data_sets / "math" / "train_12k.jsonl")


@pytest.fixture(scope="module")
def task(real_task):
    return real_task("math", heldout="holdback")


def test_the_box_of_every_solution_holds_its_answer_and_two_have_none(copy):
    # two solutions write `\\boxed 2`, which the copy's own answers know
    assert [record["unique_id"] for record in copy if boxed(record["solution"]) != record["answer"]] == []
    without = [record["unique_id"] for record in copy if not record["answer"]]
    assert without == ["train/number_theory/7115.json", "train/number_theory/7117.json"]


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        ("so \\boxed{1} or \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("is $\\boxed 2$", "2"),
        ("no box", ""),
        ("\\boxed{1", ""),
        ("\\boxed", ""),
    ],
)
def test_the_last_box_is_read_with_its_nested_braces(solution, answer):
    assert boxed(solution) == answer


def test_all_problems_with_an_answer_are_there_and_those_held_back_are_no_others(task, copy):
    answers = {record["problem"]: record["answer"] for record in copy}
    sizes = {split: task.num_examples(split) for split in ("train", "heldout")}
    assert sum(sizes.values()) == len(copy) - 2
    seen = set()
    for split, size in sizes.items():
        for index in range(size):
            example = task.example(split, index)
            problem = example.prompt.removesuffix("\nReason step by step. Write the answer in \\boxed{}.\n")
            assert example.reference == answers[problem]
            assert problem not in seen
            seen.add(problem)
    assert len(seen) == len(copy) - 2


@pytest.mark.whole
def test_one_in_24_problems_is_held_back(task):
    assert (task.num_examples("train"), task.num_examples("heldout")) == (11495, 503)


def test_the_first_example_is_the_published_one(task):
    example = task.example("train", 0)
    assert example.prompt.startswith("How many vertical asymptotes does the graph of $y=\\frac{2}{x^2+x-6}$ have?\n")
    assert (example.reference, task.verifier, task.verifier_options) == ("2", "math", {"formats": ("boxed",)})
    assert task.demonstration(example, 0).startswith("The denominator of the rational function factors into")
    assert "\\boxed{2}" in task.demonstration(example, 0)


@pytest.mark.parametrize(("answer_format", "ending"), [("hash", "\n#### 2"), ("answer", "\n<answer>2</answer>")])
def test_demonstrations_answer_in_the_format_that_is_asked_for(real_task, answer_format, ending):
    task = real_task("math", heldout="holdback", answer_format=answer_format)
    assert task.demonstration(task.example("train", 0), 0).endswith(ending)
    assert task.verifier_options == {"formats": (answer_format,)}


def test_levels_and_subjects_choose_training_problems_and_leave_the_held_out_ones(real_task, task, copy):
    chosen = real_task("math", heldout="holdback", level=[3, 4], subjects=["Algebra", "Geometry"])
    wanted = {r["problem"] for r in copy if r["level"] in (3, 4) and r["subject"] in ("Algebra", "Geometry")}
    prompts = [chosen.example("train", index).prompt for index in range(chosen.num_examples("train"))]
    problems = {prompt.rpartition("\nReason")[0] for prompt in prompts}
    assert problems <= wanted
    assert len(problems) == len(prompts) > 0.8 * len(wanted)
    assert chosen.num_examples("heldout") == task.num_examples("heldout")
    assert chosen.example("heldout", 7) == task.example("heldout", 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": (0, 5)}, r"level must be \(least, greatest\) between 1 and 5, not \(0, 5\)"),
        ({"level": (4, 3)}, "level must be"),
        ({"level": (4,)}, "level must be"),
        ({"subjects": ["Analysis"]}, "there is no subject 'Analysis'; the subjects are Algebra, "),
        ({"heldout": "test"}, "heldout must be '500' or 'holdback', not 'test'"),
    ],
)
def test_options_out_of_range_are_refused(real_task, options, message):
    with pytest.raises(ValueError, match=f"math: {message}"):
        real_task("math", **{"heldout": "holdback"} | options)


def test_without_the_file_of_the_500_the_error_names_it_and_the_alternative(real_task):
    with pytest.raises(FileNotFoundError, match=r"lacks test\.jsonl or .*\. Option heldout='holdback'"):
        real_task("math")


def test_the_500_are_held_out_and_all_others_train(copy, data_sets, tmp_path, monkeypatch):
    # Other problems in the place of the 500.
    others = [
        {**record, "problem": f"{number}: {record['problem']}", "unique_id": f"{number:03}"}
        for number, record in enumerate(itertools.islice(itertools.cycle(copy), 500))
    ]
    content = "\n".join(map(json.dumps, reversed(others)))
    (tmp_path / "test.jsonl").write_text(content)
    expected = dataclasses.replace(module.TEST, sha256=hashlib.sha256(content.encode()).hexdigest())
    monkeypatch.setattr(module, "TEST", expected)
    train = module.load(module.TRAIN, str(tmp_path / "data"), str(data_sets))
    test = module.load(module.TEST, str(tmp_path / "data"), str(tmp_path))
    files = {module.TRAIN.name: train, expected.name: test}
    monkeypatch.setattr(module, "load", lambda file, *_: files[file.name])
    task = module.math()
    assert (task.num_examples("train"), task.num_examples("heldout")) == (len(copy) - 2, 500)
    assert task.example("heldout", 7).prompt.startswith(f"7: {copy[7]['problem']}")
    assert task.example("heldout", 7).reference == copy[7]["answer"]


def test_subjects_are_those_of_the_problems(copy):
    assert {record["subject"] for record in copy} == set(SUBJECTS)


def test_problems_of_the_500_are_known_by_the_text_of_the_original_files(monkeypatch, copy):
    # The checksum of a file of the original MATH, computed here as the original files were written.
    record = copy[0]
    original = (
        "{\n"
        f'    "problem": {json.dumps(record["problem"])},\n    "level": "Level {record["level"]}",\n'
        f'    "type": "{record["subject"]}",\n    "solution": {json.dumps(record["solution"])}\n'
        "}"
    )
    digest = hashlib.sha256(original.encode())
    whole = hashlib.sha256(digest.digest()).hexdigest()
    monkeypatch.setattr(published, "checksums", lambda _name: ({digest.hexdigest()[:8]: 0}, whole))
    content = json.dumps({**record, "unique_id": "test/algebra/1.json"}).encode()
    assert published.checked_records(module.TEST, content, "copy")[0]["problem"] == record["problem"]
