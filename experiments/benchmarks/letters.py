"""Words with given letters: a task whose gold reward is known, to see what a learned reward makes of it.

A problem is three different letters of a to l, `fci:`, and an answer 6 to 12 letters. Its gold reward (`gold_of`)
counts each of the three letters at most twice, and costs 0.75 for each letter beyond two of a kind; the best is 6.
"""

from collections import Counter

from rlvr_jax.tasks.task import Example, Split, Task, draw, place_of, split_of
from rlvr_jax.verifiers.verdict import Verdict

LETTERS = "abcdefghijkl"
LOWEST, HIGHEST = -7.5, 6.0  # gold of twelve equal letters, and the best
_SHARE = 4  # one in so many letters of a demonstration is drawn from the three, the others from all
_COST = 0.75


def letters(longest: int = 12) -> Task:
    """The task; its demonstrations are noise around the three letters, with a mean gold reward of about 2.8.

    Args:
      longest: most letters of a demonstration, at least 6.
    """
    if longest < 6:
        raise ValueError(f"longest must be at least 6, not {longest}")

    def problem(split: Split, index: int) -> str:
        attempt = 0
        while True:
            rest, number, chosen = list(LETTERS), draw("letters", split, index, attempt), ""
            for _ in range(3):
                number, place = divmod(number, len(rest))
                chosen += rest.pop(place)
            if split_of("letters/" + chosen) == split:
                return chosen
            attempt += 1

    def example(split: Split, index: int) -> Example:
        chosen = problem(split, index)
        return Example(f"letters/{split}/{index}", f"{chosen}:", chosen, "letters")

    def demonstration(example: Example, index: int) -> str:
        number = draw("letters/demonstration", *place_of(example), index)
        number, extra = divmod(number, longest - 5)
        text = ""
        for _ in range(6 + extra):
            number, kind = divmod(number, _SHARE)
            choice = example.reference if kind == 0 else LETTERS
            number, place = divmod(number, len(choice))
            text += choice[place]
        return text

    verifier = "rlvr_jax.experiments.benchmarks.letters:gold"
    return Task("letters", verifier, example, lambda _split: None, demonstration, LETTERS + ":")


def gold(completion: str, reference: str) -> Verdict:
    """The gold reward as a score from 0 to 1, `LOWEST` to `HIGHEST`; longer answers than 12 letters may go below 0.

    Parts: `gold`, the gold reward itself.
    """
    value = gold_of(reference, completion)
    score = min(1.0, max(0.0, (value - LOWEST) / (HIGHEST - LOWEST)))
    return Verdict(score, {"gold": value}, answer=completion)


def gold_of(wanted: str, text: str) -> float:
    """The gold reward of an answer; characters that are no letters of a to l count for nothing."""
    counts = Counter(character for character in text if character in LETTERS)
    return sum(min(counts[x], 2) for x in wanted) - _COST * sum(max(n - 2, 0) for n in counts.values())
