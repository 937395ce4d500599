"""A stream of chunks, each seen once: what matters must be carried from one context window to the next.

A chunk has the three places A, B and C, with a digit or `-`; the first letter of a prompt says which place will be
asked for: its newest digit. A window shows the summary of the window before and one chunk, `B|1|85-|`, and the policy
writes the next summary, one character. The last window ends with `?`, and the policy answers:

    B|-|714|1 B|1|---|1 B|1|85-|5 B|5|2--?#5

The demonstrations are single windows (`show="windows"`): an answer that is right, or as a summary any digit that is
seen, so the format is shown and not what is worth keeping.
"""

from typing import Any

from rlvr_jax.tasks.task import Example, Split, Task, draw, split_of

PLACES = "ABC"
ALPHABET = f"{PLACES}0123456789-|?#"
NOTHING = "-"  # an empty place, or summary

_DIGITS = 30  # in a hundred places
_KNOWN = 80  # in a hundred demonstrated windows, those with a digit as the summary of the window before
_LAST = 60  # in a hundred demonstrations, those of last windows
_MOST_DRAWS = 10_000


def window(goal: str, summary: str, chunk: str, last: bool) -> str:
    """The prompt of a context window."""
    return f"{goal}|{summary}|{chunk}{'?' if last else '|'}"


def newest(goal: str, chunks: list[str]) -> str:
    """The newest digit of a place, or `-`."""
    digits = [chunk[PLACES.index(goal)] for chunk in chunks]
    return next((digit for digit in reversed(digits) if digit != NOTHING), NOTHING)


def stream(chunks: int = 5, show: str = "streams") -> Task:
    """The task of a stream of `chunks` chunks; one of the first two has a digit at the place that matters.

    Args:
      chunks: of a stream, from 2 on.
      show: "streams", for the environment `stream`; or "windows", problems of a single window to be demonstrated, none
        of them held out.

    Raises:
      ValueError: an argument is out of range.
    """
    if chunks < 2:
        raise ValueError(f"stream: chunks must be 2 or more, not {chunks}")
    if show not in ("streams", "windows"):
        raise ValueError(f"stream: show must be 'streams' or 'windows', not {show!r}")

    def example(split: Split, index: int) -> Example:
        if index < 0:
            raise IndexError(f"stream: index must be at least 0, not {index}")
        for attempt in range(_MOST_DRAWS):
            path = (chunks, split, index, attempt)
            goal = PLACES[draw("stream", *path) % len(PLACES)]
            drawn = [_chunk(*path, number) for number in range(chunks)]
            if newest(goal, drawn[:2]) != NOTHING and split_of(f"stream/{goal}/{'/'.join(drawn)}") == split:
                reference = {"goal": goal, "chunks": drawn, "answer": newest(goal, drawn)}
                prompt = window(goal, NOTHING, drawn[0], False)
                return Example(f"stream/{split}/{index}", prompt, reference, "stream", gold="#" + reference["answer"])
        raise ValueError(f"stream: no problem belongs to the split {split!r}")

    def single(split: Split, index: int) -> Example:
        drawn, goal = divmod(draw("stream", "window", split, index), len(PLACES))
        drawn, known = divmod(drawn, 100)
        drawn, digit = divmod(drawn, 10)
        last = drawn % 100 < _LAST
        summary, chunk = str(digit) if known < _KNOWN else NOTHING, _chunk("window", split, index)
        seen = newest(PLACES[goal], [chunk])
        answer = seen if seen != NOTHING else summary
        reference: dict[str, Any] = {"last": last, "summary": summary, "chunk": chunk, "answer": answer}
        return Example(f"stream/{split}/{index}", window(PLACES[goal], summary, chunk, last), reference, "stream")

    def demonstration(example: Example, index: int) -> str:
        shown, drawn = example.reference, draw("stream", "demonstration", example.id, index)
        if shown["last"]:
            return "#" + (shown["answer"] if shown["answer"] != NOTHING else str(drawn % 10))
        digits = [x for x in shown["summary"] + shown["chunk"] if x != NOTHING] or [NOTHING]
        return digits[drawn % len(digits)]

    if show == "windows":
        return Task(
            "stream", "key_value", single, lambda split: None if split == "train" else 0, demonstration, ALPHABET
        )
    return Task("stream", "key_value", example, lambda _split: None, None, ALPHABET)


def _chunk(*path: str | int) -> str:
    drawn, found = draw("stream", "chunk", *path), ""
    for _ in PLACES:
        drawn, number = divmod(drawn, 100)
        found += str(number % 10) if number < _DIGITS else NOTHING
    return found
