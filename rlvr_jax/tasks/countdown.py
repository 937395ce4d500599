"""Countdown: combine the given numbers, each exactly once, into an expression that reaches the target.

The prompt lists the numbers and, after `>`, the target: `3,8,5>6:` is answered by `3+8-5`. The target is the value of a
random expression over the numbers, so every problem can be solved. After the game show, as a reinforcement-learning
task in TinyZero (https://github.com/Jiayi-Pan/TinyZero).
"""

from rlvr_jax.tasks.task import Example, Split, Task, draw, place_of, split_of, uniform

_MOST_DRAWS = 10_000
_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2}
_LEAF = 3


def countdown(numbers: int = 3, largest: int = 9, operators: str = "+-", right_share: float = 0.1) -> Task:
    """The task of reaching a target, a non-negative integer, with `numbers` numbers.

    Problems that differ only in the order of the numbers are always in the same split.

    Args:
      numbers: of a problem, 2 to 8.
      largest: the numbers are drawn from 1 to this, at most a million.
      operators: those of `+-*/` that the expressions of the targets may use. Quotients are integers. With `*` or `/`
        expressions have parentheses where precedence needs them.
      right_share: share of the demonstrations that reach the target; the others are random expressions over the
        numbers that miss it (unless none does: `1*1`).

    Raises:
      ValueError: an argument is out of range, or there are too few problems to hold some out.
    """
    if not 2 <= numbers <= 8:
        raise ValueError(f"countdown: numbers must be from 2 to 8, not {numbers}")
    if not 1 <= largest <= 10**6:
        raise ValueError(f"countdown: largest must be from 1 to 1000000, not {largest}")
    if not set(operators) <= set(_PRECEDENCE) or len(set(operators)) < len(operators):
        raise ValueError(f"countdown: operators must be different ones of '+-*/', not {operators!r}")
    if not set(operators) - {"/"}:
        raise ValueError(f"countdown: operators must hold one of '+-*', {operators!r} holds none")
    if not 0 <= right_share <= 1:
        raise ValueError(f"countdown: right_share must be from 0 to 1, not {right_share}")

    def problem(split: Split, index: int) -> tuple[list[int], str, int]:
        """The numbers in the order of the prompt, a correct expression, and the target."""
        if index < 0:
            raise IndexError(f"countdown: index must be at least 0, not {index}")
        for attempt in range(_MOST_DRAWS):
            bits, values = draw("countdown", split, index, attempt), []
            for _ in range(numbers):
                bits, value = divmod(bits, largest)
                values.append(value + 1)
            text, target = _expression(bits, values, operators)
            if target >= 0 and split_of(f"countdown/{sorted(values)}/{target}") == split:
                return values, text, target
        raise ValueError(
            f"countdown: found no problem of split {split!r} with numbers={numbers}, largest={largest}, "
            f"operators={operators!r}"
        )

    def example(split: Split, index: int) -> Example:
        values, _, target = problem(split, index)
        return Example(
            id=f"countdown/{split}/{index}",
            prompt=f"{','.join(map(str, values))}>{target}:",
            reference={"numbers": values, "target": target},
            task="countdown",
        )

    def demonstration(example: Example, index: int) -> str:
        values, right, target = problem(*place_of(example))
        if uniform("countdown", "demonstration", example.id, index) < right_share:
            return right
        for attempt in range(_MOST_DRAWS // 100):
            text, value = _expression(draw("countdown", "miss", example.id, index, attempt), values, operators)
            if value != target:
                return text
        return right

    problem("train", 0)  # small numbers give few problems, so one split may be empty: fail early
    problem("heldout", 0)
    return Task("countdown", "countdown", example, lambda _split: None, demonstration, alphabet(operators))


def alphabet(operators: str = "+-") -> str:
    """The characters of prompts and expressions."""
    return "0123456789,>:" + operators + ("()" if set(operators) & set("*/") else "")


def _expression(bits: int, values: list[int], operators: str) -> tuple[str, int]:
    """A random expression over all `values`, drawn from the random integer `bits`, and its value.

    The numbers are shuffled, then adjacent ones are joined by random operators until one expression is left. With only
    `+` and `-` the leftmost two are joined, which needs no parentheses; otherwise any adjacent two.
    """
    values = list(values)
    terms = []
    while values:
        bits, place = divmod(bits, len(values))
        value = values.pop(place)
        terms.append((str(value), value, _LEAF))
    anywhere = bool(set(operators) & set("*/"))
    while len(terms) > 1:
        place = 0
        if anywhere:
            bits, place = divmod(bits, len(terms) - 1)
        (left, a, left_precedence), (right, b, right_precedence) = terms[place : place + 2]
        possible = [operator for operator in operators if operator != "/" or (b != 0 and a % b == 0)]
        bits, choice = divmod(bits, len(possible))
        operator = possible[choice]
        precedence = _PRECEDENCE[operator]
        if left_precedence < precedence:
            left = f"({left})"
        # a-(b+c) and a/(b*c) need them, a+(b-c) and a*(b/c) don't
        if right_precedence < precedence or (right_precedence == precedence and operator in "-/"):
            right = f"({right})"
        value = {"+": a + b, "-": a - b, "*": a * b, "/": a // b if operator == "/" else 0}[operator]
        terms[place : place + 2] = [(left + operator + right, value, precedence)]
    text, value, _ = terms[0]
    return text, value
