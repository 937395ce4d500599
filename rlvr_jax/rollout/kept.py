"""Lossless conversion of groups to and from JSON, for the groups in flight of a checkpoint."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlvr_jax.envs import CallRecord
from rlvr_jax.errors import CheckpointError
from rlvr_jax.rollout.as_json import array_of, text_of
from rlvr_jax.rollout.episode import Episode, Group, Span
from rlvr_jax.rollout.episode import Sequence as Window
from rlvr_jax.tasks.task import Example
from rlvr_jax.verifiers.verdict import Verdict


def to_json(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The groups as JSON data, with only the ids of their examples."""
    return [
        {
            "example": group.example.id,
            "episodes": [_episode_to_json(episode) for episode in group.episodes],
            "verdicts": [dataclasses.asdict(verdict) for verdict in group.verdicts],
        }
        for group in groups
    ]


def from_json(data: Sequence[Mapping[str, Any]], examples: Sequence[Example]) -> list[Group]:
    """The groups of `to_json`.

    Args:
      data: from `to_json`.
      examples: of the groups, in their order.

    Raises:
      CheckpointError: the groups are of other examples.
    """
    theirs, ours = [group["example"] for group in data], [example.id for example in examples]
    if theirs != ours:
        raise CheckpointError(
            f"the checkpoint holds samples of {', '.join(theirs)}, but the config gives {', '.join(ours)}: the data "
            "of a task has changed. Restore it, or use another --workdir"
        )
    return [
        Group(
            example,
            tuple(_episode_from_json(episode, example) for episode in group["episodes"]),
            tuple(Verdict(**verdict) for verdict in group["verdicts"]),
        )
        for group, example in zip(data, examples, strict=True)
    ]


def _episode_to_json(episode: Episode) -> dict[str, Any]:
    return {
        "sample": episode.sample,
        "sequences": [[_span_to_json(span) for span in sequence.spans] for sequence in episode.sequences],
        "credits": [[sequence.depth, sequence.reward] for sequence in episode.sequences],
        "turns": list(episode.turns),
        "finish_reason": episode.finish_reason,
        "parts": dict(episode.parts),
        "error": episode.error,
        "answer": episode.answer,
        "calls": [dataclasses.asdict(call) for call in episode.calls],
        "role": episode.role,
    }


def _episode_from_json(data: Mapping[str, Any], example: Example) -> Episode:
    fields = {**data}
    credits = fields.pop("credits", [[0, None]] * len(data["sequences"]))  # older checkpoints have none
    windows = zip(data["sequences"], credits, strict=True)
    sequences = tuple(Window(tuple(map(_span_from_json, spans)), *credit) for spans, credit in windows)
    calls = tuple(CallRecord(**call) for call in data["calls"])
    return Episode(example, **{**fields, "sequences": sequences, "turns": tuple(data["turns"]), "calls": calls})


def _span_to_json(span: Span) -> list[Any]:
    logprobs = None if span.logprobs is None else text_of(np.asarray(span.logprobs, np.float32))
    return [span.author, text_of(np.asarray(span.tokens, np.int32)), logprobs, span.version, span.earlier]


def _span_from_json(data: Sequence[Any]) -> Span:
    author, tokens, logprobs, version, *more = data  # a checkpoint of an earlier release has no more
    logprobs = None if logprobs is None else array_of(logprobs, "<f4")
    return Span(author, array_of(tokens), logprobs, version, tuple(map(tuple, *more)))
