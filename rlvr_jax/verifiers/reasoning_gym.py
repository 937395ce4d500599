"""Problems of reasoning-gym, scored by reasoning-gym where that is safe with model output.

In version 0.1.25 some of its scorers execute the answer as Python code, and some give full marks to empty answers.
These data sets are scored here, see `_OWN` and `_EXPRESSIONS` for the reasons; all other scores are the package's own,
including partial credit. The part `solved` is 1 for full marks only.
"""

import ast
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any

from rlvr_jax.tasks.reasoning_gym import import_package, isolated, problem, scorer
from rlvr_jax.text.formats import AnswerFormat
from rlvr_jax.text.tags import answer_in_tags
from rlvr_jax.verifiers import countdown
from rlvr_jax.verifiers.verdict import Verdict

MAX_LENGTH = 20_000  # characters of an answer; the longest correct ones have about 5,000
MAX_EXPRESSION = 1_000  # characters of an answer passed to sympy
MAX_BITS = 4_000  # maximum size of an expression, see `_bits`

# Fraction("1e999999999") takes all memory.
_LARGE_EXPONENT = re.compile(r"[0-9.][eE][-+]?[0-9_]{4,}")
_NUMBER = re.compile(r"[-+]?[0-9]+(?:\.[0-9]+)?")
_FUNCTIONS = frozenset(
    (
        "sin",
        "cos",
        "tan",
        "sec",
        "csc",
        "cot",
        "asin",
        "acos",
        "atan",
        "sinh",
        "cosh",
        "tanh",
        "asinh",
        "acosh",
        "atanh",
    )
) | {"exp", "log", "ln", "sqrt", "Abs"}
_NAMES = frozenset({"pi", *"abcdfghijklmnopqrstuvwxyzACEXYZ"})

_Entry = Mapping[str, Any]


def prepare() -> None:
    """Imports the package."""
    import_package()


def verify(completion: str, reference: Mapping[str, Any], *, answer_format: AnswerFormat = "answer") -> Verdict:
    """Scores the answer in the given format with its data set's scorer.

    Args:
      completion: the policy's text.
      reference: `{"dataset": "chain_sum", "settings": {"min_terms": 2, "seed": 0, "size": 500}, "index": 17}` for the
        entry `reasoning_gym.create_dataset("chain_sum", min_terms=2, seed=0, size=500)[17]`. An optional `checksum` of
        the question, see `rlvr_jax.tasks.reasoning_gym`, makes sure that it is the same one here.
      answer_format: "answer" (tags), "boxed" or "hash" (all that follows the last `####`).

    Parts: `format` (there is an answer), `solved` (full marks).

    Raises:
      ValueError: the reference is invalid, or its problem can't be generated here.
    """
    entry = problem(reference)  # first: a bad reference is an error for every completion
    answer = _answer(completion, answer_format)
    if answer is None:
        return Verdict(0.0, {"format": 0.0, "solved": 0.0}, reason=f"no answer in the format {answer_format!r}")
    nothing = {"format": 1.0, "solved": 0.0}
    try:
        score = _score(answer, entry, reference)
    except MemoryError:
        raise
    except Exception as error:  # scorers fail on answers that they can't parse
        text = f"{type(error).__name__}: {error}"[:200]
        return Verdict(0.0, nothing, answer[:MAX_LENGTH], f"not an answer to this problem ({text})")
    if not 0 <= score <= 1:
        return Verdict(0.0, nothing, answer, f"the scorer gave {score}, which is not in [0, 1]")
    solved = score == 1.0
    return Verdict(
        score, {"format": 1.0, "solved": float(solved)}, answer, "right" if solved else f"scored {score:.3g}"
    )


def _answer(text: str, answer_format: str) -> str | None:
    if answer_format == "answer":
        return answer_in_tags(text)
    if answer_format == "hash":
        _, found, answer = text.rpartition("####")
        return answer.strip() if found else None
    if answer_format != "boxed":
        raise ValueError(f"answer_format must be one of answer, boxed, hash, not {answer_format!r}")
    start = text.rfind("\\boxed{")
    depth = 0
    for place in range(start + len("\\boxed"), len(text) if start >= 0 else 0):
        depth += (text[place] == "{") - (text[place] == "}")
        if depth == 0:
            return text[start + len("\\boxed{") : place].strip()
    return None


