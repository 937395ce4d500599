"""Chats and preferences from files: JSON Lines, JSON, CSV or Parquet. Records that can't be used are counted by reason.

A chat has the field `messages`, or `prompt` and `completion`; `tools` lists the JSON schemas of its tools. A preference
has `chosen` and `rejected`: texts that answer the field `prompt` (or `messages`), or whole chats that differ in their
last message; and optionally `margin`, by how much the first is better. An unpaired one has `completion` and `label`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rlvr_jax.tasks import table
from rlvr_jax.text.messages import ROLES, Messages

_SINGULAR = {"have": "has", "are": "is"}
_SHOWN = 4  # reasons in a message
_LARGEST = 3.4e38  # margin: they are numbers of 32 bits in a loss


@dataclass(frozen=True)
class Chat:
    """A chat to learn from, and its place in a file."""

    place: str
    messages: Messages
    tools: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Preference:
    """Two completions of one prompt, the better one first; or a single one, that is good or bad.

    Attributes:
      place: in a file.
      prompt: text, or messages.
      completions: chosen and rejected; or one.
      margin: by how much the chosen one is better, as the file says; 1 if it doesn't.
      good: of a single completion.
    """

    place: str
    prompt: str | Messages
    completions: tuple[str, ...]
    margin: float = 1.0
    good: bool = True


@dataclass(frozen=True)
class LeftOut:
    """Records that were left out, by reason: their number and the place of the first."""

    reasons: Mapping[str, tuple[int, str]]

    @property
    def count(self) -> int:
        """The number of records that were left out."""
        return sum(count for count, _ in self.reasons.values())

    def __str__(self) -> str:
        ordered = sorted(self.reasons.items(), key=lambda item: -item[1][0])
        lines = [f"{count} {_of(count, reason)} (first: {place})" for reason, (count, place) in ordered[:_SHOWN]]
        return "; ".join(lines + ["…"] * (len(ordered) > _SHOWN))


def _of(count: int, reason: str) -> str:
    """A reason, which is worded for several records, with the verb for `count` of them."""
    verb, _, rest = reason.partition(" ")
    return f"{_SINGULAR[verb]} {rest}" if count == 1 and verb in _SINGULAR else reason


Row = TypeVar("Row")
Result = TypeVar("Result")


def usable(
    items: Sequence[tuple[str, Row]], make: Callable[[str, Row], Sequence[Result]]
) -> tuple[list[Result], LeftOut]:
    """The results of `make` for each (place, item); those for which it raises ValueError are left out and counted."""
    found, reasons = [], {}
    for place, item in items:
        try:
            found += make(place, item)
        except ValueError as error:
            count, first = reasons.get(str(error), (0, place))
            reasons[str(error)] = (count + 1, first)
    return found, LeftOut(reasons)


def read_chats(file: str) -> tuple[list[Chat], LeftOut]:
    """The chats of a file or folder.

    Raises:
      ValueError: a file can't be read or parsed; the message names it and the line.
      OSError: there is no such file.
    """
    return usable(_records(file), lambda place, record: [_chat(place, record)])


def read_preferences(file: str, paired: bool = True) -> tuple[list[Preference], LeftOut]:
    """The pairs of a file or folder; with `paired` False single completions, two for each pair.

    Errors are those of `read_chats`.
    """
    return usable(_records(file), _pair if paired else _single)


def _records(file: str) -> table.Records:
    path = Path(file).expanduser()
    if not path.is_dir():
        return table.read([path])
    splits = table.splits_of(path)
    if "train" not in splits:
        raise ValueError(f"{path} has the splits {', '.join(splits)}, but none of the name train")
    return table.read(splits["train"])


def _chat(place: str, record: Mapping[str, Any]) -> Chat:
    if record.get("messages") is None and record.get("completion") is None and record.get("chosen") is not None:
        raise ValueError("have no 'messages' or 'completion', but 'chosen'; pairs are for rlvr prefer")
    if record.get("messages") is not None:
        messages = _messages(record["messages"], "messages")
    else:
        prompt, answer = _prompt(record), _text(record, "completion")
        before = prompt if isinstance(prompt, tuple) else ({"role": "user", "content": prompt},)
        messages = (*before, {"role": "assistant", "content": answer})
    _check_end(messages)
    if len(messages) == 1:
        raise ValueError("have no prompt")
    tools = record.get("tools") or ()
    if not isinstance(tools, list | tuple):
        raise ValueError("have tools that are no list")
    return Chat(place, messages, tuple(tools))


def _pair(place: str, record: Mapping[str, Any]) -> list[Preference]:
    chosen, rejected = record.get("chosen"), record.get("rejected")
    if isinstance(chosen, list) and isinstance(rejected, list):
        whole = [_messages(value, name) for name, value in (("chosen", chosen), ("rejected", rejected))]
        for messages in whole:
            _check_end(messages)
        if whole[0][:-1] != whole[1][:-1]:
            raise ValueError("have a chosen and a rejected chat that differ before their last message")
        prompt: str | Messages = whole[0][:-1]
        if not prompt:
            raise ValueError("have no prompt")
        chosen, rejected = (_content(messages[-1]) for messages in whole)
    else:
        if chosen is None and rejected is None:
            raise ValueError("have no 'chosen' and 'rejected'; chats are for rlvr sft")
        prompt = _prompt(record)
        chosen, rejected = _text(record, "chosen"), _text(record, "rejected")
    margin = record.get("margin")
    margin = 1.0 if margin is None else margin
    if isinstance(margin, bool) or not isinstance(margin, int | float) or not abs(margin) <= _LARGEST:
        raise ValueError("have a margin that is no finite number")
    if chosen == rejected:
        raise ValueError("have equal completions")
    if margin == 0 or record.get("label") == "tie":
        raise ValueError("are ties")
    if margin < 0:
        raise ValueError("have a negative margin: the rejected completion is the better one")
    return [Preference(place, prompt, (chosen, rejected), float(margin))]


def _single(place: str, record: Mapping[str, Any]) -> list[Preference]:
    if "completion" not in record:
        (pair,) = _pair(place, record)
        return [
            Preference(place, pair.prompt, (text,), good=good)
            for text, good in zip(pair.completions, (True, False), strict=True)
        ]
    label = record.get("label")
    if label not in (True, False, 0, 1):
        raise ValueError("have no label that is true or false")
    return [Preference(place, _prompt(record), (_text(record, "completion"),), good=bool(label))]


def _prompt(record: Mapping[str, Any]) -> str | Messages:
    value = record.get("prompt", record.get("messages"))
    if isinstance(value, list):
        messages = _messages(value, "prompt")
        if messages[-1]["role"] == "assistant":
            raise ValueError("have a prompt that ends with the assistant")
        return messages
    if not isinstance(value, str) or not value.strip():
        raise ValueError("have no prompt")
    return value


def _text(record: Mapping[str, Any], field: str) -> str:
    value = record.get(field)
    if isinstance(value, list) and len(value) == 1:  # a completion as a single message
        value = _content(_messages(value, field)[0])
    if not isinstance(value, str):
        raise ValueError(f"have no text in the field {field!r}")
    if not value.strip():
        raise ValueError(f"have an empty completion, in the field {field!r}")
    return value


def _content(message: Mapping[str, Any]) -> str:
    if message.get("tool_calls"):
        raise ValueError("have a completion that calls tools, and completions are texts")
    return message["content"]


def _messages(value: Any, field: str) -> Messages:
    if not isinstance(value, list) or not value:
        raise ValueError(f"have no messages in the field {field!r}")
    found = []
    for message in value:
        if not isinstance(message, Mapping):
            raise ValueError(f"have something else than messages in the field {field!r}")
        message = {key: x for key, x in message.items() if x is not None}  # Parquet has all fields in all messages
        if message.get("role") not in ROLES:
            raise ValueError(f"have an unknown role, {message.get('role')!r}; the roles are {', '.join(ROLES)}")
        message.setdefault("content", "" if message.get("tool_calls") else None)
        if not isinstance(message["content"], str):
            raise ValueError(f"have a message of {message['role']} without text")
        found.append(message)
    return tuple(found)


def _check_end(messages: Messages) -> None:
    last = messages[-1]
    if last["role"] != "assistant":
        raise ValueError(f"end with the role {last['role']}: there is no answer to learn")
    for message in messages:
        if message["role"] == "assistant" and not message["content"].strip() and not message.get("tool_calls"):
            raise ValueError("have an empty completion")
