"""Sums of the digits of several numbers: independent parts of a problem.

The prompt `3867.7240.1159=` asks for `#436`, for each number the sum of its digits modulo 10. A small transformer needs
running sums for that, `174#4` for the first number. With recursive self-calls (`rlvr_jax.envs.subcalls`) the
turn `<3867><7240><1159>` asks for each number in a window of its own, and `174#4|933#3|276#6|` is what it reads.

The demonstrations answer a single number with its running sums, or ask for it first, which is not needed. For several
numbers they ask for none, some or all, and guess the others.
"""

from itertools import accumulate

from rlvr_jax.tasks.task import Example, Split, Task, draw, split_of, uniform
from rlvr_jax.text.messages import Messages

ALPHABET = "0123456789.=#<>|"
MARKS = ("<", ">")
PROMPT, OBSERVATION = "{}=", "{}|"  # the options `prompt` and `observation` of `subcalls`
_ALONE = 0.5  # share of the demonstrations for one number that do not ask
_MOST_DRAWS = 10_000


def worked(number: str) -> str:
    """The running sums of a number, from the second digit on, and its answer."""
    sums = [total % 10 for total in accumulate(map(int, number))]
    return "".join(map(str, sums[1:])) + f"#{sums[-1]}"


def digit_sums(numbers: int = 3, digits: int = 4) -> Task:
    """The task of the sums of several numbers.

    Args:
      numbers: of a problem, 1 to 9.
      digits: of a number, which may start with zeros; 2 to 9.

    Raises:
      ValueError: an argument is out of range.
    """
    if not (1 <= numbers <= 9 and 2 <= digits <= 9):
        raise ValueError(
            f"digit_sums: numbers must be from 1 to 9 and digits from 2 to 9, not numbers = {numbers} and digits = "
            f"{digits}"
        )

    def example(split: Split, index: int) -> Example:
        if index < 0:
            raise IndexError(f"digit_sums: index must be at least 0, not {index}")
        for attempt in range(_MOST_DRAWS):
            drawn = str(draw("digit_sums", split, index, attempt) % 10 ** (numbers * digits)).zfill(numbers * digits)
            found = [drawn[i : i + digits] for i in range(0, len(drawn), digits)]
            problem = ".".join(found)
            if split_of(f"digit_sums/{problem}") == split:
                answer = "".join(worked(number)[-1] for number in found)
                return Example(f"digit_sums/{split}/{index}", f"{problem}=", answer, "digit_sums")
        raise ValueError(f"digit_sums: no problem belongs to the split {split!r}")

    def demonstration(example: Example, index: int) -> Messages | str:
        found, name = example.prompt[:-1].split("."), ("digit_sums", example.id, index)
        drawn, number = divmod(draw(*name), numbers + 1)
        if numbers == 1:
            number = int(uniform(*name, "alone") >= _ALONE)
            if not number:
                return worked(found[0])
        guesses = str(drawn % 10**numbers).zfill(numbers)
        said = "#" + example.reference[:number] + guesses[number:]
        if not number:
            return said
        return (
            {"role": "assistant", "content": "".join(x.join(MARKS) for x in found[:number])},
            {"role": "user", "content": "".join(OBSERVATION.replace("{}", worked(x)) for x in found[:number])},
            {"role": "assistant", "content": said},
        )

    verifier = "rlvr_jax.verifiers.modsum:verify_sums"
    return Task("digit_sums", verifier, example, lambda _split: None, demonstration, ALPHABET)
