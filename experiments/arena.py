"""Ratings of policies by pairwise comparison of their responses to the same problems.

    rlvr arena --policies=runs/a,runs/b,runs/c
    rlvr arena --policies=first=a.json,second=b.json --suite=small --judges=judges.json --by=helpful --output=arena.json

A policy is the workdir of a run that `rlvr evaluate` has evaluated (on --suite), or the file of an evaluation. Without
--by the verifier's scores of the greedy responses are compared; with it a judge, which sees each pair in both orders.
Prints Bradley-Terry ratings with 95 % bootstrap intervals over problems, with a control for length unless --nostyle.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags

from rlvr_jax.errors import ConfigError

from . import command

if TYPE_CHECKING:
    import numpy as np

    from rlvr_jax.evaluation.arena import Ratings

_POLICIES = flags.DEFINE_list("policies", [], "Evaluated runs or files of evaluations, or NAME=them; two at least.")
_SUITE = flags.DEFINE_string("suite", "", "Suite that the runs were evaluated on; empty for their own tasks.")
_JUDGES = flags.DEFINE_string("judges", None, "JSON file of judges by name.")
_BY = flags.DEFINE_string("by", "", "The judge of --judges that compares; the verifier without it.")
_STYLE = flags.DEFINE_bool("style", True, "Control for the length of responses.")
_DRAWS = flags.DEFINE_integer("draws", 1000, "Of the bootstrap.", lower_bound=2)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file of ratings and comparisons.")


def main() -> None:
    from rlvr_jax.evaluation.arena import rated, wins
    from rlvr_jax.evaluation.results import read_results
    from rlvr_jax.reporting import files
    from rlvr_jax.training.arena import fought

    if len(_POLICIES.value) < 2:
        raise ConfigError("--policies: an arena needs two at least")
    output = Path(_OUTPUT.value).expanduser() if _OUTPUT.value else None
    if output and not output.parent.is_dir():
        raise ConfigError(f"--output={output}: there is no folder {output.parent}")
    results = [read_results(source, Path(_SUITE.value).stem) for source in _POLICIES.value]
    battles, left_out = fought(results, judge(output))
    if not len(battles.outcome):
        raise ConfigError(f"no comparison is left: {left_out} could not be judged")
    found = rated(battles, _STYLE.value, _DRAWS.value)
    print(table(found, wins(battles), battles.names))
    ties = int(sum(battles.outcome == 0.5))
    print(f"{len(battles.outcome)} comparisons, {ties} of them ties; {left_out} could not be judged and are left out")
    if _STYLE.value:
        weight, low, high = found.style
        print(f"weight of length: {weight:+.2f} ({low:+.2f} to {high:+.2f}) for a response that is longer by its all")
    if output:
        files.replace(output, json.dumps(asdict(found) | {"left_out": left_out, "ties": ties}, indent=1).encode())


def judge(output: Path | None) -> "tuple | None":
    """(name, config, folder of its record) of the judge that compares; None for the verifier."""
    if not _BY.value:
        return None
    from rlvr_jax.training.judging import FOLDER, read_judges

    judges = read_judges(_JUDGES.value) if _JUDGES.value else {}
    if _BY.value not in judges:
        raise ConfigError(f"--by={_BY.value}: --judges has {', '.join(judges) or 'none'}")
    return _BY.value, judges[_BY.value], output and output.parent / FOLDER


def table(found: "Ratings", shares: "np.ndarray", names: Sequence[str]) -> str:
    """Ratings, and the share of wins over each other policy."""
    order = [names.index(x.name) for x in found.ratings]
    lines = [
        f"{'policy':20}{'rating':>8}   95 % interval{'wins':>8}   over "
        + " ".join(f"{x.name:>10.10}" for x in found.ratings)
    ]
    for x, i in zip(found.ratings, order, strict=True):
        against = " ".join(
            "          " if i == j or shares[i, j] != shares[i, j] else f"{shares[i, j]:10.2f}" for j in order
        )
        lines.append(f"{x.name:20.20}{x.rating:8.0f}   {x.low:5.0f} to {x.high:5.0f}{x.wins:8.2f}        {against}")
    return "\n".join(lines)


if __name__ == "__main__":
    command.run(main, required=("policies",))
