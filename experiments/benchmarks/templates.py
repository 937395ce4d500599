"""Episodes with tools against the chat template's own rendering of the whole chat, token by token.

    python -m experiments.benchmarks.templates MODEL --format=hermes

The policy says four turns: three calls of a calculator, of which one fails, and an answer. They are compared with what
the template renders for calls as text and as `tool_calls`, without thoughts and with one in each turn. Only the
tokenizer is read.
"""

import argparse
import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np

from rlvr_jax.envs import make_env
from rlvr_jax.hf.source import find_checkpoint
from rlvr_jax.rollout.collector import Collector
from rlvr_jax.rollout.episode import Episode
from rlvr_jax.rollout.playing import Limits, Source
from rlvr_jax.rollout.requests import Request, Turn
from rlvr_jax.tasks import Example, Task
from rlvr_jax.text.prompts import chat_text, continuation, end_of_turn, renderer, tool_options
from rlvr_jax.text.tokenizers import encode, pretrained_tokenizer
from rlvr_jax.tools import make_format, make_tools
from rlvr_jax.verifiers.pool import Pool

PROBLEM, ANSWER = "What is 12*7+1?", "#### 85"
EXPRESSIONS = ("12*7", "84+", "84+1")
OBSERVED = ("84", "Error: expected a number, found 'the end'", "85")
THOUGHT = "<think>\nhm\n</think>\n\n"


class Said:
    """A sampler that says these tokens, one turn after the other."""

    steps = 0

    def __init__(self, turns: Sequence[Sequence[int]]) -> None:
        self._turns: Iterator[Sequence[int]] = iter(turns)
        self._queue: list[Request] = []

    def submit(self, requests: Sequence[Request]) -> None:
        self._queue += requests

    def ready(self) -> bool | None:
        return True if self._queue else None

    def poll(self, _steps: int | None = None) -> list[Turn]:
        if not self._queue:
            return []
        tokens = np.array(next(self._turns), np.int32)
        return [Turn(self._queue.pop(0).id, tokens, np.zeros(len(tokens), np.float32), "stop", 0)]

    def release(self, ids: Sequence[int]) -> None:
        del ids


def played(
    tokenizer: Any, options: dict[str, Any], turns: Sequence[Sequence[int]], end: int
) -> tuple[list[list[int]], Episode]:
    """The tokens of each span of an episode in which the policy says these turns, each of them ids; and the episode.

    Args:
      tokenizer: of the policy.
      options: of the environment `tools`.
      turns: with their end tokens.
      end: the token that ends a turn.
    """
    env = make_env("tools", options)
    prompt = renderer(tokenizer, "chat", "", tools=env.tools)(PROBLEM)
    example = Example("t/train/0", prompt, "85", "t", problem=PROBLEM)
    source = Source(Task("t", "gsm8k", None, None), env, continuation(tokenizer, "chat", tools=env.tools))
    limits = Limits(prompt=100_000, response=100_000, stop_tokens=(end,))
    with Pool(0) as pool:
        collector = Collector(Said(turns), pool, {"t": source}, tokenizer, limits)
        collector.start(0, [example], 1, jax.random.key(0), 1.0)
        ((episode,),) = (group.episodes for group in collector.take(0))
    if episode.error is not None:
        raise ValueError(episode.error)
    return [span.tokens.tolist() for span in episode.sequences[0].spans], episode


def rendered(tokenizer: Any, options: dict[str, Any], said: Sequence[dict[str, Any]], observed: Sequence[str]) -> list:
    """The tokens of the template for the whole chat.

    Args:
      tokenizer: with the template.
      options: of the environment `tools`.
      said: the assistant's messages, without their role.
      observed: what the tools answer to all but the last.
    """
    messages: list[dict[str, Any]] = [{"role": "user", "content": PROBLEM}]
    for message, text in itertools.zip_longest(said, observed):
        messages.append({"role": "assistant", **message})
        messages += [{"role": "tool", "name": "calculator", "content": text}] * (text is not None)
    tools = tool_options(tokenizer, make_env("tools", options).tools)
    return encode(tokenizer, chat_text(tokenizer, messages, **tools))


def first_difference(spans: Sequence[Sequence[int]], expected: Sequence[int]) -> int | None:
    """The number of the span in which an episode's tokens are no longer the template's; None if they are."""
    begin = 0
    for number, span in enumerate(spans):
        if list(span) != list(expected[begin : begin + len(span)]):
            return number
        begin += len(span)
    return None


def compared(tokenizer: Any, format: str) -> dict[str, str]:
    """The differences by kind of chat; empty without any."""
    options, end = {"tools": ["calculator"], "format": format}, end_of_turn(tokenizer)
    write = make_format(format, make_tools(["calculator"])).write
    calls = [write("calculator", {"expression": x}) for x in EXPRESSIONS]
    structured = [
        {"tool_calls": [{"type": "function", "function": {"name": "calculator", "arguments": {"expression": x}}}]}
        for x in EXPRESSIONS
    ]
    found = {}
    for thoughts, kind in itertools.product((False, True), ("text", "tool_calls")):
        thought = THOUGHT * thoughts
        texts = [f"{thought}{text}" for text in (*calls, ANSWER)]
        said = [{"content": text} for text in texts]
        if kind == "tool_calls":
            said[:-1] = [{"content": thought.strip(), **call} for call in structured]
        name = f"calls as {kind}, {'thoughts' if thoughts else 'no thoughts'}"
        spans, _ = played(tokenizer, options, [[*encode(tokenizer, text), end] for text in texts], end)
        expected = rendered(tokenizer, options, said, OBSERVED)
        where = first_difference(spans, expected)
        found[name] = ""
        if where is not None:
            begin = sum(map(len, spans[:where]))
            pair = [tokenizer.decode(x)[:200] for x in (spans[where], expected[begin : begin + len(spans[where])])]
            author = "prompt" if not where else "policy" if where % 2 else "tool"
            found[name] = f"from part {where} on ({author}): {json.dumps(pair[0])} is {json.dumps(pair[1])} there"
    return found


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("models", nargs="+", help="folders of checkpoints, or ids on the hub")
    flags.add_argument("--format", required=True, help="of calls, as in docs/tools.md")
    given = flags.parse_args()
    for model in given.models:
        for kind, difference in compared(pretrained_tokenizer(find_checkpoint(model, False)), given.format).items():
            print(f"{model}, {kind}: {difference or 'the same'}")


if __name__ == "__main__":
    main()
