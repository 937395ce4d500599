"""Supervised learning: of chats, or of a task's demonstrations as a warm start."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rlvr_jax import tasks
from rlvr_jax.config import Config
from rlvr_jax.errors import ConfigError
from rlvr_jax.learner.batch import Batch, concatenated, layout
from rlvr_jax.learner.bins import Row, bins, fill
from rlvr_jax.learner.losses import imitation
from rlvr_jax.learner.supervised import updates_in_a_call
from rlvr_jax.parallel import Processes
from rlvr_jax.tasks.conversations import Chat, read_chats
from rlvr_jax.text.chats import Pieces, pieces
from rlvr_jax.text.prompts import end_of_turn, renderer
from rlvr_jax.text.tokenizers import encode_batch, lacking
from rlvr_jax.training.demonstrations import responses
from rlvr_jax.training.setup import Setup, check_demonstrations, make_setup, training_mixture
from rlvr_jax.training.sources import Rows, mixed, mixture_of, read_rows
from rlvr_jax.training.supervised import Objective, Supervised, stacked, supervise

_SHOWN = 8  # lacking characters in a message
_SIZES = 8  # of batches of packed rows that are compiled


def sft(config: Config, workdir: Path, processes: Processes | None = None) -> Path:
    """Starts or resumes training on chats or demonstrations, as `supervised.supervise` does."""
    chats = bool(config.sft.sources)
    setup = make_setup(config, problems=not chats, run="sft", processes=processes)
    if chats:
        rows = chat_rows(setup)
        batches = chat_batches(setup, rows)
        return supervise(setup, Supervised(sft_objective(setup), lambda _: batches, facts=rows.facts), workdir)
    check_demonstrations(setup)
    count = updates_in_a_call(config.sft)
    first = _batches(setup, 0, count)  # before anything is written: fails if a demonstration is too long
    batches = lambda done, count: _batches(setup, done, count) if done else first  # noqa: E731
    return supervise(setup, Supervised(sft_objective(setup), lambda _: batches), workdir)


def sft_objective(setup: Setup) -> Objective:
    """Imitation of all rows, with a metric of each source if there are several."""
    sources = tuple(setup.config.sft.sources)
    return Objective("policy", imitation(setup.policy, sources if len(sources) > 1 else ()))


def longest_rows(setup: Setup) -> Batch:
    """An update's batch of rows of full length, for its shapes."""
    rollout, size = setup.config.rollout, setup.config.sft.batch_size
    lengths = rollout.max_prompt_length, rollout.max_response_length
    if not setup.config.sft.sources:
        prompt, response = ([np.zeros(length, np.int32)] * size for length in lengths)
        return layout(prompt, response, *lengths)
    row = Row(np.zeros(sum(lengths), np.int32), np.ones(sum(lengths), bool))
    return fill([row] * size, [[i] for i in range(size)], size, sum(lengths))


def _batches(setup: Setup, first: int, count: int) -> Batch:
    """The batches of `count` updates from `first` on, those of one call, stacked."""
    config = setup.config
    mixture = training_mixture(setup, "sft")
    size = config.sft.batch_size
    examples = [
        example
        for step in range(first, first + count)
        for example in tasks.batch(mixture, "train", config.seed, step, size)
    ]
    prompts = encode_batch(setup.tokenizer, [example.prompt for example in examples])
    tokens, trained = zip(*responses(setup, examples), strict=True)
    try:
        rows = layout(prompts, tokens, config.rollout.max_prompt_length, config.rollout.max_response_length)
    except ValueError as error:
        raise ConfigError(f"config.rollout: {error}") from error
    rows.action_mask[rows.action_mask > 0] = np.concatenate(trained)
    return stacked(setup, rows, count)


def chat_rows(setup: Setup) -> Rows:
    """The chats of `config.sft.sources` as rows of tokens."""
    config = setup.config
    length = config.rollout.max_prompt_length + config.rollout.max_response_length
    facts: dict[str, float] = {}
    if in_chat_format(setup) and end_of_turn(setup.tokenizer) is None:
        raise ConfigError(
            "config.prompt.format = 'chat': the tokenizer's chat template writes no end-of-turn token after an answer, "
            "so a policy that learns from it would never stop; set 'template'"
        )

    def made(number: int, chats: Sequence[Chat]) -> list[Row | str]:
        divided = [_divided(setup, chat) for chat in chats]
        rows = [
            ids if isinstance(ids, str) else _row(setup, found, ids, number)
            for found, ids in zip(divided, encoded(setup.tokenizer, divided), strict=True)
        ]
        lengths = np.array([len(row.tokens) for row in rows if isinstance(row, Row)] or [0])
        name = list(config.sft.sources)[number]
        facts.update({
            f"data/{name}/truncated": float(np.mean(lengths > length)),
            f"data/{name}/length": float(np.mean(lengths)),
            f"data/{name}/longest": float(np.max(lengths)),
        })  # fmt: skip
        return [x if isinstance(x, str) else _fitted(x, length, config.sft.overlong) for x in rows]

    found = read_rows(setup, "sft", config.sft.sources, read_chats, made, "chats")
    return Rows(found.of, {**found.facts, **facts})


