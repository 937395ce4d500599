"""Steps of reasoning: a response is divided into them, and each begins at a state that episodes can go on from."""

import itertools
import re
from typing import Any

import numpy as np
from jaxtyping import Int32

from rlvr_jax.text.tokenizers import decode


def steps_of(
    tokens: Int32[np.ndarray, "time"], tokenizer: Any, delimiter: str = "\n", length: int = 0
) -> Int32[np.ndarray, "time"]:
    """The index of the step, from 0, that each token of a response belongs to; never decreasing, without gaps.

    A step ends after one or several delimiters in a row; delimiters before the first text and at the end divide
    nothing. A token belongs to the step of its first character.

    Source: the division of responses in Kazemnejad et al. 2024 (VinePPO, arXiv:2410.01679).

    Args:
      tokens: that the policy sampled.
      tokenizer: of the policy.
      delimiter: text after which a step ends.
      length: tokens of a step, instead of a delimiter; 0 for the delimiter.
    """
    if length:
        return (np.arange(len(tokens)) // length).astype(np.int32)
    pieces = decode(tokenizer, [[token] for token in tokens])
    text = "".join(pieces)
    blank = len(text) - len(text.lstrip())
    ends = [match.end() for match in re.finditer(f"(?:{re.escape(delimiter)})+", text) if match.start() > blank]
    starts = [0, *itertools.accumulate(map(len, pieces))][: len(tokens)]
    steps = np.searchsorted([end for end in ends if end < len(text)], starts, side="right")
    return np.unique(steps, return_inverse=True)[1].astype(np.int32)  # a token may span a whole step


def states_of(steps: Int32[np.ndarray, "time"], most: int) -> list[int]:
    """The number of tokens before each step: the states s_0, s_1, ... that values are estimated at, at most `most`."""
    return [int(first) for first in np.searchsorted(steps, np.arange(min(int(steps.max(initial=-1)) + 1, most)))]
