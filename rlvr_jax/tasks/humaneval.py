"""HumanEval: 164 Python functions to complete (Chen et al. 2021, https://arxiv.org/abs/2107.03374). For evaluation."""

from rlvr_jax.tasks.finite import finite_task
from rlvr_jax.tasks.prepared import load
from rlvr_jax.tasks.published import PublishedFile, Record
from rlvr_jax.tasks.task import Task
from rlvr_jax.text import formats

PROBLEMS = PublishedFile(
    name="humaneval",
    title="HumanEval.jsonl",
    license="MIT",
    url="https://raw.githubusercontent.com/openai/human-eval/6d43fb980f9fee3c892a914eda09951f772ad10d"
    "/data/HumanEval.jsonl.gz",
    folder="humaneval",
    local_names=("HumanEval.jsonl",),
    fields=("task_id", "prompt", "entry_point", "canonical_solution", "test"),
)
INSTRUCTION = f"Complete the function. {formats.CODE}"


def humaneval(data_dir: str = "", manual_dir: str = "", instruction: str = INSTRUCTION) -> Task:
    """HumanEval as a task. All problems are held out; `train` is empty.

    The demonstration is the published function.

    Args:
      data_dir: folder of the prepared data, see `prepared.load`.
      manual_dir: a folder with `HumanEval.jsonl`, see `prepared.load`.
      instruction: end of the prompt, after the function's head. If empty, the prompt is the bare head, for a base model
        to continue.

    Raises:
      FileNotFoundError, ValueError, ConnectionError, OSError: see `prepared.load`.
    """

    def prompt(record: Record) -> str:
        head = record["prompt"]
        return formats.prompt(formats.code_block(head), instruction) if instruction else head

    def demonstration(record: Record) -> str:
        body = record["canonical_solution"]
        return formats.code_block(record["prompt"] + body) if instruction else body

    def reference(record: Record) -> dict[str, str]:
        return {"type": "humaneval", **{key: record[key] for key in ("prompt", "entry_point", "test")}}

    problems = load(PROBLEMS, data_dir, manual_dir)
    return finite_task("humaneval", "code", {"train": [], "heldout": problems}, prompt, reference, demonstration)
