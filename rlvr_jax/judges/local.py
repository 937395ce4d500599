"""A policy in this process as a judge."""

import re
from collections.abc import Sequence

from rlvr_jax.hf.families import LENGTH
from rlvr_jax.judges.asking import Answer, Ask
from rlvr_jax.judges.prompts import broken
from rlvr_jax.rollout.model import Model
from rlvr_jax.text.messages import Messages
from rlvr_jax.text.tokenizers import encode_batch
from rlvr_jax.verifiers.judge import TEMPLATE, JudgeConfig


def local(model: Model, config: JudgeConfig) -> Ask:
    """The greedy answers of a policy, on one device.

    Without a chat template its prompt is the text of the messages. No text of an added token of the tokenizer remains
    in a message, so a sample can't end the turn.

    Raises:
      ValueError: its tokenizer can't encode a question.
    """
    added = [x for x in model.tokenizer.get_added_vocab() if len(x.strip()) > 1]
    markers = re.compile("|".join(map(re.escape, sorted(added, key=len, reverse=True)))) if added else None
    encode_batch(model.tokenizer, [TEMPLATE])  # raises ValueError
    has_turns = bool(getattr(model.tokenizer, "chat_template", None))

    def prompt_of(chat: Messages) -> str | list[dict[str, str]]:
        said = [{**message, "content": broken(message["content"], markers)} for message in chat]
        return said if has_turns else "\n\n".join(message["content"] for message in said) + "\n"

    def ask(chats: Sequence[Messages]) -> list[Answer]:
        window, chats = (model.config.max_length or LENGTH) - 1, [prompt_of(chat) for chat in chats]
        lengths = [len(x) for x in encode_batch(model.tokenizer, model.texts(chats))] if chats else []
        fitting = [chat for chat, length in zip(chats, lengths, strict=True) if 0 < length <= window]
        most, batch = config.max_tokens, config.in_flight
        found = iter(model.generate(fitting, max_tokens=most, temperature=0.0, batch_size=batch))
        answers = []
        for length in lengths:
            if not 0 < length <= window:
                answers.append(Answer(error=f"its question has {length} tokens; 1 to {window} fit into its window"))
                continue
            said = next(found)
            late = f"its answer did not end within {len(said.tokens)} tokens"
            answers.append(Answer(said.text) if said.finish_reason == "stop" else Answer(error=late))
        return answers

    return ask
