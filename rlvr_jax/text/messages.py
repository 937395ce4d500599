"""Chat messages: the roles, and the checks of their form."""

from collections.abc import Mapping
from typing import Any

Messages = tuple[Mapping[str, str], ...]  # of a chat: {"role": "user", "content": "1 + 1 = ?"}, …

ROLES = ("system", "user", "assistant", "tool")


def wrong_messages(messages: Any, where: str) -> str | None:
    """The reason why these messages are invalid or can't be continued, starting with `where`; or None."""
    for number, message in enumerate(messages, start=1):
        if not (
            isinstance(message, Mapping) and message.get("role") in ROLES and isinstance(message.get("content"), str)
        ):
            shown = repr(message)
            shown = shown if len(shown) <= 100 else shown[:100] + "…"
            return f'message {number} of {where} must be {{"role": {" or ".join(ROLES)}, "content": text}}, not {shown}'
    if not messages or messages[-1]["role"] == "assistant":
        return f"the messages of {where} must end with what the policy is to answer"
    return None