def _score(answer: str, entry: _Entry, reference: Mapping[str, Any]) -> float:
    """The score; raises ValueError, or any error of a scorer, for an answer of another form."""
    name = reference["dataset"]
    if len(answer) > MAX_LENGTH:
        raise ValueError(f"{len(answer)} characters, more than {MAX_LENGTH}")
    if _LARGE_EXPONENT.search(answer):
        raise ValueError("an exponent of more than three digits")
    if name in _OWN:
        return float(_OWN[name](answer, entry))
    if name in _EXPRESSIONS:
        check_expression(answer)
    elif name in _NUMBERS_ONLY and re.search(r"nan|inf", answer, re.IGNORECASE):
        raise ValueError("nan and inf are not numbers")
    elif name == "gsm_symbolic" and not _NUMBER.fullmatch(answer.replace(",", "").strip("$% .")):
        raise ValueError("not one number")  # its scorer takes the first of several
    with isolated(0):
        return float(scorer(reference).score_answer(answer, entry))


def _exact(answer: str, entry: _Entry) -> bool:
    return answer == entry["answer"].strip()


def _same_word(answer: str, entry: _Entry) -> bool:
    return answer.casefold() == entry["answer"].casefold()


def _board(answer: str, entry: _Entry) -> bool:
    return answer in [board.strip() for board in entry["metadata"]["valid_answers"]]


def _target(answer: str, entry: _Entry) -> bool:
    numbers, target = entry["metadata"]["numbers"], entry["metadata"].get("target", 24)
    return countdown.verify(answer, {"numbers": list(map(int, numbers)), "target": int(target)}).score == 1.0


def _probability(answer: str, entry: _Entry) -> bool:
    if len(answer) > 100:
        raise ValueError("not a probability")
    return abs(Fraction(answer.replace(",", "")) - Fraction(entry["answer"])) <= Fraction(1, 10_000)


# Data sets that are scored here, because the package's scorer
_OWN: Mapping[str, Callable[[str, _Entry], bool]] = {
    # runs the answer as Python code (`eval`), to give part of the marks to a list in Python's notation;
    "binary_matrix": _exact,
    "spiral_matrix": _exact,
    "string_insertion": _exact,
    "n_queens": _board,
    # does so by way of sympy; and takes any four numbers for those of puzzle24, such as 6*4*1*1;
    "countdown": _target,
    "puzzle24": _target,
    # gives full marks to everything that is not empty;
    "game_of_life_halting": _same_word,
    # gives full marks to a beginning of the right number: 0 for 0.375.
    "coin_flip": _probability,
}
# These read the answer with sympy's `parse_expr`, which runs it as Python code: only formulas get that far. They also
# accept an integral that is left as one, Integral(f, x), as its own solution.
_EXPRESSIONS = frozenset({"simple_integration", "intermediate_integration", "polynomial_multiplication"})
# Distances from nan are not large, so these give it full marks.
_NUMBERS_ONLY = frozenset({"complex_arithmetic", "number_sorting", "polynomial_equations"})


def check_expression(text: str) -> None:
    """Accepts only formulas of numbers, one-letter names and elementary functions, of bounded size.

    Raises:
      ValueError: for anything else, with the reason.
    """
    if len(text) > MAX_EXPRESSION:
        raise ValueError(f"{len(text)} characters, more than {MAX_EXPRESSION}")
    try:
        tree = ast.parse(text.strip(), mode="eval")
        size = _bits(tree.body)
    except (SyntaxError, UnicodeEncodeError, RecursionError, MemoryError) as error:
        raise ValueError(f"not a formula: {type(error).__name__}") from None
    if size > MAX_BITS:
        raise ValueError(f"the formula gets too large ({size:.3g} bits)")


def _bits(node: ast.expr) -> float:
    """A bound on the digits of the value, in bits, a name counting as a small number; powers multiply them.

    Raises:
      ValueError: the node is not part of a formula.
    """
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool):
            return float(value.bit_length()) if isinstance(value, int) else 53.0
        case ast.Name(id=name) if name in _NAMES:
            return 2.0
        case ast.UnaryOp(op=ast.USub() | ast.UAdd(), operand=operand):
            return _bits(operand)
        case ast.BinOp(op=ast.Add() | ast.Sub() | ast.Mult() | ast.Div(), left=left, right=right):
            return _bits(left) + _bits(right) + 1
        case ast.BinOp(op=ast.Pow(), left=left, right=right):
            return (_bits(left) + 1) * 2 ** min(_bits(right), 64.0)
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in _FUNCTIONS:
            return _bits(argument) + 2
    raise ValueError(f"not a formula: {ast.unparse(node)[:50]}")
