"""Settings of the rollouts of a run."""

from dataclasses import dataclass
from typing import Literal

InFlight = Literal["finish", "recompute", "keep"]


@dataclass(frozen=True)
class RolloutConfig:
    """Rollout settings.

    Attributes:
      prompts: problems in a step.
      group_size: samples of each problem; 1 needs `algorithm.baseline='tracker'` (SPO) or a user-defined
        `algorithm.advantage`.
      max_prompt_length: in tokens.
      max_response_length: tokens of a context window after its prompt: of all turns, stop tokens included, and of
        observations.
      max_turn_length: tokens of one turn; 0 for no limit but `max_response_length`.
      max_turns: the policy's turns in an episode.
      max_sequences: context windows of an episode, for environments that begin new ones or ask the policy itself, see
        docs/long_contexts.md. A batch has so many rows for each sample.
      overlong_prompts: "refuse" to run if a problem's prompt is longer, or "drop" such problems.
      temperature: of the sampling distribution, and of the trained policy.
      top_k, top_p: filters of the sampling distribution; 0 and 1 switch them off.
      batch_size: prompts sampled at a time without slots; 0 for as many as fit into the memory of a device if that is
        known, otherwise all.
      slots: continuous batching with this many concurrent sequences; 0 samples static batches. Helps if response
        lengths vary; costs one copy of the prompt's KV cache per slot, which a static batch shares per group.
      chunk: decode steps between host syncs.
      prefill_chunk: maximum number of tokens of each prompt prefilled between two such chunks.
      in_flight: "finish" finishes all episodes before an update. Otherwise they go on after it, with their KV cache
        computed again ("recompute") or kept ("keep"), and a step takes the groups that finish first.
      patience: decode steps before results of tools are awaited, and with `in_flight` verdicts (docs/performance.md).
      devices: number of devices, the last ones, that only sample while the others only train, concurrently if
        `training.max_lag` is above 0; 0 uses all devices for both.
    """

    prompts: int = 16
    group_size: int = 8
    max_prompt_length: int = 64
    max_response_length: int = 64
    max_turn_length: int = 0
    max_turns: int = 16
    max_sequences: int = 1
    overlong_prompts: Literal["refuse", "drop"] = "refuse"
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    batch_size: int = 0
    slots: int = 0
    chunk: int = 16
    prefill_chunk: int = 256
    in_flight: InFlight = "finish"
    patience: int = 0
    devices: int = 0

    @property
    def group_rows(self) -> int:
        """The rows of a problem in a batch: a sample has one for each of its sequences."""
        return self.group_size * self.max_sequences

    @property
    def episode_length(self) -> int:
        """Maximum tokens of an episode after its prompts."""
        return self.max_response_length * self.max_sequences
