"""Sums of small numbers in words, for small pretrained models.

The answer follows `####`, as in GSM8K, whose verifier judges it. A demonstration writes the equation first.
"""

from rlvr_jax.tasks.task import Example, Split, Task, draw, place_of, split_of

_MOST_DRAWS = 1_000


def sums(digits: int = 1, terms: int = 2, heldout_share: float = 0.3) -> Task:
    """The task of adding `terms` numbers of `digits` digits; its splits share no problem.

    Args:
      digits: of each number, 1 to 9; the first is not 0.
      terms: numbers to add, at least 2.
      heldout_share: share of the problems that are held out.

    Raises:
      ValueError: an argument is out of range.
    """
    if not (1 <= digits <= 9 and terms >= 2):
        raise ValueError(f"sums: digits must be from 1 to 9 and terms at least 2, not {digits} and {terms}")
    if not 0 < heldout_share < 1:
        raise ValueError(f"sums: heldout_share must be between 0 and 1, not {heldout_share}")

    def numbers(split: Split, index: int) -> list[int]:
        if index < 0:
            raise IndexError(f"sums: index must be at least 0, not {index}")
        smallest, many = 10 ** (digits - 1), 9 * 10 ** (digits - 1)
        for attempt in range(_MOST_DRAWS):
            found = [smallest + draw("sums", split, index, attempt, term) % many for term in range(terms)]
            if split_of(f"sums/{found}", heldout_share) == split:
                return found
        raise ValueError(f"sums: {_MOST_DRAWS} problems were drawn and none belongs to the split {split!r}")

    def example(split: Split, index: int) -> Example:
        found = numbers(split, index)
        question = f"What is {' + '.join(map(str, found))}? Write the answer after ####.\n"
        return Example(f"sums/{split}/{index}", question, str(sum(found)), "sums")

    def demonstration(given: Example, index: int) -> str:
        del index  # each problem has one
        found = numbers(*place_of(given))
        return f"{' + '.join(map(str, found))} = {sum(found)}\n#### {sum(found)}"

    return Task("sums", "gsm8k", example, lambda _split: None, demonstration)
