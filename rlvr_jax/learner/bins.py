"""Several unrelated sequences in one row, each a segment with positions of its own.

A token attends to its own segment only, the rule that the attention kernels know anyway, so log-probs and gradients are
those of separate rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int32

from rlvr_jax.learner.batch import Batch


@dataclass(frozen=True)
class Row:
    """A sequence of tokens, and which of them are trained on; never the first, which nothing predicts.

    Attributes:
      source: the number of the data source that it is from.
    """

    tokens: Int32[np.ndarray, "time"]
    trained: Bool[np.ndarray, "time"]
    source: int = 0


def bins(lengths: Sequence[int], room: int) -> list[list[int]]:
    """Indices of sequences in bins of this room: each, longest first, into the first bin that has room for it.

    Source: first-fit decreasing, Johnson 1973; at most 11/9 of the fewest possible bins, and one more.
    """
    found: list[list[int]] = []
    left: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        place = next((b for b, rest in enumerate(left) if rest >= lengths[i]), len(left))
        if place == len(left):
            found.append([])
            left.append(room)
        found[place].append(i)
        left[place] -= lengths[i]
    return found


def fill(rows: Sequence[Row], placed: Sequence[Sequence[int]], count: int, length: int) -> Batch:
    """The batch of `count` rows of `length` tokens that has these sequences in each of its first rows, padded.

    All columns are actions. The column is "source".

    Raises:
      ValueError: sequences do not fit into their row, or there are more rows.
    """
    if len(placed) > count:
        raise ValueError(f"{len(placed)} rows do not fit into a batch of {count}")
    shape = (count, length)
    tokens, positions, segments = (np.zeros(shape, np.int32) for _ in range(3))
    mask, source, samples = np.zeros(shape, np.float32), np.zeros(shape, np.float32), np.zeros(count, np.float32)
    for r, members in enumerate(placed):
        start = 0
        for number, i in enumerate(members, start=1):
            row = rows[i]
            stop = start + len(row.tokens)
            if stop > length:
                raise ValueError(f"{stop} tokens do not fit into a row of {length}")
            tokens[r, start:stop], positions[r, start:stop] = row.tokens, np.arange(stop - start)
            segments[r, start:stop], source[r, start:stop] = number, row.source
            mask[r, start + 1 : stop] = row.trained[1:]
            start = stop
        samples[r] = len(members)
    predictors = np.tile(np.maximum(np.arange(length, dtype=np.int32) - 1, 0), (count, 1))
    return Batch(tokens, positions, segments, predictors, mask, samples, {"source": source})
