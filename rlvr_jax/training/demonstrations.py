"""Demonstrations of a task as tokens: the policy's turns, which are trained on, and observations between them."""

from collections.abc import Sequence
from itertools import groupby

import numpy as np
from jaxtyping import Bool, Int32

from rlvr_jax.errors import ConfigError
from rlvr_jax.tasks import Example
from rlvr_jax.text.messages import ROLES, Messages
from rlvr_jax.text.tokenizers import encode_batch
from rlvr_jax.training.setup import Setup

Response = tuple[Int32[np.ndarray, "time"], Bool[np.ndarray, "time"]]  # tokens, and True on those that are trained on


def responses(setup: Setup, examples: Sequence[Example]) -> list[Response]:
    """The demonstration number i of each example i: the tokens after its prompt, as rollouts have them.

    The policy's turns end with `setup.end_token`, unless they end with a token that ends a turn in their environment.
    Observations are rendered as in episodes.

    Raises:
      ConfigError: a demonstration is neither text nor messages that begin and end with the assistant's, or has no
        tokens; names its example.
    """
    shown = [
        _messages(example, setup.tasks[example.task].demonstration(example, i)) for i, example in enumerate(examples)
    ]
    turns = [message["content"] for messages in shown for message in messages if message["role"] == "assistant"]
    encoded = iter(encode_batch(setup.tokenizer, turns))
    return [
        _response(setup, example, messages, [next(encoded) for x in messages if x["role"] == "assistant"])
        for example, messages in zip(examples, shown, strict=True)
    ]


def _messages(example: Example, demonstration: str | Messages) -> Messages:
    if isinstance(demonstration, str):
        return ({"role": "assistant", "content": demonstration},)
    roles = [message["role"] for message in demonstration]
    if not roles or not roles[0] == roles[-1] == "assistant" or not set(roles) <= set(ROLES):
        raise ConfigError(
            f"the demonstration of {example.id} must begin and end with a message of the assistant; its roles are "
            + (", ".join(roles) or "none")
        )
    return demonstration


def _response(setup: Setup, example: Example, messages: Messages, turns: Sequence[Sequence[int]]) -> Response:
    parts: list[tuple[Sequence[int], bool]] = []
    source, turn = setup.sources[example.task], iter(turns)
    for own, said in groupby(messages, lambda message: message["role"] == "assistant"):
        if own:
            for ids in (next(turn) for _ in said):
                ended = bool(ids) and ids[-1] in source.ends
                parts.append((ids if ended else [*ids, setup.end_token], True))
            continue
        try:
            parts.append((source.observe(tuple(said), parts[-1][0][-1]), False))
        except ValueError as error:
            raise ConfigError(f"the demonstration of {example.id}: {error}") from error
    tokens = np.concatenate([np.asarray(part, np.int32) for part, _ in parts])
    return tokens, np.concatenate([np.full(len(part), own) for part, own in parts])
