"""The records of a rollout, on the host: one sampled response, and how busy the device was."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from rlvr_jax.tasks.task import Example
from rlvr_jax.text.tags import THINK, opens_thinking

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Trajectory:
    """One response to one example. Masks and log-probs are born here and never reconstructed.

    Attributes:
      example: the problem.
      sample: the id that names the sample's random stream.
      prompt: token ids of the prompt.
      tokens: token ids that followed the prompt, the stop token included.
      action_mask: True on tokens that the policy chose; only those are trained on.
      sampling_logprobs: log-probability (nats) of each token under the distribution it was drawn from.
      policy_logprobs: the same under the policy: without top-k and top-p.
      finish_reason: "stop" for a stop token, "length" for a used-up budget.
      text: the decoded response without the stop token.
    """

    example: Example
    sample: int
    prompt: Int[np.ndarray, "prompt"]
    tokens: Int[np.ndarray, "time"]
    action_mask: Bool[np.ndarray, "time"]
    sampling_logprobs: Float[np.ndarray, "time"]
    policy_logprobs: Float[np.ndarray, "time"]
    finish_reason: FinishReason
    text: str

    @property
    def response(self) -> str:
        """The text that verifiers and checks of form read: with the `<think>` before it that the prompt has opened."""
        return THINK * opens_thinking(self.example.prompt) + self.text


def empty_trajectory(example: Example) -> Trajectory:
    """A response to an example that says nothing, to try a reward with."""
    token, logprob = np.zeros(1, np.int32), np.zeros(1, np.float32)
    return Trajectory(example, 0, token, token, np.ones(1, bool), logprob, logprob, "stop", "")


@dataclass(frozen=True)
class RolloutStats:
    """The cost of a rollout so far.

    Attributes:
      steps: of the decoding loop; each gives every active slot a token.
      slot_steps: steps times slots, a batch row being a slot, too.
      active_slot_steps: those that gave a token of a response.
      prefill_tokens: prompt tokens computed.
    """

    steps: int = 0
    slot_steps: int = 0
    active_slot_steps: int = 0
    prefill_tokens: int = 0

    @property
    def occupancy(self) -> float:
        """The fraction of slot-steps that were active; 0 before the first."""
        return self.active_slot_steps / max(self.slot_steps, 1)
