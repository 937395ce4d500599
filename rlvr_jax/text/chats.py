"""Chats as tokens: the turns of a chat that are trained on, located through the tokenizer's chat template.

The text up to a turn of the assistant is the prompt that the policy gets before it answers, and is encoded by itself,
as in a rollout. The turn goes on to the template's end-of-turn token, which is trained, too.
"""

from collections.abc import Sequence
from typing import Any

from rlvr_jax.text.messages import Messages
from rlvr_jax.text.prompts import DATE, chat_text

Pieces = tuple[tuple[str, bool], ...]  # of a chat's text: (text, whether it is trained on)


def pieces(
    tokenizer: Any,
    messages: Messages,
    end_token: int,
    roles: Sequence[str] = ("assistant",),
    last_only: bool = False,
    tools: Sequence[Any] = (),
    date: str = DATE,
) -> Pieces:
    """The text of a chat, divided where training on it begins and ends.

    Of the assistant's messages all is trained on that the policy has to write: content, tool calls and the end-of-turn
    token, without what the template adds behind it. Of another role it is everything that the message adds to the text.

    Args:
      tokenizer: with a chat template.
      messages: that end with the assistant.
      end_token: that the template writes after an answer, see `end_of_turn`.
      roles: whose messages are trained on.
      last_only: only the last message is.
      tools: JSON schemas of the tools that the system prompt lists.
      date: year-month-day, for chat templates with a date.

    Raises:
      ValueError: the template can't be rendered with this chat, or does not let a message be located: it renders a
        conversation in another way once that goes on, leaves content out or ends a turn by no end-of-turn token.
    """
    options = {"tools": list(tools)} if tools else {}

    def render(upto: int, asks: bool = False) -> str:
        if not upto:
            return ""
        return chat_text(tokenizer, messages[:upto], date=date, add_generation_prompt=asks, **options)

    whole, end = render(len(messages)), tokenizer.convert_ids_to_tokens(end_token)
    found: list[tuple[str, bool]] = []
    done = 0
    for number, message in enumerate(messages):
        if message["role"] not in roles or (last_only and number < len(messages) - 1):
            continue
        ours = message["role"] == "assistant"
        if ours and not number:
            raise ValueError("begin with the assistant, and a policy needs a prompt")
        before = render(number, ours)
        if not whole.startswith(before) or len(before) < done:
            raise ValueError(
                "have turns that the chat template renders in another way once the chat goes on, so they can't be "
                "located; train on the last one only (sft.turns='last')"
            )
        start = len(before)
        if ours:
            stop = whole.find(end, start) + len(end)
            if stop < start + len(end):
                raise ValueError(f"have a turn that the chat template does not end by {end!r}")
            if end in (message.get("content") or ""):
                raise ValueError(f"have a turn that holds the end-of-turn token {end!r}")
            if _words(message.get("content")) not in _words(whole[start:stop]):
                raise ValueError(
                    "have a turn of which the chat template leaves something out, such as the thoughts of earlier "
                    "turns; train on the last one only (sft.turns='last')"
                )
        else:
            after = render(number + 1)
            if not whole.startswith(after):
                raise ValueError(f"have a message of {message['role']} that can't be located in the chat template")
            stop = len(after)
        found += [(whole[done:start], False), (whole[start:stop], True)]
        done = stop
    return tuple((text, trained) for text, trained in found if text)


def _words(text: str | None) -> str:
    """The text without white space, which templates change."""
    return "".join((text or "").split())
