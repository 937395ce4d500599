"""ModSum: the sum of the digits of a number, modulo 10. A task that rewards a scratchpad.

The prompt is `680845=` and the answer `#1`. A small transformer can't sum six digits directly, but it can write the
running sums. The demonstrations mix both, so that a warm-started policy does both and reinforcement learning can find
the one that works.
"""

from rlvr_jax.tasks.task import Example, Split, Task, draw, split_of, uniform

ALPHABET = "0123456789=#"
_MOST_DRAWS = 10_000


def modsum(digits: int = 6, direct_share: float = 0.6) -> Task:
    """The task of summing `digits` digits modulo 10.

    Args:
      digits: length of the number, 1 to 100; it may start with zeros.
      direct_share: share of the demonstrations that answer directly (`#1`). The others first write the running
        sums modulo 10, from the second on (`44261#1` for `680845=`).

    Raises:
      ValueError: an argument is out of range.
    """
    if not 1 <= digits <= 100:
        raise ValueError(f"modsum: digits must be from 1 to 100, not {digits}")
    if not 0 <= direct_share <= 1:
        raise ValueError(f"modsum: direct_share must be from 0 to 1, not {direct_share}")

    def problem(split: Split, index: int) -> str:
        if index < 0:
            raise IndexError(f"modsum: index must be at least 0, not {index}")
        for attempt in range(_MOST_DRAWS):
            number = str(draw("modsum", split, index, attempt) % 10**digits).zfill(digits)
            if split_of("modsum/" + number) == split:
                return number
        raise ValueError(f"modsum: no problem belongs to the split {split!r}")

    def example(split: Split, index: int) -> Example:
        number = problem(split, index)
        return Example(f"modsum/{split}/{index}", f"{number}=", str(sum(map(int, number)) % 10), "modsum")

    def demonstration(example: Example, index: int) -> str:
        answer = "#" + example.reference
        if uniform("modsum", "demonstration", example.id, index) < direct_share:
            return answer
        first, *rest = map(int, example.prompt.removesuffix("="))
        written, total = "", first
        for digit in rest:
            total = (total + digit) % 10
            written += str(total)
        return written + answer

    return Task("modsum", "modsum", example, lambda _split: None, demonstration, ALPHABET)
