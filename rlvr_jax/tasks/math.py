"""MATH: competition problems (Hendrycks et al. 2021, https://arxiv.org/abs/2103.03874), in the split of PRM800K.

PRM800K (Lightman et al. 2023, https://arxiv.org/abs/2305.20050) keeps 500 problems of the test set, "MATH-500", and
gives the other 12,000 to training. The answer of a problem is the content of the last `\\boxed{}` of its solution. Two
training problems without a box are left out.

The checksums of the records are those of the original MATH, which has one file per problem. They were checked against
the 12,000 problems; those of the 500 were taken as published.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

from rlvr_jax.tasks.finite import finite_task
from rlvr_jax.tasks.prepared import load
from rlvr_jax.tasks.published import PublishedFile, Record, json_records
from rlvr_jax.tasks.task import Task, split_of
from rlvr_jax.text import formats
from rlvr_jax.text.formats import AnswerFormat, Grader

SUBJECTS = (
    "Algebra",
    "Counting & Probability",
    "Geometry",
    "Intermediate Algebra",
    "Number Theory",
    "Prealgebra",
    "Precalculus",
)
_ALL_LEVELS = (1, 5)
_HOLDBACK_SHARE = 1 / 24  # 500 of 12,000
_SOURCE = (
    "https://media.githubusercontent.com/media/openai/prm800k/7ecc794703b2877f63226f2477a49b34f9b25163"
    "/prm800k/math_splits"
)


def boxed(solution: str) -> str:
    """The content of the last `\\boxed{}` of a solution, or the character after `\\boxed `; empty if there is none."""
    _, found, rest = solution.rpartition("\\boxed")
    rest = rest.lstrip()
    if not found or not rest:
        return ""
    depth = 0
    for end, character in enumerate(rest):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return rest[1:end] if end else character
    return ""


def _read(content: bytes) -> Iterator[tuple[str, Any]]:
    """As `json_records`; a level other than 1 to 5 (two problems, "?" in the original) is None."""
    for place, value in json_records(content):
        if isinstance(value, dict) and value.get("level") not in range(1, 6):
            value = {**value, "level": None}
        yield place, value


def _texts(record: Record) -> Iterable[str]:
    """The possible texts of a file of the original MATH; none if the answer isn't that of the solution."""
    if record["answer"] != boxed(record["solution"]):
        return
    original = {
        "problem": record["problem"],
        "level": f"Level {record['level'] or '?'}",
        "type": record["subject"],
        "solution": record["solution"],
    }
    text = json.dumps(original, indent=4)
    yield text
    yield text + "\n"
    yield json.dumps(original, indent=4, ensure_ascii=False)
    yield text[:-1] + "  }\n"  # test/counting_and_probability/1087


TRAIN, TEST = (
    PublishedFile(
        name=f"math_{name}",
        title=title,
        license="MIT",
        url=f"{_SOURCE}/{name}.jsonl",
        folder="math",
        local_names=local_names,
        fields=("problem", "solution", "answer", "subject", "level", "unique_id"),
        read=_read,
        texts=_texts,
        sha256=sha256,
        key="unique_id",
    )
    for name, title, local_names, sha256 in (
        (
            "train",
            "MATH's train.jsonl of 12,000 problems",
            ("train.jsonl", "train_12k.jsonl"),
            "90d96daeac3fe343ebb1e22ce93dd99690f75983e957f88de42f87cffe1e8076",
        ),
        (
            "test",
            "MATH's test.jsonl of 500 problems",
            ("test.jsonl", "test_500.jsonl", "math500.jsonl", "math_500.jsonl"),
            "35dc41080a3680858b27fa7e0533d2d547825316fc5dafe5d316f4ccc5a06132",
        ),
    )
)


def math(
    data_dir: str = "",
    manual_dir: str = "",
    answer_format: AnswerFormat = "boxed",
    instruction: str | None = None,
    level: Sequence[int] = _ALL_LEVELS,
    subjects: Sequence[str] = (),
    heldout: Literal["500", "holdback"] = "500",
    grader: Grader = "rlvr_jax",
) -> Task:
    """MATH as a task: `train` is the 11,998 training problems with an answer, `heldout` MATH-500.

    The gold answer is in LaTeX. The demonstration is the published solution, with a boxed answer, followed by the
    answer in another format if that is chosen.

    Args:
      data_dir: folder of the prepared data, see `prepared.load`.
      manual_dir: a folder with `train.jsonl` and `test.jsonl`, see `prepared.load`.
      answer_format: format of the answer.
      instruction: end of the prompt, after the problem, instead of that of the format.
      level: the lowest and highest level of training problems, 1 to 5. Two problems without a level are left out unless
        all levels are taken.
      subjects: of training problems, some of `SUBJECTS`; all if empty.
      heldout: "holdback" holds out about one in 24 training problems, of all levels and subjects, and needs no other
        file. Results are not comparable with those on MATH-500.
      grader: extracts and compares answers: "rlvr_jax", or "math_verify" for results comparable with published ones.

    Raises:
      FileNotFoundError, ValueError, ConnectionError, OSError: see `prepared.load`.
      ValueError: an option has an impossible value.
    """
    asked = formats.instruction(answer_format)
    level = tuple(level)
    if len(level) != 2 or not 1 <= level[0] <= level[1] <= 5:
        raise ValueError(f"math: level must be (least, greatest) between 1 and 5, not {level}")
    for subject in subjects:
        if subject not in SUBJECTS:
            raise ValueError(f"math: there is no subject {subject!r}; the subjects are {', '.join(SUBJECTS)}")
    if heldout not in ("500", "holdback"):
        raise ValueError(f"math: heldout must be '500' or 'holdback', not {heldout!r}")

    train = [record for record in load(TRAIN, data_dir, manual_dir) if boxed(record["solution"])]
    if heldout == "500":
        try:
            test = load(TEST, data_dir, manual_dir)
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{error}. Option heldout='holdback' does not need this file") from error
    else:
        split = [split_of(f"math/{record['problem']}", _HOLDBACK_SHARE) for record in train]
        test = [record for record, name in zip(train, split, strict=True) if name == "heldout"]
        train = [record for record, name in zip(train, split, strict=True) if name == "train"]

    def is_wanted(record: Record) -> bool:
        in_range = level == _ALL_LEVELS or (record["level"] and level[0] <= record["level"] <= level[1])
        return in_range and (not subjects or record["subject"] in subjects)

    train = [record for record in train if is_wanted(record)]

    def demonstration(record: Record) -> str:
        solution = record["solution"]
        if answer_format == "boxed":
            return solution
        return f"{solution}\n{formats.written(answer_format, boxed(solution))}"

    return finite_task(
        "math",
        "math",
        {"train": train, "heldout": test},
        prompt=lambda record: formats.prompt(record["problem"], asked if instruction is None else instruction),
        reference=lambda record: boxed(record["solution"]),
        demonstration=demonstration,
        verifier_options=formats.verifier_options("math", answer_format, grader),
        level=lambda record: str(record["level"] or ""),
    )
