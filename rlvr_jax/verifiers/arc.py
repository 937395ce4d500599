"""ARC grids: the output grids of a task's test inputs, compared cell by cell (Chollet 2019, arXiv:1911.01547).

A grid is written as lines of digits separated by spaces; grids are separated by blank lines. They are in `<answer>`
tags without other text. Without tags the last grids of the completion are used, as many as expected, with any text
around.
"""

import re
from collections.abc import Sequence
from typing import Any, Literal

from rlvr_jax.text.tags import answer_in_tags
from rlvr_jax.verifiers.verdict import Verdict

Grid = list[list[int]]

MAX_SIZE = 30  # rows and columns of a grid

_ROW = re.compile(r"[0-9](?:[ \t]+[0-9])*")


def _blocks(text: str) -> tuple[list[Grid], bool]:
    """The blocks of consecutive rows, and whether there is any other non-blank line."""
    blocks: list[Grid] = [[]]
    other = False
    for line in map(str.strip, text.split("\n")):
        if _ROW.fullmatch(line):
            blocks[-1].append([int(digit) for digit in line.split()])
            continue
        other = other or line != ""
        if blocks[-1]:
            blocks.append([])
    return [block for block in blocks if block], other


def _is_grid(grid: Any) -> bool:
    return (
        isinstance(grid, list | tuple)
        and 0 < len(grid) <= MAX_SIZE
        and all(isinstance(row, list | tuple) and 0 < len(row) == len(grid[0]) <= MAX_SIZE for row in grid)
        and all(type(cell) is int and 0 <= cell <= 9 for row in grid for cell in row)
    )


def _right_cells(grid: Grid, right: Grid) -> int:
    """The number of correct cells; 0 for a grid of another shape."""
    if [len(row) for row in grid] != [len(row) for row in right]:
        return 0
    return sum(a == b for row, right_row in zip(grid, right, strict=True) for a, b in zip(row, right_row, strict=True))


def verify(completion: str, reference: Sequence[Grid], *, score: Literal["share", "all"] = "share") -> Verdict:
    """Scores the share of grids with all cells correct; with `score="all"`, 1 if all grids are.

    Parts: `format` (the expected number of grids, each rectangular and of at most 30 rows and columns), `cells` (share
    of correct cells, none for a grid of another shape). Both and the score are 0 if the format is wrong.

    Raises:
      ValueError: the reference is not a list of grids, each a list of rows of the same length of digits 0 to 9, or
        `score` is another word.
    """
    if score not in ("share", "all"):
        raise ValueError(f"score must be 'share' or 'all', not {score!r}")
    if not (isinstance(reference, list | tuple) and reference and all(map(_is_grid, reference))):
        raise ValueError(f"the reference of an ARC task is a list of grids of digits, not {repr(reference)[:200]}")
    right = [[list(row) for row in grid] for grid in reference]
    answer = answer_in_tags(completion)
    grids, other = _blocks(completion if answer is None else answer)
    if answer is None:
        grids, other = grids[-len(right) :], False
    wrong = ""
    if other:
        wrong = "the answer holds other text than grids"
    elif len(grids) != len(right):
        wrong = f"{len(grids)} grids, not {len(right)}"
    elif not all(map(_is_grid, grids)):
        wrong = "the rows of a grid differ in length, or there are too many"
    if wrong:
        return Verdict(0.0, {"format": 0.0, "cells": 0.0}, reason=wrong)
    total = sum(len(row) for grid in right for row in grid)
    cells = sum(_right_cells(grid, r) for grid, r in zip(grids, right, strict=True)) / total
    exact = sum(grid == r for grid, r in zip(grids, right, strict=True))
    text = "\n\n".join("\n".join(" ".join(map(str, row)) for row in grid) for grid in grids)
    value = float(exact == len(right)) if score == "all" else exact / len(right)
    return Verdict(value, {"format": 1.0, "cells": cells}, text, f"{exact} of {len(right)} grids are right")
