"""Frontiers of accuracy over cost of routers that pick a policy for each prompt.

    rlvr route --policies=small=runs/small,large=runs/large --prices=1,8 --suite=small --output=routing.json

A policy is the workdir of a run that `rlvr evaluate` has evaluated, or the file of an evaluation. The cost of an answer
is its tokens times --prices of the policy (1 without it; parameters are a fair choice). Routers are fitted on half of
the problems and measured on the others: a mixture that does not look, one by task, one by the words of the prompt
(logistic regression), and the oracle, which knows who is right.
"""

import json
from dataclasses import asdict
from pathlib import Path

from absl import flags

from rlvr_jax.errors import ConfigError

from . import command

_POLICIES = flags.DEFINE_list("policies", [], "Evaluated runs or files of evaluations, or NAME=them; two at least.")
_SUITE = flags.DEFINE_string("suite", "", "Suite that the runs were evaluated on; empty for their own tasks.")
_PRICES = flags.DEFINE_list("prices", [], "Price per token of each policy, in order.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the split of the problems.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON file of the frontiers; a picture is drawn beside it.")


def main() -> None:
    import numpy as np

    from rlvr_jax.evaluation import mean_and_interval
    from rlvr_jax.evaluation.results import files_of, in_common, notes, read_results
    from rlvr_jax.evaluation.routing import accuracy_at, frontiers, is_heldout
    from rlvr_jax.judges.prompts import text_of
    from rlvr_jax.reporting.frontiers import frontiers_png

    results = [read_results(source, Path(_SUITE.value).stem) for source in _POLICIES.value]
    if len(results) < 2:
        raise ConfigError("--policies: routing needs two at least")
    prices = prices_of(_PRICES.value, len(results))
    output = command.file_to_write("output", _OUTPUT.value, (".png",), files_of(_POLICIES.value))
    problems = in_common(results)
    rows = [[x.rows[problem] for x in results] for problem in problems]
    right = np.array([[float(row["score"] == 1) for row in of] for of in rows])
    cost = np.array([[row["length"] for row in of] for of in rows], float) * np.array(prices)
    heldout = is_heldout([f"{task}: {id}" for task, id in problems], _SEED.value)
    try:
        found = frontiers(
            right, cost, [task for task, _ in problems], [text_of(of[0]["problem"]) for of in rows], heldout
        )
    except ValueError as error:
        raise ConfigError(f"{error}: the evaluations have {len(problems)} problems in common") from error
    print(
        *notes(results),
        f"{int(heldout.sum())} held-out problems of {len(problems)}; cost of an answer in tokens times price",
        sep="\n",
    )
    print(f"{'policy':20}{'cost':>10}{'accuracy':>10}   95 % interval")
    singles = {}
    for i, x in enumerate(results):
        mean, low, high = mean_and_interval(right[heldout, i].tolist())
        singles[x.name] = (float(cost[heldout, i].mean()), mean)
        print(f"{x.name:20.20}{singles[x.name][0]:10.1f}{mean:10.3f}   {low:.3f} to {high:.3f}")
    print(f"\n{'router':20}" + "".join(f"{'at ' + x.name:>16.16}" for x in results) + f"{'best':>10}{'its cost':>10}")
    for x in found:
        at = "".join(f"{accuracy_at(x, singles[y.name][0]):16.3f}" for y in results)
        print(f"{x.name:20}{at}{x.points[-1].accuracy:10.3f}{x.points[-1].cost:10.1f}")
    if output:
        plain = {"policies": singles, "frontiers": [asdict(x) for x in found], "heldout": int(heldout.sum())}
        picture = frontiers_png(found, singles)
        command.write_files({output: json.dumps(plain, indent=1).encode(), output.with_suffix(".png"): picture})
        print(f"picture: {output.with_suffix('.png')}")


def prices_of(texts: list[str], count: int) -> list[float]:
    """The prices. Raises ConfigError if there are not as many as policies, or one is no number above 0."""
    try:
        prices = [float(text) for text in texts] or [1.0] * count
    except ValueError:
        prices = []
    if len(prices) != count or not all(0 < price < float("inf") for price in prices):
        raise ConfigError(f"--prices={','.join(texts)}: give a number above 0 for each of the {count} policies")
    return prices


if __name__ == "__main__":
    command.run(main, required=("policies",))
