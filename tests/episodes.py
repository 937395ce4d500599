"""Episodes and groups that are made up."""

import itertools

import numpy as np

from rlvr_jax.rollout.episode import Episode, Group, Sequence, Span
from rlvr_jax.tasks import Example


def episode(tokens, text="", finish="stop", example=None, prompt=(0,), logprobs=None, sample=0, version=0):
    """An episode of one turn of these tokens, or of so many."""
    tokens = np.arange(tokens) if isinstance(tokens, int) else np.array(tokens)
    logprobs = np.zeros(len(tokens)) if logprobs is None else np.array(logprobs)
    spans = (
        Span("prompt", np.array(prompt, np.int32)),
        Span("policy", tokens.astype(np.int32), logprobs.astype(np.float32), version),
    )
    example = example or Example("made-up/train/0", "?", None, "made-up")
    return Episode(example, sample, (Sequence(spans),), (text,), finish)


def grouped(verdicts, episodes, *sizes):
    """Groups of these sizes, the last one again and again."""
    pairs, groups = list(zip(verdicts, episodes, strict=True)), []
    for size in itertools.chain(sizes, itertools.repeat(sizes[-1])):
        if not pairs:
            return groups
        own, pairs = pairs[:size], pairs[size:]
        groups.append(Group(own[0][1].example, tuple(e for _, e in own), tuple(v for v, _ in own)))
    return groups
