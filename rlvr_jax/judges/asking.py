"""Questions to a language model and its answers, recorded so that a run replays to the bit without the model.

Whatever answers is a function `Ask` from chats to answers: an endpoint (`endpoint.py`), or a policy in this process.
"""

import hashlib
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr_jax.errors import ConfigError
from rlvr_jax.reporting import jsonl
from rlvr_jax.text.messages import Messages

_SAVED_TOGETHER = 64  # answers, or four times those in flight


@dataclass(frozen=True)
class Answer:
    """An answer, or why there is none.

    Attributes:
      text: of the model.
      error: None, or the reason in one line.
    """

    text: str = ""
    error: str | None = None


Ask = Callable[[Sequence[Messages]], list[Answer]]


def no_model(chats: Sequence[Messages]) -> list[Answer]:
    """The answers of a replay to what its record lacks."""
    return [Answer(error="the record lacks an answer, and with replay = True no model is asked")] * len(chats)


def recorded(
    ask: Ask,
    file: Path | None,
    identity: Mapping[str, Any],
    at_once: int = 0,
    replay: bool = False,
    process: int = 0,
    version: str = "",
) -> Ask:
    """`ask` for chats that have no answer in a file yet; the others have that answer.

    A chat is asked about once, and a failure is an answer too: a run that is resumed or replayed has the same samples
    unjudged. Deleting the lines with an "error" asks again.

    Args:
      ask: the model.
      file: JSON Lines of key, messages, and answer or error, which grows; None for memory only.
      identity: of the model: what else decides its answers.
      at_once: chats between two writes of the file at least.
      replay: whether `ask` is not used.
      version: of the model's weights, if it is known. A replay, which has no model, takes the answers of all versions,
        the last one to a question.
      process: index of this process, each of which but the first writes a file of its own beside: NAME@INDEX.jsonl.

    Raises:
      ConfigError: the file can't be read.
    """
    known: dict[str, Answer] = {}
    files = [] if file is None else [x for x in (file, *sorted(file.parent.glob(f"{file.stem}@*.jsonl"))) if x.exists()]
    for path in files:
        try:
            for row in jsonl.read(path):
                if not replay and row.get("version", "") != version:
                    continue
                known[row["key"]] = Answer(row.get("answer") or "", row.get("error"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path} is no record of a judge: {error!r}; move it away to begin a new one") from error
    if replay and not files:
        raise ConfigError(f"a judge with replay = True needs its record, and there is no file {file}")
    own = file.with_name(f"{file.stem}@{process}.jsonl") if file is not None and process else file
    of_version = {"version": version} if version else {}
    lock, size = threading.Lock(), max(_SAVED_TOGETHER, 4 * at_once)

    def asked(chats: Sequence[Messages]) -> list[Answer]:
        keys = [key_of(identity, chat) for chat in chats]
        with lock:
            missing = {key: chat for key, chat in zip(keys, chats, strict=True) if key not in known}
            if replay:
                return [known.get(key) or no_model([()])[0] for key in keys]
            todo = list(missing.items())
            for start in range(0, len(todo), size):
                part = todo[start : start + size]
                found = ask([chat for _, chat in part])
                known.update({key: answer for (key, _), answer in zip(part, found, strict=True)})
                if own is not None:
                    own.parent.mkdir(parents=True, exist_ok=True)
                    jsonl.append(own, [_row(*item, known[item[0]]) | of_version for item in part])
            return [known[key] for key in keys]

    return asked


def key_of(identity: Mapping[str, Any], chat: Messages) -> str:
    """The name of a question in a record: a hash of the model's identity and the messages."""
    return hashlib.sha256(json.dumps([dict(identity), list(chat)], sort_keys=True).encode()).hexdigest()


def _row(key: str, chat: Messages, answer: Answer) -> dict[str, Any]:
    end = {"answer": answer.text} if answer.error is None else {"error": answer.error}
    return {"key": key, "messages": list(chat)} | end
