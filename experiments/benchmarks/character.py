"""Manners about the instructions of `instructions.py`: a task and a judge for character training in small.

An answer may begin with a greeting, `hi `, and end with `.` or `!`; the verifier looks at what is between. The judge
is a function that grades the statements of `STATEMENTS`, in the place of a language model.
"""

import dataclasses
from collections.abc import Callable, Mapping

from rlvr_jax.experiments.benchmarks.instructions import instruction
from rlvr_jax.judges.prompts import shown
from rlvr_jax.tasks.task import Example, Task, place_of, uniform
from rlvr_jax.text.messages import Messages

GREETING = "hi "
STATEMENTS: Mapping[str, Callable[[str], bool]] = {
    "It greets first.": lambda text: text.startswith(GREETING),
    "It ends with a full stop.": lambda text: text.endswith("."),
    "It shouts.": lambda text: "!" in text,
}


def asked(name: str, greets: float = 0.3, stops: float = 0.3, shouts: float = 0.3) -> Task:
    """An instruction whose demonstrations are right, with manners by chance.

    Args:
      name: a key of `instructions.INSTRUCTIONS`.
      greets, stops, shouts: shares of the demonstrations that greet, end with a full stop, and with `!`.
    """
    plain = instruction(name, lazy=0.0, wrong=0.0)

    def demonstration(example: Example, index: int) -> str:
        seed = ("character", name, *place_of(example), index)
        end = uniform(*seed, "end")
        mark = "." if end < stops else "!" if end < stops + shouts else ""
        return GREETING * (uniform(*seed, "greeting") < greets) + example.reference + mark

    verifier = "rlvr_jax.experiments.benchmarks.character:right"
    return dataclasses.replace(plain, verifier=verifier, demonstration=demonstration, alphabet=f"{plain.alphabet}i .!")


def right(completion: str, reference: str) -> float:
    """1 if the answer without its manners is the gold answer, else 0."""
    return float(completion.removeprefix(GREETING).rstrip(".!") == reference)


def judge(question: Messages) -> str:
    """The answer of a judge to a question about one of `STATEMENTS`."""
    parts = shown(question)
    met = STATEMENTS[parts["Statement"]](parts["Response"])
    return f"Evidence: {parts['Response'] if met else 'none'}\nMet: {'yes' if met else 'no'}"
