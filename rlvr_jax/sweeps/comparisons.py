"""Numbers of the runs of a variant, compared with those of the base: paired differences, their tests, a sentence."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from rlvr_jax.sweeps import statistics

LEVEL = 0.05  # of the corrected p-values


@dataclass(frozen=True)
class Comparison:
    """One number of each run of a variant, and its difference from the base's run of the same seed.

    Attributes:
      values: of each seed.
      mean, low, high: over the seeds, with the 95 % bootstrap interval; NaN bounds with less than
        3 seeds.
      difference, difference_low, difference_high: of the pairs, likewise; NaN without pairs and for the base.
      pairs: their number.
      p: of the paired t-test, corrected for all comparisons of the sweep; 1 without a test.
      verdict: by p <= 0.05.
      seeds_needed: seeds with which a difference of this size would be told from noise with a power of 80 %; None if
        they are above 10,000 or unknown.
    """

    values: dict[int, float]
    mean: float
    low: float
    high: float
    difference: float = math.nan
    difference_low: float = math.nan
    difference_high: float = math.nan
    pairs: int = 0
    p: float = 1.0
    verdict: Literal["better", "worse", "unclear"] = "unclear"
    seeds_needed: int | None = None


def interval(x: Comparison) -> str:
    """`0.510 (0.480 to 0.540)`."""
    return f"{x.mean:.3f}" if math.isnan(x.low) else f"{x.mean:.3f} ({x.low:.3f} to {x.high:.3f})"


def compare(values: Mapping[int, float], base: Mapping[int, float]) -> Comparison | None:
    """Without the tests, which need all comparisons; the differences of the base from itself stay NaN."""
    if not values:
        return None
    low, high = statistics.bootstrap_interval(np.array(list(values.values())))
    found = Comparison(dict(values), float(np.mean(list(values.values()))), float(low), float(high))
    differences = _differences(values, base)
    if values is base or not len(differences):
        return found
    low, high = statistics.bootstrap_interval(differences)
    return replace(
        found,
        difference=float(np.mean(differences)),
        difference_low=float(low),
        difference_high=float(high),
        pairs=len(differences),
    )


def _differences(values: Mapping[int, float], base: Mapping[int, float]) -> np.ndarray:
    """Of the seeds that both have."""
    return np.array([values[seed] - base[seed] for seed in values if seed in base])


def tested(
    tables: Sequence[Sequence[Comparison | None]], resolution: float
) -> tuple[list[list[Comparison | None]], int]:
    """The comparisons of all tables, the base first in each, with their tests; and the number of tests."""
    pairs = [(table[0], x) for table in tables for x in table[1:] if x and x.pairs >= statistics.FEWEST]
    differences = [_differences(x.values, base.values) for base, x in pairs]
    corrected = statistics.holm([statistics.paired_p(x, resolution) for x in differences])
    found = {}
    for (_, x), of_seeds, p in zip(pairs, differences, corrected, strict=True):
        verdict = "unclear" if p > LEVEL else "better" if x.difference > 0 else "worse"
        needed = statistics.seeds_needed(of_seeds, LEVEL / len(pairs), resolution)
        found[id(x)] = replace(x, p=p, verdict=verdict, seeds_needed=needed)
    return [[found.get(id(x), x) for x in table] for table in tables], len(pairs)


def sentence(is_base: bool, final: Comparison | None, area: Comparison | None) -> str:
    """The comparison with the base in words."""
    if final is None or area is None:
        return "no run is finished"
    if is_base:
        return "the base"
    if not final.pairs:
        return "no seed is finished both here and in the base"
    if final.pairs < statistics.FEWEST:
        number = f"{final.pairs} seed{'s' * (final.pairs > 1)}"
        return f"{final.difference:+.3f} at the end; {number} can't tell it from noise"
    seeds = f"{final.pairs} seeds"
    parts = {"at the end": final, "over the run": area}
    clear = [f"{x.verdict} {where} ({x.difference:+.3f})" for where, x in parts.items() if x.verdict != "unclear"]
    unclear = [f"{where} ({x.difference:+.3f}; {_needed(x)})" for where, x in parts.items() if x.verdict == "unclear"]
    if final.verdict == area.verdict != "unclear":
        clear = [f"{final.verdict} at the end ({final.difference:+.3f}) and over the run ({area.difference:+.3f})"]
    if unclear:
        unclear = [f"not significant {' and '.join(unclear)}"]
    return f"{'; '.join(clear + unclear)}, with {seeds}"


def _needed(x: Comparison) -> str:
    if x.seeds_needed is None:
        return "no number of seeds would do" if x.difference == 0 else "would need more than 10,000 seeds"
    return f"would need about {max(x.seeds_needed, x.pairs + 1)} seeds"
