"""User-defined tasks: the problems of a file, judged by a verifier that the config names."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlvr_jax.tasks import table
from rlvr_jax.tasks.finite import finite_task
from rlvr_jax.tasks.task import Split, Task, draw
from rlvr_jax.text.messages import Messages, wrong_messages

_MAX_ALPHABET = 512  # characters; more are too many for a character tokenizer


def file_task(
    name: str,
    file: str,
    prompt: str,
    reference: str,
    verifier: str,
    verifier_options: Mapping[str, Any] | None = None,
    heldout_file: str = "",
    heldout_share: float = 0.1,
    check: Callable[[Any], str | None] = lambda _: None,
    level: str = "",
) -> Task:
    """The problems of a file as a task.

    Without `heldout_file` a folder's split "test" or "validation" is held out, if it has one; otherwise a share of the
    problems, by the hash of their prompts, so that no prompt is in both splits, and a problem keeps its split when
    others are added.

    Args:
      name: of the task.
      file: path of a .jsonl, .json, .csv or .parquet file, or of a folder of a Hugging Face data set.
      prompt: the field of the prompt: text, or a list of chat messages `{"role", "content"}`.
      reference: the field of the gold answer, any JSON data; empty for verifiers that need none, which get None.
      verifier: a kind of `rlvr_jax.verifiers`, or `module:function`.
      verifier_options: its keyword arguments.
      heldout_file: path of a file with the held-out problems.
      heldout_share: share of the problems that are held out, at least one; 0 for none.
      check: gold answer -> the reason why it is invalid, or None.
      level: the field of `Example.level`, a text or number; empty for none.

    Raises:
      ValueError: a record lacks a field or has an empty or invalid one, or a prompt is in both splits; the message
        names file and line.
      OSError: there is no such file.
    """
    splits = _splits(Path(file).expanduser(), heldout_file)
    fields = prompt, reference, level
    problems = {split: [_problem(*record, *fields, check) for record in records] for split, records in splits.items()}
    if not problems["train"]:
        raise ValueError(f"{file} holds no problem")
    if problems.get("heldout") == []:
        raise ValueError(f"{heldout_file or file} holds no held-out problem")
    if "heldout" not in problems:
        problems = _divided(problems["train"], heldout_share)
    else:
        _check_overlap(problems)
    task = finite_task(
        name,
        verifier,
        problems,
        prompt=lambda problem: problem[1],
        reference=lambda problem: problem[2],
        verifier_options=verifier_options,
        level=lambda problem: problem[3],
    )
    return dataclasses.replace(
        task,
        alphabet=_alphabet([problem for found in problems.values() for problem in found]),
        line=lambda split, index: problems[split][index][0],
    )


_Problem = tuple[str, str | Messages, Any, str]  # place, prompt, reference, level


def _splits(path: Path, heldout_file: str) -> dict[Split, table.Records]:
    files = table.splits_of(path) if path.is_dir() else {"train": [path]}
    if "train" not in files:
        raise ValueError(f"{path} has the splits {', '.join(files)}, but none of the name train")
    splits: dict[Split, table.Records] = {"train": table.read(files["train"])}
    heldout = next((name for name in table.HELDOUT_SPLITS if name in files), None)
    if heldout_file:
        other = Path(heldout_file).expanduser()
        of_other = table.splits_of(other) if other.is_dir() else {"train": [other]}
        splits["heldout"] = table.read([file for found in of_other.values() for file in found])
    elif heldout:
        splits["heldout"] = table.read(files[heldout])
    return splits


def _problem(
    place: str, record: Mapping[str, Any], prompt: str, reference: str, level: str, check: Callable[[Any], str | None]
) -> _Problem:
    for field in filter(None, (prompt, reference, level)):
        if field not in record:
            raise ValueError(f"{place}: no field {field!r}; it has {', '.join(map(repr, record)) or 'none'}")
    text, gold = record[prompt], record[reference] if reference else None
    for field, value in ((prompt, text), (reference, gold)):
        if wrong := _not_json(value):
            raise ValueError(f"{place}: the field {field!r} is not JSON: {wrong}")
    if isinstance(text, list):
        if wrong := wrong_messages(text, f"the field {prompt!r}"):
            raise ValueError(f"{place}: {wrong}")
        text = tuple(text)
    elif not isinstance(text, str) or not text.strip():
        raise ValueError(f"{place}: the field {prompt!r} must hold text or messages, not {_shown(text)}")
    if reference and (gold is None or gold in ([], {}) or (isinstance(gold, str) and not gold.strip())):
        raise ValueError(f"{place}: the reference, field {reference!r}, is empty: {_shown(gold)}")
    if wrong := check(gold):
        raise ValueError(f"{place}: the reference {_shown(gold)} can't be used: {wrong}")
    of_level = record[level] if level else ""
    if level and (isinstance(of_level, bool) or not isinstance(of_level, str | int | float) or of_level == ""):
        raise ValueError(f"{place}: the level, field {level!r}, must be a text or a number, not {_shown(of_level)}")
    return place, text, gold, str(of_level)


def _not_json(value: Any) -> str | None:
    """Why a value can't be written as JSON in UTF-8 (a date, NaN, half of a surrogate pair), or None."""
    try:
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        return str(error)
    return None


def _divided(problems: Sequence[_Problem], share: float) -> dict[Split, list[_Problem]]:
    """Training and held-out problems, without a common prompt."""
    if not 0 <= share < 1:
        raise ValueError(f"heldout_share must be from 0 to below 1, not {share}")
    place_of = {_key(prompt): draw("split", _key(prompt)) / 2**512 for _, prompt, *_ in problems}
    below = max(share, min(place_of.values()) * (1 + 1e-9)) if share > 0 and len(place_of) > 1 else 0.0
    parts: dict[Split, list[_Problem]] = {"train": [], "heldout": []}
    for problem in problems:
        parts["heldout" if place_of[_key(problem[1])] < below else "train"].append(problem)
    if not parts["train"]:
        raise ValueError(f"heldout_share = {share} leaves none of {len(problems)} problems to train on")
    return parts


def _check_overlap(problems: Mapping[Split, Sequence[_Problem]]) -> None:
    trained = {_key(prompt): place for place, prompt, *_ in problems["train"]}
    for place, prompt, *_ in problems["heldout"]:
        if _key(prompt) in trained:
            raise ValueError(f"{place}: the held-out prompt is a training prompt, too: {trained[_key(prompt)]}")


def _key(prompt: str | Messages) -> str:
    """The words of a prompt, by which prompts are compared."""
    text = prompt if isinstance(prompt, str) else json.dumps(prompt)
    return " ".join(text.split())


def _alphabet(problems: Sequence[_Problem]) -> str | None:
    """The characters of prompts and gold answers, for `character_tokenizer`; None if too many, or for messages."""
    if not all(isinstance(prompt, str) for _, prompt, *_ in problems):
        return None
    texts = [gold if isinstance(gold, str) else json.dumps(gold, ensure_ascii=False) for _, _, gold, _ in problems]
    characters = set().union(*texts, *(prompt for _, prompt, *_ in problems))
    return "".join(sorted(characters)) if len(characters) <= _MAX_ALPHABET else None


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:100] + "…"
