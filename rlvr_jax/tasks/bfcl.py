"""Function calling: 840 problems of the Berkeley Function Calling Leaderboard, version 4 (Patil et al. 2025).

One turn of three categories: `simple_python` (one function), `multiple` (one of two to four) and `irrelevance` (no
function fits, so the right answer is no call). The data set has no training set, so a part of it is held out here; for
comparison with published results train on none of it.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rlvr_jax.tasks.finite import finite_task
from rlvr_jax.tasks.prepared import load
from rlvr_jax.tasks.published import PublishedFile, Record, json_records
from rlvr_jax.tasks.task import Split, Task, split_of

_SOURCE = (
    "https://raw.githubusercontent.com/ShishirPatil/gorilla/6ea57973c7a6097fd7c5915698c54c17c5b1b6c8"
    "/berkeley-function-call-leaderboard/bfcl_eval/data"
)
CATEGORIES = ("simple_python", "multiple", "irrelevance")
_FORMS = {
    "python": "[name(argument=value, ...)]",
    "json": '<tool_call>{"name": ..., "arguments": {...}}</tool_call>',
}  # fmt: skip


def _published(category: str, answers: bool) -> PublishedFile:
    name = f"BFCL_v4_{category}.json"

    def read(content: bytes) -> Iterator[tuple[str, Any]]:
        """The records of a category, of its own file or of one with several."""
        for place, record in json_records(content):
            if not (isinstance(record, dict) and record.get("category", category) != category):
                yield place, record

    return PublishedFile(
        name=f"bfcl_{category}" + "_answers" * answers,
        title=f"BFCL's {'possible_answer/' * answers}{name}",
        license="Apache-2.0",
        url=f"{_SOURCE}/{'possible_answer/' * answers}{name}",
        folder="bfcl",
        local_names=(f"{'possible_answer/' * answers}{name}", "bfcl_v4_shared.jsonl"),
        fields=("id", "ground_truth") if answers else ("id", "question", "function"),
        read=read,
    )


QUESTIONS = {category: _published(category, False) for category in CATEGORIES}
ANSWERS = {category: _published(category, True) for category in CATEGORIES if category != "irrelevance"}


def bfcl(
    data_dir: str = "",
    manual_dir: str = "",
    categories: Sequence[str] = CATEGORIES,
    format: str = "python",
    heldout_share: float = 0.25,
) -> Task:
    """The problems of some categories as a task, in the order of the categories.

    Args:
      data_dir: folder of the prepared data, see `prepared.load`.
      manual_dir: a folder with the files, see `prepared.load`.
      categories: of `CATEGORIES`.
      format: of calls, "python" or "json", see `rlvr_jax.verifiers.bfcl`.
      heldout_share: share of the problems that are held out, by the hash of their ids; 1 for all.

    Raises:
      ValueError: an option is out of range.
      FileNotFoundError, ValueError, ConnectionError, OSError: see `prepared.load`.
    """
    if not categories or isinstance(categories, str) or not set(categories) <= set(CATEGORIES):
        raise ValueError(f"bfcl: categories must be some of {', '.join(CATEGORIES)}, not {categories!r}")
    if format not in _FORMS:
        raise ValueError(f"bfcl: format must be one of {', '.join(_FORMS)}, not {format!r}")
    if not 0 < heldout_share <= 1:
        raise ValueError(f"bfcl: heldout_share must be above 0 and at most 1, not {heldout_share}")
    splits: dict[Split, list[Record]] = {"train": [], "heldout": []}
    for category in dict.fromkeys(categories):
        answers = {}
        if category in ANSWERS:
            answers = {record["id"]: record for record in load(ANSWERS[category], data_dir, manual_dir)}
        for record in load(QUESTIONS[category], data_dir, manual_dir):
            splits[split_of(f"bfcl/{record['id']}", heldout_share)].append({**record, **answers.get(record["id"], {})})
    return finite_task(
        "bfcl",
        "bfcl",
        splits,
        prompt=lambda record: _prompt(record, format),
        reference=_reference,
        demonstration=lambda record: _demonstration(_reference(record), format),
        verifier_options={"format": format},
        gold=lambda record: json.dumps(record.get("ground_truth", "no call")),
    )


def _prompt(record: Record, format: str) -> str:
    functions = "\n".join(map(json.dumps, record["function"]))
    ((question,),) = record["question"]  # one message of one turn
    asked = f"Answer with the call alone, in the form {_FORMS[format]}."
    none = "If no function fits, or the question lacks an argument, say so and call none."
    return f"{question['content']}\n\nThese functions can be called:\n{functions}\n\n{asked} {none}"


def _reference(record: Record) -> dict[str, Any] | None:
    if "ground_truth" not in record:
        return None
    ((name, allowed),) = _only(record["ground_truth"]).items()
    function = _only(x for x in record["function"] if x["name"] == name)
    return {"function": name, "parameters": function["parameters"], "allowed": allowed}


def _only(values: Iterable[Any]) -> Any:
    (value,) = values
    return value


def _demonstration(reference: dict[str, Any] | None, format: str) -> str:
    """A call with the first allowed values, and none for arguments that need not be given."""
    if reference is None:
        return "No function fits."
    required = reference["parameters"]["required"]
    allowed = {name: x for name, x in reference["allowed"].items() if name in required or "" not in x}
    arguments = {name: _first(next((x for x in values if x != ""), "")) for name, values in allowed.items()}
    if format == "json":
        return f"<tool_call>{json.dumps({'name': reference['function'], 'arguments': arguments})}</tool_call>"
    return f"[{reference['function']}({', '.join(f'{name}={value!r}' for name, value in arguments.items())})]"


def _first(value: Any) -> Any:
    """An allowed value without the alternatives in dictionaries."""
    if isinstance(value, dict):
        return {key: _first(values[0]) for key, values in value.items() if "" not in values}
    return [_first(x) if isinstance(x, dict) else x for x in value] if isinstance(value, list) else value
