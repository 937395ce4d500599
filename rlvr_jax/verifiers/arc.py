"""ARC grids: the output grids of a task's test inputs, compared cell by cell (Chollet 2019, arXiv:1911.01547).

A grid is written as lines of digits with spaces between them; several grids have blank lines between them. They stand
in `<answer>` tags, which then hold nothing else. Where there are no tags, the last grids of the
completion are taken, as many as are asked for: text may stand around them.
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
    """The stretches of lines that are rows, and whether any other line but blank ones stands there."""
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
    """The cells that are right; 0 for a grid of another shape."""
    if [len(row) for row in grid] != [len(row) for row in right]:
        return 0
    return sum(a == b for row, right_row in zip(grid, right, strict=True) for a, b in zip(row, right_row, strict=True))


def verify(completion: str, reference: Sequence[Grid], *, score: Literal["share", "all"] = "share") -> Verdict:
    """Scores the share of grids that are right in every cell; with `score="all"`, 1 if all of them are.

    Parts: `format` (as many grids as asked for, each of them rectangular and of at most 30 rows and columns), `cells`
    (share of the cells that are right, none for a grid of another shape). Both are 0 where the format is wrong, and so
    is the score.

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
