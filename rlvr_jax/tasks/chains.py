"""Running sums modulo 10 of a number in which some digits are not 0, whose count is the difficulty.

The prompt is `030900=`, and the answer the whole chain `33222#2`: the running sums from the second digit on, and the
last one again. Each non-zero digit is one addition. With demonstrations of one and two additions a small transformer
solves a part of those with three and four, and hardly any with six: problems for a curriculum.
"""

from rlvr_jax.tasks.modsum import ALPHABET
from rlvr_jax.tasks.task import Example, Split, Task, draw, split_of

_MOST_DRAWS = 10_000


def chains(digits: int = 6, nonzero: int = 0) -> Task:
    """The task of writing the running sums of a number. The demonstration is the answer.

    Args:
      digits: length of the number, 2 to 20.
      nonzero: digits that are not 0; 0 for any number of them, drawn with the same chance, which is the problem's
        level.

    Raises:
      ValueError: an argument is out of range.
    """
    if not 2 <= digits <= 20:
        raise ValueError(f"chains: digits must be from 2 to 20, not {digits}")
    if not 0 <= nonzero <= digits:
        raise ValueError(f"chains: nonzero must be from 0 to {digits}, the number of digits, not {nonzero}")

    def problem(split: Split, index: int) -> str:
        if index < 0:
            raise IndexError(f"chains: index must be at least 0, not {index}")
        count = nonzero or 1 + draw("chains", "level", split, index) % digits
        for attempt in range(_MOST_DRAWS):
            bits = draw("chains", split, index, count, attempt)
            places, number = list(range(digits)), ["0"] * digits
            for _ in range(count):
                bits, place = divmod(bits, len(places))
                bits, digit = divmod(bits, 9)
                number[places.pop(place)] = str(digit + 1)
            if split_of("chains/" + "".join(number)) == split:
                return "".join(number)
        raise ValueError(f"chains: no problem with {count} of {digits} digits belongs to the split {split!r}")

    def example(split: Split, index: int) -> Example:
        number = problem(split, index)
        sums = [sum(map(int, number[:end])) % 10 for end in range(2, digits + 1)]
        chain = "".join(map(str, sums)) + f"#{sums[-1]}"
        level = "" if nonzero else str(digits - number.count("0"))
        return Example(f"chains/{split}/{index}", f"{number}=", chain, "chains", level=level)

    levels = () if nonzero else tuple(map(str, range(1, digits + 1)))
    verifier = "rlvr_jax.verifiers.modsum:verify_chain"
    demonstration = lambda example, _: example.reference  # noqa: E731
    return Task("chains", verifier, example, lambda _split: None, demonstration, ALPHABET, levels=levels)
