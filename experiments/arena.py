"""Ratings of policies by pairwise comparison of their responses to the same problems.

    rlvr arena --policies=runs/a,runs/b,runs/c
    rlvr arena --policies=first=a.json,second=b.json --judges=judges.json --by=helpful --output=arena.json

A policy is the workdir of a run that `rlvr evaluate` has evaluated (on --suite), or the file of an evaluation. Without
--by the verifier's scores of the greedy responses are compared; with it a judge, which sees each pair in both orders.
Prints Bradley-Terry ratings with 95 % bootstrap intervals over problems, and the same for responses of equal length.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from rlvr_jax.errors import ConfigError

from . import command

if TYPE_CHECKING:
    import numpy as np

    from rlvr_jax.evaluation.arena import Ratings

_POLICIES = flags.DEFINE_list("policies", [], "Evaluated runs or files of evaluations, or NAME=them; at least two.")
_SUITE = flags.DEFINE_string("suite", "", "Suite that the runs were evaluated on; empty for their own tasks.")
_JUDGES = flags.DEFINE_string("judges", None, "JSON file of judges by name.")
_BY = flags.DEFINE_string("by", "", "The judge of --judges that compares; the verifier without it.")
_STYLE = flags.DEFINE_bool("style", True, "Also the ratings with a control for length.")
_DRAWS = flags.DEFINE_integer("draws", 1000, "Of the bootstrap.", lower_bound=2)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file of the ratings.")
_ALONE = 0.1  # share of the variation of length that is not who plays


def main() -> None:
    from rlvr_jax.evaluation.arena import length_alone, rated, tells_intervals, wins
    from rlvr_jax.evaluation.results import files_of, notes, read_results
    from rlvr_jax.training.arena import fought

    if len(_POLICIES.value) < 2:
        raise ConfigError("--policies: an arena needs two at least")
    output = command.file_to_write("output", _OUTPUT.value, read=files_of(_POLICIES.value))
    results = [read_results(source, Path(_SUITE.value).stem) for source in _POLICIES.value]
    battles, left_out = fought(results, judge(output))
    if not len(battles.outcome):
        raise ConfigError(f"no comparison is left: {left_out} could not be judged")
    found = {"ratings": rated(battles, False, _DRAWS.value)}
    if _STYLE.value:
        found["controlled"] = rated(battles, True, _DRAWS.value)
    print(table(found, wins(battles), battles.names), *([] if _BY.value else notes(results)), sep="\n")
    ties = int(sum(battles.outcome == 0.5))
    print(f"{len(battles.outcome)} comparisons, {ties} of them ties; {left_out} could not be judged and are left out")
    if not tells_intervals(battles):
        print(
            "no intervals: there is a single problem, or some policies have won every comparison with the others; more "
            "problems could tell how sure the ratings are"
        )
    if _STYLE.value:
        weight, low, high = found["controlled"].style
        ends = "" if low is None else f" ({low:+.2f} to {high:+.2f})"
        print(f"weight of length (logits per unit of relative length difference): {weight:+.2f}{ends}")
        if battles.style.any() and length_alone(battles) < _ALONE:
            print("the policies differ in length throughout, which can't be told from strength: read the first ratings")
    counts = {"left_out": left_out, "ties": ties}
    if output:
        plain = {name: asdict(x) for name, x in found.items()} | counts
        command.write_files({output: json.dumps(plain, indent=1).encode()})


def judge(output: Path | None) -> "tuple | None":
    """(name, config, folder of its record) of the judge that compares; None for the verifier."""
    if not _BY.value:
        return None
    from rlvr_jax.training.judging import FOLDER, read_judges

    judges = read_judges(_JUDGES.value) if _JUDGES.value else {}
    if _BY.value not in judges:
        raise ConfigError(f"--by={_BY.value}: --judges has {', '.join(judges) or 'none'}")
    return _BY.value, judges[_BY.value], output and output.parent / FOLDER


def table(found: "Mapping[str, Ratings]", shares: "np.ndarray", names: Sequence[str]) -> str:
    """Ratings, those with a control for length, and the share of wins over each other policy."""
    plain = found["ratings"].ratings
    controlled = {x.name: x for x in found["controlled"].ratings} if "controlled" in found else {}
    order = [names.index(x.name) for x in plain]
    others = " ".join(f"{x.name:>10.10}" for x in plain)
    second = f"{'length control':>17}   95 % interval" if controlled else ""
    lines = [f"{'policy':20}{'rating':>8}   95 % interval{second}{'wins':>8}   over {others}"]
    for x, i in zip(plain, order, strict=True):
        known = [None if i == j or shares[i, j] != shares[i, j] else shares[i, j] for j in order]
        against = " ".join(" " * 10 if share is None else f"{share:10.2f}" for share in known)
        numbers = "".join(
            f"{one.rating:{width}.0f}   "
            + (f"{'unknown':14}" if one.low is None else f"{one.low:5.0f} to {one.high:5.0f}")
            for one, width in ((x, 8), (controlled.get(x.name), 17))
            if one
        )
        lines.append(f"{x.name:20.20}{numbers}{x.wins:8.2f}        {against}")
    return "\n".join(lines)


if __name__ == "__main__":
    command.run(main, required=("policies",))