def in_chat_format(setup: Setup) -> bool:
    """True if prompts are rendered by the tokenizer's chat template."""
    return setup.config.prompt.format == "chat" and getattr(setup.tokenizer, "chat_template", None) is not None


def _divided(setup: Setup, chat: Chat) -> Pieces | str:
    """The text of a chat, or the reason why it can't be used."""
    config, tokenizer = setup.config, setup.tokenizer
    prompt, options = config.prompt, config.sft
    try:
        if in_chat_format(setup):
            last = options.turns == "last"
            return pieces(tokenizer, chat.messages, setup.end_token, options.roles, last, chat.tools, prompt.date)
        calls = any(message.get("tool_calls") for message in chat.messages)
        if options.roles != ("assistant",) or chat.tools or calls:
            return "have tools or roles that need config.prompt.format 'chat' and a tokenizer with a chat template"
        render = renderer(tokenizer, prompt.format, prompt.template, date=prompt.date)
        asked, answer = chat.messages[:-1], chat.messages[-1]["content"]
        return (render(asked), False), (answer, True), ("", True)  # the last is the end token
    except ValueError as error:
        return str(error)


def encoded(tokenizer: Any, divided: Sequence[Pieces | str]) -> list[list[list[int]] | str]:
    """The tokens of each piece of each text; or the reason why there are none."""
    texts = [[text for text, _ in found] for found in divided if not isinstance(found, str)]
    try:
        ids = iter(encode_batch(tokenizer, [text for parts in texts for text in parts]))  # in parallel
        return [x if isinstance(x, str) else [next(ids) for _ in x] for x in divided]
    except ValueError as error:
        lacks = lacking(tokenizer, [text for parts in texts for text in parts])
        shown = " ".join(map(repr, lacks[:_SHOWN])) + " …" * (len(lacks) > _SHOWN)
        reason = (
            f"contain characters that the tokenizer lacks: {shown}; config.tokenizer = 'characters' has those of "
            "config.tasks (and their `alphabet`) alone, 'bytes' has every character"
        )
        return [x if isinstance(x, str) else _alone(tokenizer, x, reason if lacks else str(error)) for x in divided]


def _alone(tokenizer: Any, divided: Pieces, reason: str) -> list[list[int]] | str:
    try:
        return encode_batch(tokenizer, [text for text, _ in divided])
    except ValueError:
        return reason


def _row(setup: Setup, divided: Pieces, encoded: Sequence[Sequence[int]], source: int) -> Row:
    ids = [ids if text else [setup.end_token] for (text, _), ids in zip(divided, encoded, strict=True)]
    trained = [np.full(len(part), learn) for (_, learn), part in zip(divided, ids, strict=True)]
    return Row(np.concatenate(ids).astype(np.int32), np.concatenate(trained), source)


def _fitted(row: Row, length: int, overlong: str) -> Row | str:
    if len(row.tokens) > length and overlong == "drop":
        return f"are longer than {length} tokens"
    row = Row(row.tokens[:length], row.trained[:length], row.source)
    return row if row.trained[1:].any() else f"have nothing to train on in their first {length} tokens"


def chat_batches(setup: Setup, rows: Rows) -> Callable[[int, int], Batch]:
    """The function from the numbers of updates so far and in the next call to the batches of that."""
    config, options = setup.config, setup.config.sft
    length = config.rollout.max_prompt_length + config.rollout.max_response_length
    unit = setup.mesh.shape["data"] * setup.mesh.shape["fsdp"] * options.optimizer.microbatches
    mixture = mixture_of(rows.of, options.sources)

    def batches(done: int, number: int) -> Batch:
        updates = [
            mixed(rows.of, mixture, config.seed, step, options.batch_size) for step in range(done, done + number)
        ]
        placed = [
            bins([len(row.tokens) for row in update], length) if options.packing else [[i] for i in range(len(update))]
            for update in updates
        ]
        count = _rounded(max(map(len, placed)), unit, options.batch_size)
        parts = [fill(update, places, count, length) for update, places in zip(updates, placed, strict=True)]
        return stacked(setup, concatenated(parts), number)

    return batches


def _rounded(rows: int, unit: int, most: int) -> int:
    """The number of rows, padding included: one of a few, because each is compiled, divisible by `unit`."""
    step = -(-most // (_SIZES * unit)) * unit
    return -(-rows // step) * step
