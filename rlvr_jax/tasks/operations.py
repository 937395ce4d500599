"""Operations on the digits of a number, some of which need a plan and others do not.

The prompt `S680845=` asks for the sum of the digits modulo 10 (S), their maximum (M), the first (F) or the last (L).
The policy answers at once, `#1`, or after a plan in brackets, `[44261]#1`: the values of the operation from the second
digit on. A small transformer can't sum six digits without it, and can do the others. The demonstrations ignore that.
"""

from collections.abc import Callable, Mapping
from itertools import accumulate

from rlvr_jax.tasks.task import Example, Split, Task, draw, split_of, uniform

OPERATIONS: Mapping[str, Callable[[int, int], int]] = {
    "S": lambda before, digit: (before + digit) % 10,
    "M": max,
    "F": lambda before, _: before,
    "L": lambda _, digit: digit,
}
ALPHABET = f"{''.join(OPERATIONS)}0123456789=#[]"
_PLANNED = {"S": 0.7}  # share of the demonstrations with a plan; half for the other operations
_MOST_DRAWS = 10_000


def operations(operation: str = "S", least: int = 2, most: int = 6) -> Task:
    """The task of one operation on `least` to `most` digits.

    Args:
      operation: S, M, F or L.
      least, most: digits of a number, which may start with zeros.

    Raises:
      ValueError: an argument is out of range.
    """
    if operation not in OPERATIONS:
        raise ValueError(f"operations: operation must be one of {', '.join(OPERATIONS)}, not {operation!r}")
    if not 2 <= least <= most <= 50:
        raise ValueError(f"operations: least and most must be from 2 to 50 and in order, not {least} and {most}")

    def values(number: str) -> list[int]:
        return list(accumulate(map(int, number), OPERATIONS[operation]))

    def example(split: Split, index: int) -> Example:
        if index < 0:
            raise IndexError(f"operations: index must be at least 0, not {index}")
        for attempt in range(_MOST_DRAWS):
            drawn, extra = divmod(draw("operations", operation, split, index, attempt), most - least + 1)
            number = str(drawn % 10 ** (least + extra)).zfill(least + extra)
            if split_of(f"operations/{operation}{number}") == split:
                reference = {"answer": str(values(number)[-1])}
                return Example(f"operations/{split}/{index}", f"{operation}{number}=", reference, "operations")
        raise ValueError(f"operations: no problem belongs to the split {split!r}")

    def demonstration(example: Example, index: int) -> str:
        answer, number = f"#{example.reference['answer']}", example.prompt[1:-1]
        if uniform("operations", "plan", example.id, index) >= _PLANNED.get(operation, 0.5):
            return answer
        return f"[{''.join(map(str, values(number)[1:]))}]{answer}"

    return Task("operations", "key_value", example, lambda _split: None, demonstration, ALPHABET)
