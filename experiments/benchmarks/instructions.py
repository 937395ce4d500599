"""Five instructions about a few letters: tasks for a small model of the chain SFT, DPO, RLVR (docs/tulu.md).

A problem is an instruction, a capital letter, and five letters of a to h: `R:hadgb=`. The demonstrations are of mixed
quality, as instruction data is: a share of them just repeats the letters, which is right for one instruction of the
five, and in others a letter is wrong.
"""

import itertools
from collections.abc import Callable, Mapping

from rlvr_jax.tasks.task import Example, Split, Task, draw, place_of, split_of, uniform

LETTERS = "abcdefgh"
INSTRUCTIONS: Mapping[str, Callable[[str], str]] = {
    "copy": lambda text: text,
    "reverse": lambda text: text[::-1],
    "sort": lambda text: "".join(sorted(text)),
    "next": lambda text: "".join(LETTERS[(LETTERS.index(x) + 1) % len(LETTERS)] for x in text),
    "pairs": lambda text: "".join(x + y for x, y in itertools.pairwise(text)),
}
_LENGTH = 5


def instruction(name: str, lazy: float = 0.55, wrong: float = 0.1) -> Task:
    """The task of one instruction.

    Args:
      name: a key of `INSTRUCTIONS`.
      lazy: share of the demonstrations that repeat the letters.
      wrong: share of the others in which one letter is another one.
    """
    if name not in INSTRUCTIONS:
        raise ValueError(f"there is no instruction {name!r}; there are {', '.join(INSTRUCTIONS)}")
    if not (0 <= lazy <= 1 and 0 <= wrong <= 1):
        raise ValueError(f"lazy = {lazy} and wrong = {wrong} must be from 0 to 1")

    def problem(split: Split, index: int) -> str:
        attempt = 0
        while True:
            number, text = draw("instructions", name, split, index, attempt), ""
            for _ in range(_LENGTH):
                number, place = divmod(number, len(LETTERS))
                text += LETTERS[place]
            if split_of("instructions/" + text) == split:  # of all instructions alike
                return text
            attempt += 1

    def example(split: Split, index: int) -> Example:
        text = problem(split, index)
        return Example(f"{name}/{split}/{index}", f"{name[0].upper()}:{text}=", INSTRUCTIONS[name](text), name)

    def demonstration(example: Example, index: int) -> str:
        seed = ("instructions/demonstration", name, *place_of(example), index)
        if uniform(*seed, "lazy") < lazy:
            return problem(*place_of(example))
        answer = example.reference
        if uniform(*seed, "wrong") < wrong:
            number, place = divmod(draw(*seed), len(answer))
            other = [x for x in LETTERS if x != answer[place]][number % (len(LETTERS) - 1)]
            answer = answer[:place] + other + answer[place + 1 :]
        return answer

    alphabet = LETTERS + ":=" + "".join(x[0].upper() for x in INSTRUCTIONS)
    return Task(
        name,
        "rlvr_jax.experiments.benchmarks.instructions:exact",
        example,
        lambda _split: None,
        demonstration,
        alphabet,
    )


def exact(completion: str, reference: str) -> float:
    """1 if the answer is the gold answer, else 0."""
    return float(completion == reference)
