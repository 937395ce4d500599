"""The record of one sampled response, on the host."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int

from rlvr_jax.tasks.task import Example

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
