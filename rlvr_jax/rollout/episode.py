"""The records of rollouts: spans of tokens, sequences, episodes, groups.

An episode is one sample of an example: the policy's turns and the observations between them. A sequence is the content
of one context window, trained on as one row; most episodes have one, and those of an episode share its reward. A span
holds consecutive tokens by one author. Masks, texts and lengths are derived from the spans.
"""

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Int32

from rlvr_jax.envs import CallRecord, FinishReason
from rlvr_jax.tasks.task import Example
from rlvr_jax.text.tags import THINK, opens_thinking
from rlvr_jax.verifiers.verdict import Verdict

Author = Literal["prompt", "policy", "other", "env", "forced", "demonstration"]
TRAINED = ("policy", "demonstration")  # the authors of the tokens that are trained on
LIMITED = ("length", "window", "prompt", "turns", "sequences", "calls", "tool_seconds")  # the finish reasons of a limit


@dataclass(frozen=True)
class Span:
    """Consecutive tokens by one author.

    Attributes:
      author: "prompt"; after it the "policy", the environment ("env"), which may also have "forced" a part of a turn, a
        "demonstration" instead of the policy, or an "other" policy that is not trained.
      tokens: ids, including a sampled stop token.
      logprobs: log-probability (nats) of each under the policy that sampled it, without top-k and top-p; None if the
        author is not the policy.
      version: of the policy that sampled the last of them: the number of training steps before.
      earlier: (tokens, version) of those before, in order, if the policy was updated while they were sampled.
    """

    author: Author
    tokens: Int32[np.ndarray, "time"]
    logprobs: Float32[np.ndarray, "time"] | None = None
    version: int = 0
    earlier: tuple[tuple[int, int], ...] = ()

    @property
    def versions(self) -> tuple[tuple[int, int], ...]:
        """(tokens, version) of all of them, in order."""
        if not self.earlier:
            return ((len(self.tokens), self.version),)
        return *self.earlier, (len(self.tokens) - sum(count for count, _ in self.earlier), self.version)


@dataclass(frozen=True)
class Sequence:
    """The spans of one context window.

    Attributes:
      spans: the prompt first.
      depth: 0 for the episode's own; more for those of episodes that it has asked for (`envs.Ask`).
      reward: of its own (`Env.credit`); None for that of the episode.
    """

    spans: tuple[Span, ...]
    depth: int = 0
    reward: float | None = None

    @property
    def prompt(self) -> Int32[np.ndarray, "prompt"]:
        """Token ids of the prompt."""
        return self.spans[0].tokens

    @cached_property
    def response(self) -> Int32[np.ndarray, "time"]:
        """All tokens after the prompt, the policy's and the environment's."""
        return tokens_of(self.spans[1:])

    @property
    def is_trained(self) -> bool:
        """False for the answer of another policy."""
        return all(span.author != "other" for span in self.spans)

    @property
    def action_mask(self) -> Bool[np.ndarray, "time"]:
        """True on the tokens of `response` that the policy sampled, or that demonstrate; only those are trained on."""
        return is_by(TRAINED, self.spans[1:])

    @property
    def logprobs(self) -> Float32[np.ndarray, "time"]:
        """Log-probability (nats) of each token of `response` under the policy that sampled it; 0 for others."""
        return logprobs_of(self.spans[1:])


def tokens_of(spans: Iterable[Span]) -> Int32[np.ndarray, "time"]:
    """The tokens of spans, one after the other."""
    return np.concatenate([np.zeros(0, np.int32), *(span.tokens for span in spans)]).astype(np.int32, copy=False)


def is_by(authors: Container[str], spans: Iterable[Span]) -> Bool[np.ndarray, "time"]:
    """True on the tokens of spans by one of these authors."""
    pairs = [(span.author in authors, len(span.tokens)) for span in spans]
    return np.repeat(*np.array(pairs, int).reshape(-1, 2).T).astype(bool)


def logprobs_of(spans: Iterable[Span]) -> Float32[np.ndarray, "time"]:
    """The log-probs of the tokens of spans, 0 where there are none."""
    parts = [np.zeros(len(x.tokens), np.float32) if x.logprobs is None else x.logprobs for x in spans]
    return np.concatenate([np.zeros(0, np.float32), *parts]).astype(np.float32, copy=False)


@dataclass(frozen=True)
class Episode:
    """One sample of an example.

    Attributes:
      example: the problem.
      sample: the integer that seeds its random stream.
      sequences: of its context windows, in order; those of episodes that a turn has asked for come before those of the
        windows that follow it.
      turns: the text of each of the policy's turns, without stop tokens.
      finish_reason: why it ended.
      parts: numbers from the environment.
      error: why it could not be finished, or None; with an error it is not judged.
      answer: the policy's text that is judged; None for `response`.
      calls: of tools, in order.
      role: that the policy had, of those of `Env.roles`; empty for none.
    """

    example: Example
    sample: int
    sequences: tuple[Sequence, ...]
    turns: tuple[str, ...]
    finish_reason: FinishReason
    parts: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    answer: str | None = None
    calls: tuple[CallRecord, ...] = ()
    role: str = ""

    @property
    def text(self) -> str:
        """The policy's turns, one per line, without observations and tool output."""
        return "\n".join(self.turns)

    @property
    def response(self) -> str:
        """The text for format checks: `text`, after the `<think>` of a prompt that opens a thought."""
        return THINK * opens_thinking(self.example.prompt) + self.text

    @property
    def judged(self) -> str:
        """The text for verifiers: the answer that the policy has submitted, otherwise `response`."""
        return self.response if self.answer is None else self.answer

    @property
    def spans(self) -> tuple[Span, ...]:
        """Those of all sequences, in order."""
        if len(self.sequences) == 1:
            return self.sequences[0].spans
        return tuple(span for sequence in self.sequences for span in sequence.spans)

    @cached_property
    def tokens(self) -> Int32[np.ndarray, "time"]:
        """Ids of the tokens that the policy sampled, in order."""
        return tokens_of(span for span in self.spans if span.author in TRAINED)

    @cached_property
    def length(self) -> int:
        """Number of tokens that the policy sampled."""
        return sum([len(span.tokens) for span in self.spans if span.author in TRAINED])

    @cached_property
    def is_demonstration(self) -> bool:
        """True if it was not sampled from the policy."""
        return "demonstration" in [span.author for span in self.spans]

    @property
    def cut_off(self) -> bool:
        """True if it hit a limit of tokens, turns, or the use of tools."""
        return self.finish_reason in LIMITED


def empty_episode(example: Example) -> Episode:
    """An episode with an empty turn, to test a reward with."""
    token = np.zeros(1, np.int32)
    spans = (Span("prompt", token), Span("policy", token, np.zeros(1, np.float32)))
    return Episode(example, 0, (Sequence(spans),), ("",), "stop")


@dataclass(frozen=True)
class Group:
    """The episodes of one example with their verdicts, any number of them.

    Attributes:
      example: the problem.
      episodes, verdicts: of its samples, in order. The verdict of an unjudged episode has an `error`.
    """

    example: Example
    episodes: tuple[Episode, ...]
    verdicts: tuple[Verdict, ...]


def flattened(groups: Iterable[Group]) -> tuple[list[Episode], list[Verdict], Int32[np.ndarray, "episodes"]]:
    """Episodes and verdicts of all groups in order, and the group index of each."""
    members = [(*pair, i) for i, g in enumerate(groups) for pair in zip(g.episodes, g.verdicts, strict=True)]
    episodes, verdicts, index = map(list, zip(*members, strict=True)) if members else ([], [], [])
    return episodes, verdicts, np.array(index, np.int32)
