"""Sums of the digits of several numbers: independent parts of a problem, whose work does not fit into one turn.

The prompt `a3867b7240c1159=` asks for `#436`, for each number the sum of its digits modulo 10. A small transformer
copies a number and writes its running sums, `3867174#4` for the first; for all numbers that would be 25 tokens.

With calls of the policy by itself (`rlvr_jax.envs.subcalls`) the turn `<a><b><c>` asks for each number in a window of
its own, `a3867b7240c1159=a:`. The demonstrations ask for none, some or all of the numbers, whether they need it or not,
and guess the others.
"""

import re
from itertools import accumulate

from rlvr_jax.tasks.task import Example, Split, Task, draw, split_of, uniform
from rlvr_jax.text.messages import Messages

LABELS = "abcdefghi"
ALPHABET = f"{LABELS}0123456789=:#<>|"
MARKS = ("<", ">")
PROMPT, OBSERVATION = "{problem}{}:", "{}|"  # the options `prompt` and `observation` of `subcalls`
_ALONE = 0.5  # share of the demonstrations for one number that do not ask
_MOST_DRAWS = 10_000


def worked(number: str) -> str:
    """A number, its running sums from the second digit on, and its answer."""
    sums = [total % 10 for total in accumulate(map(int, number))]
    return number + "".join(map(str, sums[1:])) + f"#{sums[-1]}"


def _numbers(problem: str) -> list[str]:
    """The numbers of the text of a problem."""
    return re.findall("[0-9]+", problem.partition("=")[0])


def digit_sums(numbers: int = 3, digits: int = 4, show: str = "problems") -> Task:
    """The task of the sums of several numbers.

    Args:
      numbers: of a problem, 1 to 9.
      digits: of a number, which may start with zeros; 2 to 9.
      show: "problems"; or "questions", the windows in which one number of a problem is asked for, to be demonstrated,
        none of them held out.

    Raises:
      ValueError: an argument is out of range.
    """
    if not (1 <= numbers <= 9 and 2 <= digits <= 9):
        raise ValueError(
            f"digit_sums: numbers must be from 1 to 9 and digits from 2 to 9, not numbers = {numbers} and digits = "
            f"{digits}"
        )
    if show not in ("problems", "questions"):
        raise ValueError(f"digit_sums: show must be 'problems' or 'questions', not {show!r}")

    def problem(split: Split, index: int) -> str:
        if index < 0:
            raise IndexError(f"digit_sums: index must be at least 0, not {index}")
        for attempt in range(_MOST_DRAWS):
            drawn = str(draw("digit_sums", split, index, attempt) % 10 ** (numbers * digits)).zfill(numbers * digits)
            found = "".join(f"{LABELS[i]}{drawn[i * digits : (i + 1) * digits]}" for i in range(numbers))
            if split_of(f"digit_sums/{found}") == split:
                return f"{found}="
        raise ValueError(f"digit_sums: no problem belongs to the split {split!r}")

    def example(split: Split, index: int) -> Example:
        prompt = problem(split, index)
        answer = "".join(worked(number)[-1] for number in _numbers(prompt))
        return Example(f"digit_sums/{split}/{index}", prompt, answer, "digit_sums")

    def question(split: Split, index: int) -> Example:
        whole, asked = problem(split, index), draw("digit_sums", "question", split, index) % numbers
        prompt = PROMPT.replace("{problem}", whole).replace("{}", LABELS[asked])
        return Example(f"digit_sums/{split}/{index}", prompt, worked(_numbers(whole)[asked])[-1], "digit_sums")

    def demonstration(example: Example, index: int) -> Messages | str:
        if show == "questions":
            return worked(_numbers(example.prompt)[LABELS.index(example.prompt[-2])])
        found, name = _numbers(example.prompt), ("digit_sums", example.id, index)
        drawn, number = divmod(draw(*name), numbers + 1)
        if numbers == 1:
            number = int(uniform(*name, "alone") >= _ALONE)
            if not number:
                return worked(found[0])
        guesses = str(drawn % 10**numbers).zfill(numbers)
        said = "#" + example.reference[:number] + guesses[number:]
        if not number:
            return said
        asked = "".join(label.join(MARKS) for label in LABELS[:number])
        told = "".join(OBSERVATION.replace("{}", worked(x)) for x in found[:number])
        return (
            {"role": "assistant", "content": asked},
            {"role": "user", "content": told},
            {"role": "assistant", "content": said},
        )

    verifier = "rlvr_jax.verifiers.modsum:verify_sums"
    if show == "questions":
        return Task("digit_sums", verifier, question, lambda x: None if x == "train" else 0, demonstration, ALPHABET)
    return Task("digit_sums", verifier, example, lambda _split: None, demonstration, ALPHABET)
