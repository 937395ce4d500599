"""Answer formats: after `####`, in `\\boxed{}` or in `<answer>` tags."""

from collections.abc import Mapping
from typing import Any, Literal, get_args

AnswerFormat = Literal["hash", "boxed", "answer"]
Grader = Literal["rlvr_jax", "math_verify"]

_PLACES = {"hash": "on the last line after ####", "boxed": "in \\boxed{}", "answer": "in <answer> </answer> tags"}
_WRITTEN = {"hash": "#### {}", "boxed": "\\boxed{{{}}}", "answer": "<answer>{}</answer>"}

# For programming tasks; the verifier takes the last block.
CODE = "Answer with the program in one block of Python code, between ```python and ```."


def instruction(answer_format: AnswerFormat, answer: str = "the answer") -> str:
    """The instruction to reason and then give `answer` in this format.

    Raises:
      ValueError: there is no such format.
    """
    if answer_format not in _PLACES:
        raise ValueError(f"answer_format must be one of {', '.join(_PLACES)}, not {answer_format!r}")
    return f"Reason step by step. Write {answer} {_PLACES[answer_format]}."


def written(answer_format: AnswerFormat, answer: str) -> str:
    """The answer in the format: `\\boxed{72}`."""
    return _WRITTEN[answer_format].format(answer)


def verifier_options(kind: str, answer_format: AnswerFormat, grader: Grader) -> Mapping[str, Any]:
    """The options of a `gsm8k` or `math` verifier for answers in this format.

    Raises:
      ValueError: there is no such grader.
    """
    if grader not in get_args(Grader):
        raise ValueError(f"grader must be one of {', '.join(get_args(Grader))}, not {grader!r}")
    if grader == "math_verify":
        return {"grader": grader}
    return {} if kind == "gsm8k" else {"formats": (answer_format,)}


def prompt(problem: str, instruction: str) -> str:
    """The problem, the instruction on a line of its own, and a line break before the completion."""
    return f"{problem}\n{instruction}\n" if instruction else f"{problem}\n"


def code_block(program: str) -> str:
    """The program in the format of `CODE`."""
    return f"```python\n{program.rstrip()}\n```"
