"""GSM8K: 8,792 grade-school word problems (Cobbe et al. 2021, https://arxiv.org/abs/2110.14168)."""

from rlvr_jax.tasks.finite import finite_task
from rlvr_jax.tasks.prepared import load
from rlvr_jax.tasks.published import PublishedFile, Record
from rlvr_jax.tasks.task import Task
from rlvr_jax.text import formats
from rlvr_jax.text.formats import AnswerFormat, Grader

_SOURCE = (
    "https://raw.githubusercontent.com/openai/grade-school-math/3101c7d5072418e28b9008a6636bde82a006892c"
    "/grade_school_math/data"
)
TRAIN, TEST = (
    PublishedFile(
        name=f"gsm8k_{name}",
        title=f"GSM8K's {name}.jsonl",
        license="MIT",
        url=f"{_SOURCE}/{name}.jsonl",
        folder="gsm8k",
        local_names=(f"{name}.jsonl",),
        fields=("question", "answer"),
    )
    for name in ("train", "test")
)


def gsm8k(
    data_dir: str = "",
    manual_dir: str = "",
    answer_format: AnswerFormat = "hash",
    instruction: str | None = None,
    grader: Grader = "rlvr_jax",
) -> Task:
    """GSM8K as a task: `train` is GSM8K's training set, `heldout` its test set.

    The gold answer is the number after `####`, as written (`1,080`). The demonstration is the published solution, with
    its calculator annotations, and the answer in the format.

    Args:
      data_dir: folder of the prepared data, see `prepared.load`.
      manual_dir: a folder with `train.jsonl` and `test.jsonl`, see `prepared.load`.
      answer_format: format of the answer. "hash" is verified exactly (kind `gsm8k`), the others by kind `math`.
      instruction: end of the prompt, after the question, instead of that of the format.
      grader: extracts and compares answers: "rlvr_jax", or "math_verify" for results comparable with published ones.

    Raises:
      FileNotFoundError, ValueError, ConnectionError, OSError: see `prepared.load`.
      ValueError: there is no such answer format or grader.
    """
    asked = formats.instruction(answer_format, "the answer, a number,")
    verifier = "gsm8k" if answer_format == "hash" else "math"
    files = {"train": TRAIN, "heldout": TEST}
    return finite_task(
        "gsm8k",
        verifier,
        {split: load(file, data_dir, manual_dir) for split, file in files.items()},
        prompt=lambda record: formats.prompt(record["question"], asked if instruction is None else instruction),
        reference=_answer,
        demonstration=lambda record: _steps(record) + formats.written(answer_format, _answer(record)),
        verifier_options=formats.verifier_options(verifier, answer_format, grader),
    )


def _answer(record: Record) -> str:
    return record["answer"].rpartition("####")[2].strip()


def _steps(record: Record) -> str:
    return record["answer"].rpartition("####")[0]
