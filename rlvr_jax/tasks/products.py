"""Products of two numbers, to learn the use of a calculator: too hard for a small policy, and easy with one call.

The prompt is `47*8=` and the answer `####376`. With the calculator in the environment `tools`, whose options for this
task are in `configs/calculator.py`, a call is `<47*8>` and the tool says `376|`:

    47*8= <47*8> 376| ####376
"""

from rlvr_jax.tasks.task import Example, Split, Task, draw, split_of, uniform
from rlvr_jax.text.messages import Messages

ALPHABET = "0123456789*=#<>|!"
_MOST_DRAWS = 1_000


def products(digits: tuple[int, int] = (2, 1), call_share: float = 0.5, heldout_share: float = 0.1) -> Task:
    """The task of multiplying two numbers; its splits share no problem.

    Args:
      digits: of the two numbers, 1 to 9 each; the first digit is not 0, and no number is 1.
      call_share: share of the demonstrations that call the calculator; the others give the answer at once.
      heldout_share: share of the problems that are held out.

    Raises:
      ValueError: an argument is out of range.
    """
    if not (len(digits) == 2 and all(isinstance(n, int) and 1 <= n <= 9 for n in digits)):
        raise ValueError(f"products: digits must be two numbers from 1 to 9, not {digits}")
    for name, share in (("call_share", call_share), ("heldout_share", heldout_share)):
        if not 0 <= share <= 1:
            raise ValueError(f"products: {name} must be from 0 to 1, not {share}")
    ranges = [range(max(2, 10 ** (n - 1)), 10**n) for n in digits]

    def example(split: Split, index: int) -> Example:
        if index < 0:
            raise IndexError(f"products: index must be at least 0, not {index}")
        for attempt in range(_MOST_DRAWS):
            left, right = (x[draw("products", split, index, attempt, i) % len(x)] for i, x in enumerate(ranges))
            if split_of(f"products/{left}*{right}", heldout_share) == split:
                return Example(f"products/{split}/{index}", f"{left}*{right}=", str(left * right), "products")
        raise ValueError(f"products: {_MOST_DRAWS} problems were drawn and none belongs to the split {split!r}")

    def demonstration(given: Example, index: int) -> str | Messages:
        answer = f"####{given.reference}"
        if uniform("products", "demonstration", given.id, index) >= call_share:
            return answer
        turns = (f"<{given.prompt.removesuffix('=')}>", f"{given.reference}|", answer)
        return tuple(
            {"role": role, "content": x} for role, x in zip(("assistant", "user", "assistant"), turns, strict=True)
        )

    return Task("products", "gsm8k", example, lambda _split: None, demonstration, ALPHABET)
