"""The biases of a judge, measured on pairs whose better response is known: for a position, and for length."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from rlvr_jax.evaluation.estimators import mean_and_interval
from rlvr_jax.judges.judge import Comparer, Judge, Pair, Sample


@dataclass(frozen=True)
class Known:
    """A problem with a right response, the same padded with words that add nothing, and a wrong one."""

    problem: str
    right: str
    padded: str
    wrong: str


def fixture(count: int = 24) -> list[Known]:
    """Sums of two numbers. Their right, padded and wrong answers differ in nothing else."""
    found = []
    for i in range(count):
        a, b = 11 + 17 * i % 83, 7 + 29 * i % 89
        padding = (
            f"Let us look at it calmly. What is asked for is the sum of {a} and {b}; a sum is what comes of adding. "
            f"Adding {b} to {a} is what we do here, and having done it we have what was asked for.\n{a + b}"
        )
        known = Known(f"What is {a} + {b}?", str(a + b), padding, str(a + b + (1 if i % 2 else -10)))
        found.append(known)
    return found


def compared_bias(compare: Comparer, known: Sequence[Known]) -> dict[str, float]:
    """The position and length bias of a judge of pairs.

    `first_shown`: the mean preference for the response that is shown first, 0.5 without a bias (with its interval).
    `consistent`: share of pairs that get the same preference in both orders. `padded`: the mean preference for the
    padded response over the same one without padding, 0.5 without a bias. `right`: the mean preference for the right
    response over the wrong one. `unjudged`: pairs without an answer in one order.
    """
    orders = [Pair(x.problem, *(y if i % 2 else y[::-1])) for i, x in enumerate(known) for y in [(x.right, x.wrong)]]
    against_wrong = compare(orders)
    against_padded = compare([Pair(x.problem, x.padded, x.right) for x in known])
    every = np.concatenate([against_wrong, against_padded])
    first_is_right = np.arange(len(known)) % 2 == 1
    right = np.where(first_is_right[:, None], against_wrong, 1 - against_wrong)
    answered = every[np.isfinite(every).all(1)]
    found = {"unjudged": float(len(every) - len(answered)), "pairs": float(len(every))}
    found |= _mean("first_shown", (answered[:, 0] + 1 - answered[:, 1]) / 2)
    found |= _mean("consistent", (answered[:, 0] == answered[:, 1]).astype(float))
    found |= _mean("padded", _of_both(against_padded))
    return found | _mean("right", _of_both(right))


def scored_bias(judge: Judge, known: Sequence[Known]) -> dict[str, float]:
    """The length bias of a judge of single samples, and whether it tells right from wrong.

    `score_right`, `score_padded`, `score_wrong`: mean scores. `padding`: mean change of the score by padding, 0 without
    a bias, with its 95 % normal interval. `right`: share of problems whose right response scores above the wrong one,
    ties counting half.
    """
    kinds = ("right", "padded", "wrong")
    samples = [Sample(x.problem, getattr(x, kind)) for kind in kinds for x in known]
    verdicts = judge(samples)
    scores = np.array([np.nan if v.error else v.score for v in verdicts]).reshape(3, -1)
    judged = scores[:, np.isfinite(scores).all(0)]
    found = {"unjudged": float(sum(v.error is not None for v in verdicts)), "samples": float(len(verdicts))}
    if not judged.size:
        return found
    found |= {f"score_{kind}": float(np.mean(row)) for kind, row in zip(kinds, judged, strict=True)}
    change = judged[1] - judged[0]
    half = 1.96 * float(np.std(change, ddof=1) / np.sqrt(len(change))) if len(change) > 1 else np.inf
    found |= {
        "padding": float(change.mean()),
        "padding_low": change.mean() - half,
        "padding_high": change.mean() + half,
    }
    return found | _mean("right", (np.sign(judged[0] - judged[2]) + 1) / 2)


def _of_both(compared: Float[np.ndarray, "pairs 2"]) -> Float[np.ndarray, "judged"]:
    return np.mean(compared[np.isfinite(compared).all(1)], axis=1)


def _mean(name: str, values: Float[np.ndarray, "n"]) -> dict[str, float]:
    if not values.size:
        return {}
    mean, low, high = mean_and_interval(values.tolist())
    return {name: mean, f"{name}_low": low, f"{name}_high": high}
