"""MBPP: 974 short Python programs with tests (Austin et al. 2021, https://arxiv.org/abs/2108.07732).

The split is the paper's, by `task_id`: 601 to 974 train, 511 to 600 validation, 11 to 510 test; 1 to 10 were its
few-shot examples and are left out. The sanitized version has 427 of the problems, verified and partly reworded by hand.

The setup runs after the program, whose definitions it may use, and before the tests. The program of problem 123 runs
for about 8 seconds.
"""

from typing import Literal

from rlvr_jax.tasks.finite import finite_task
from rlvr_jax.tasks.prepared import load
from rlvr_jax.tasks.published import PublishedFile, Record
from rlvr_jax.tasks.task import Task
from rlvr_jax.text import formats

_SOURCE = (
    "https://raw.githubusercontent.com/google-research/google-research/d76be322625d4401655660f0f02681f96eb6783a/mbpp"
)
FULL = PublishedFile(
    name="mbpp",
    title="mbpp.jsonl",
    license="CC BY 4.0",
    url=f"{_SOURCE}/mbpp.jsonl",
    folder="mbpp",
    local_names=("mbpp.jsonl",),
    fields=("task_id", "text", "code", "test_setup_code", "test_list"),
)
SANITIZED = PublishedFile(
    name="mbpp_sanitized",
    title="sanitized-mbpp.json",
    license="CC BY 4.0",
    url=f"{_SOURCE}/sanitized-mbpp.json",
    folder="mbpp",
    local_names=("sanitized-mbpp.json", "sanitized-mbpp.jsonl"),
    fields=("task_id", "prompt", "code", "test_imports", "test_list"),
)
_IDS = {"train": range(601, 975), "validation": range(511, 601), "test": range(11, 511)}


def mbpp(
    data_dir: str = "",
    manual_dir: str = "",
    sanitized: bool = False,
    heldout: Literal["test", "validation"] = "test",
    shown_tests: int = 3,
    instruction: str = formats.CODE,
) -> Task:
    """MBPP as a task. The demonstration is the published program.

    Args:
      data_dir: folder of the prepared data, see `prepared.load`.
      manual_dir: a folder with `mbpp.jsonl` or `sanitized-mbpp.json`, see `prepared.load`.
      sanitized: use the sanitized version.
      heldout: which of the paper's splits is held out.
      shown_tests: number of a problem's tests in the prompt; a program can't special-case the others. At least one,
        which names the function. The paper shows all 3.
      instruction: end of the prompt, after the problem.

    Raises:
      FileNotFoundError, ValueError, ConnectionError, OSError: see `prepared.load`.
      ValueError: an option has an impossible value.
    """
    if heldout not in ("test", "validation"):
        raise ValueError(f"mbpp: heldout must be 'test' or 'validation', not {heldout!r}")
    if shown_tests < 1:
        raise ValueError(f"mbpp: shown_tests must be at least 1, not {shown_tests}")
    records = load(SANITIZED if sanitized else FULL, data_dir, manual_dir)

    def prompt(record: Record) -> str:
        text = record["prompt"] if sanitized else record["text"]
        tests = "\n".join(record["test_list"][:shown_tests])
        return formats.prompt(f"{text.strip()}\nThe program must pass tests such as\n{tests}", instruction)

    def reference(record: Record) -> dict[str, object]:
        setup = "\n".join(record["test_imports"]) if sanitized else record["test_setup_code"]
        return {"type": "asserts", "setup": setup, "tests": record["test_list"]}

    return finite_task(
        "mbpp",
        "code",
        {
            split: [record for record in records if record["task_id"] in _IDS[name]]
            for split, name in (("train", "train"), ("heldout", heldout))
        },
        prompt=prompt,
        reference=reference,
        demonstration=lambda record: formats.code_block(record["code"].replace("\r\n", "\n")),
    )
