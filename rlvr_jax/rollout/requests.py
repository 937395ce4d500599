"""The sampler's records: requests, turns and statistics."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, UInt32

from rlvr_jax.rollout.sampling import Draws

NO_TOKENS = np.zeros(0, np.int32)


def token_ids(tokens: Sequence[int]) -> Int[np.ndarray, "_"]:
    """Tokens as an array of the sampler's type."""
    return np.asarray(tokens, np.int32)


class Request(NamedTuple):
    """A request for one turn of the policy. A tuple, as there are thousands of them: it is made in half the time.

    Attributes:
      id: of the episode, unique among those in flight.
      key: raw key data (`jax.random.key_data`) of the episode's random stream; its token `t`, counted over all of its
        turns, draws from `fold_in(key, t)`.
      prompt: the context of an episode's first turn. Consecutive requests whose prompt is the same object form a group:
        their prompt is prefilled once.
      new: tokens after the last turn of episode `id`, which was requested with `keep`; then `prompt` is empty.
      budget: maximum tokens of the turn, stop token included.
      temperature: of the sampling distribution; 0 is greedy.
      stop_tokens: ids that end the turn.
      drawn: number of sampled tokens of the episode in `prompt`, from which its random stream continues.
      keep: the episode may continue, so its KV cache is kept until `Sampler.release`.
      policy: that takes the turn, see `policies.Policies`; empty for the one that is trained.
    """

    id: int
    key: UInt32[np.ndarray, "words"]
    prompt: Int[np.ndarray, "prompt"] = NO_TOKENS
    new: Int[np.ndarray, "new"] = NO_TOKENS
    budget: int = 1
    temperature: float = 1.0
    stop_tokens: tuple[int, ...] = ()
    drawn: int = 0
    keep: bool = False
    policy: str = ""


class Turn(NamedTuple):
    """A finished turn.

    Attributes:
      id: of the episode.
      tokens: including the stop token, if any.
      logprobs: of each token under the policy at the training temperature (nats).
      finish: "stop" for a stop token, "length" if it hit the token budget.
      version: of the parameters that sampled the last token.
      earlier: (tokens, version) of those before, if the parameters changed while the turn was in flight.
    """

    id: int
    tokens: Int[np.ndarray, "time"]
    logprobs: Float[np.ndarray, "time"]
    finish: Literal["stop", "length"]
    version: int
    earlier: tuple[tuple[int, int], ...] = ()


@runtime_checkable
class Turns(Protocol):
    """The interface of a sampler that a collector uses."""

    @property
    def steps(self) -> int: ...
    def submit(self, requests: Sequence[Request]) -> None: ...
    def ready(self) -> bool | None: ...
    def poll(self, steps: int | None = None) -> list[Turn]: ...
    def release(self, ids: Sequence[int]) -> None: ...


@dataclass(frozen=True)
class RolloutStats:
    """The cost of sampling.

    Attributes:
      steps: decode steps; each samples a token in every active slot.
      slot_steps: decode steps times slots (or batch rows).
      active_slot_steps: those that sampled a token.
      prefill_tokens: prefilled tokens of prompts and observations.
    """

    steps: int = 0
    slot_steps: int = 0
    active_slot_steps: int = 0
    prefill_tokens: int = 0

    def __add__(self, other: "RolloutStats") -> "RolloutStats":
        return RolloutStats(*(a + b for a, b in zip(_numbers(self), _numbers(other), strict=True)))

    def __sub__(self, other: "RolloutStats") -> "RolloutStats":
        return RolloutStats(*(a - b for a, b in zip(_numbers(self), _numbers(other), strict=True)))

    @property
    def occupancy(self) -> float:
        """The fraction of slot-steps that were active; 0 before the first."""
        return self.active_slot_steps / max(self.slot_steps, 1)


def _numbers(stats: RolloutStats) -> tuple[int, ...]:
    return stats.steps, stats.slot_steps, stats.active_slot_steps, stats.prefill_tokens


def draws_of(requests: Sequence[Request | None], stop_tokens: int) -> Draws:
    """The initial sampling state of each request, as arrays on the host; None is a padding row of one token.

    Args:
      requests: at least one is not None.
      stop_tokens: maximum number of stop tokens of a request.
    """
    words = next(request.key for request in requests if request is not None)
    idle = Request(id=-1, key=np.zeros_like(words))
    requests = [idle if request is None else request for request in requests]
    stops = np.full((len(requests), stop_tokens), -1, np.int32)
    for row, request in enumerate(requests):
        stops[row, : len(request.stop_tokens)] = request.stop_tokens
    return Draws(
        key=np.stack([request.key for request in requests]),
        drawn=np.array([request.drawn for request in requests], np.int32),
        limit=np.array([request.drawn + request.budget for request in requests], np.int32),
        temperature=np.array([request.temperature for request in requests], np.float32),
        stop_tokens=stops,
    )
