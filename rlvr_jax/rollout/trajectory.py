"""The record of one sampled response, on the host."""

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
      policy_logprobs: log-probability (nats) of each token under the policy, whatever the filters of sampling.
      finish_reason: "stop" for a stop token, "length" for a used-up budget.
      text: the decoded response without the stop token.
    """

    example: Example
    sample: int
    prompt: Int[np.ndarray, "prompt"]
    tokens: Int[np.ndarray, "time"]
    action_mask: Bool[np.ndarray, "time"]
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
    return Trajectory(example, 0, token, token, np.ones(1, bool), logprob, "stop", "")
