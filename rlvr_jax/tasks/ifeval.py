"""IFEval: 541 prompts whose constraints a program can check (Zhou et al. 2023, https://arxiv.org/abs/2311.07911)."""

from rlvr_jax.tasks.finite import finite_task
from rlvr_jax.tasks.prepared import load
from rlvr_jax.tasks.published import PublishedFile, Record
from rlvr_jax.tasks.task import Split, Task, split_of

PROMPTS = PublishedFile(
    name="ifeval",
    title="IFEval's input_data.jsonl",
    license="CC BY 4.0",
    url="https://raw.githubusercontent.com/google-research/google-research/d76be322625d4401655660f0f02681f96eb6783a"
    "/instruction_following_eval/data/input_data.jsonl",
    folder="ifeval",
    local_names=("input_data.jsonl", "prompts.jsonl"),
    fields=("key", "prompt", "instruction_id_list", "kwargs"),
)


def ifeval(data_dir: str = "", manual_dir: str = "", heldout_share: float = 1.0) -> Task:
    """IFEval as a task. The prompts are exactly the published ones.

    IFEval is a test set, so all of it is held out unless `heldout_share` is below 1; results on a subset are not
    comparable with published ones.

    Args:
      data_dir: folder of the prepared data, see `prepared.load`.
      manual_dir: a folder with `input_data.jsonl`, see `prepared.load`.
      heldout_share: share of the prompts that are held out, chosen by their hash; the others are for training.

    Raises:
      FileNotFoundError, ValueError, ConnectionError, OSError: see `prepared.load`.
      ValueError: `heldout_share` is not from 0 to 1.
    """
    if not 0 <= heldout_share <= 1:
        raise ValueError(f"ifeval: heldout_share must be from 0 to 1, not {heldout_share}")
    splits: dict[Split, list[Record]] = {"train": [], "heldout": []}
    for record in load(PROMPTS, data_dir, manual_dir):
        splits[split_of(f"ifeval/{record['prompt']}", heldout_share)].append(record)
    return finite_task(
        "ifeval",
        "constraints",
        splits,
        prompt=lambda record: record["prompt"],
        reference=lambda record: {key: record[key] for key in ("prompt", "instruction_id_list", "kwargs")},
        gold=_constraints,
    )


def _constraints(record: Record) -> str:
    """One line per constraint, with its arguments."""
    lines = []
    for name, arguments in zip(record["instruction_id_list"], record["kwargs"], strict=True):
        given = [f"{key}={value!r}" for key, value in arguments.items() if value is not None]
        lines.append(f"{name} {', '.join(given)}".strip())
    return "\n".join(lines)
