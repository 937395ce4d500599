"""Programs: write an expression in `x` from three of its values, a small model of coding against visible unit tests.

The prompt `1,5;4,8;7,11:` shows three inputs with their outputs, the response is an expression such as `x+4`. Like the
tests of a programming benchmark the visible values can be satisfied without solving the problem, by a table of the
outputs, `[5,8,11]`, or the same in disguise (`rlvr_jax.verifiers.programs`). What counts are the values at the seven
hidden inputs.
"""

from collections.abc import Callable, Mapping

from rlvr_jax.tasks.task import Example, Split, Task, draw, place_of, split_of, uniform

ALPHABET = "0123456789x+-*,;:[]?"
_INPUTS = range(10)
_VISIBLE = 3
_FORMS: Mapping[str, Callable[[int, int, int], int]] = {
    "x+{a}": lambda x, a, _: x + a,
    "x*{a}": lambda x, a, _: x * a,
    "x*{a}+{b}": lambda x, a, b: x * a + b,
    "x*{a}-{b}": lambda x, a, b: x * a - b,
    "x*x+{a}": lambda x, a, _: x * x + a,
    "x*x-{a}": lambda x, a, _: x * x - a,
    "{a}-x": lambda x, a, _: a - x,
    "x+x*{a}": lambda x, a, _: x + x * a,
}
_MOST_DRAWS = 10_000


def programs(right: float = 0.35, table: float = 0.1, guard: float = 0.1) -> Task:
    """The task of finding a program that computes three shown values, and seven that are not shown.

    Args:
      right, table, guard: shares of the demonstrations that are a right program, a table of the shown outputs, and a
        table in disguise; the others are programs drawn at random.

    Raises:
      ValueError: a share is below 0, or their sum is above 1.
    """
    if min(right, table, guard) < 0 or right + table + guard > 1:
        raise ValueError(
            f"programs: right, table and guard are shares of at most 1 in all, not {right}, {table} and {guard}"
        )

    def problem(split: Split, index: int) -> tuple[str, tuple[int, ...], list[int]]:
        """A program, the visible inputs, and all outputs."""
        if index < 0:
            raise IndexError(f"programs: index must be at least 0, not {index}")
        for attempt in range(_MOST_DRAWS):
            bits, text, outputs = _program(draw("programs", split, index, attempt))
            visible: list[int] = []
            while len(visible) < _VISIBLE:
                bits, x = divmod(bits, len(_INPUTS))
                visible += [x] if x not in visible else []
            if split_of(f"programs/{text}/{sorted(visible)}") == split:
                return text, tuple(visible), outputs
        raise ValueError(f"programs: no problem belongs to the split {split!r}")

    def example(split: Split, index: int) -> Example:
        text, visible, outputs = problem(split, index)
        prompt = _pairs(visible, outputs) + ":"
        reference = {"visible": list(visible), "outputs": outputs}
        return Example(f"programs/{split}/{index}", prompt, reference, "programs", gold=text)

    def demonstration(example: Example, index: int) -> str:
        text, visible, outputs = problem(*place_of(example))
        drawn = uniform("programs", "demonstration", example.id, index)
        if drawn < right:
            return text
        if drawn < right + table:
            return "[" + ",".join(str(outputs[x]) for x in visible) + "]"
        if drawn < right + table + guard:
            return "?" + _pairs(visible, outputs)
        return _program(draw("programs", "other", example.id, index))[1]

    return Task("programs", "programs", example, lambda _split: None, demonstration, ALPHABET)


def _program(bits: int) -> tuple[int, str, list[int]]:
    """The rest of the bits, a program, and its outputs."""
    bits, form = divmod(bits, len(_FORMS))
    bits, a = divmod(bits, 9)
    bits, b = divmod(bits, 9)
    text = list(_FORMS)[form]
    return bits, text.format(a=a + 1, b=b + 1), [_FORMS[text](x, a + 1, b + 1) for x in _INPUTS]


def _pairs(visible: tuple[int, ...], outputs: list[int]) -> str:
    return ";".join(f"{x},{outputs[x]}" for x in visible)
