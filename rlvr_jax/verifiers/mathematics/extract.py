r"""Where in a completion its final answer stands.

Only what follows the last `</think>` counts, and thinking that was not closed has no answer. Then the last final
statement counts, whichever format it has: a `\boxed{}`, an `<answer>` tag, a `####` line, or a phrase such as "the
answer is"; a box that stands in a tag, a line or a phrase is that statement's answer. Earlier boxes are intermediate
work and are ignored. But candidates that are offered side by side, as in `\boxed{3} or \boxed{4}`, are one statement
with several values, so that none of them is the answer unless the reference has several values too.

The work is linear in the length of the completion.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from rlvr_jax.text.tags import after_thinking
from rlvr_jax.verifiers.mathematics.sentences import (
    FINAL,
    MAX_CANDIDATES,
    Statement,
    bare_statement,
    conclusion,
    phrase_statement,
    side_by_side,
    unwrapped,
)

FORMATS = ("boxed", "answer", "hash", "phrase", "bare")
NUMBER_FORMAT = "number"  # the last resort

_MAX_BOX = 20_000  # characters in a box

_SPECIAL = re.compile(r"<\|[a-zA-Z_]{1,40}\|>|</s>|<eos>|<end_of_turn>")
_BOX = re.compile(r"\\f?boxed\s*(?:\{|(?=[\d\-+a-zA-Z]))")
_UNBRACED = re.compile(r"[-+]?[\w.]+")
_BRACE = re.compile(r"(?<!\\)(?:\\\\)*([{}])")
_REST_OF_LINE = re.compile(r"[^\r\n]*")


def _box_content(text: str, match: re.Match[str]) -> tuple[str, int] | None:
    """The content of a box and where the box ends; None if it is not closed."""
    if not match[0].endswith("{"):
        found = _UNBRACED.match(text, match.end())
        return (found[0].rstrip("."), found.end()) if found else None
    depth, position = 1, match.end()
    for brace in _BRACE.finditer(text, position, position + _MAX_BOX):
        depth += 1 if brace[1] == "{" else -1
        if depth == 0:
            return text[position : brace.end() - 1], brace.end()
    return None


def _boxes(text: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, content) of the outermost boxes, from the last one backwards, as far as they matter."""
    matches = list(_BOX.finditer(text))[-MAX_CANDIDATES:]
    found: list[tuple[int, int, str]] = []
    for match in matches:
        content = None if found and match.start() < found[-1][1] else _box_content(text, match)
        if content is not None:
            found.append((match.start(), content[1], content[0]))
    return reversed(found)


def _boxed(text: str) -> Statement | None:
    group: list[tuple[int, int, str]] = []
    for box in _boxes(text):
        if group and not side_by_side(text[box[1] : group[-1][0]]):
            break
        group.append(box)
    if not group:
        return None
    contents = [unwrapped(re.sub(r"\\f?boxed\s*\{", "{", content)) for _, _, content in reversed(group)]
    if len(group) > 1 and len(set(contents)) > 1:
        contents = [content or r"\text{nothing}" for content in contents]
    elif len(group) > 1:
        contents = contents[:1]
    return Statement(group[-1][0], "boxed", " ; ".join(contents))


def _tagged(text: str) -> Statement | None:
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, end) if end >= 0 else -1
    if start < 0:
        return None
    contents, first = [text[start + len("<answer>") : end]], start
    while len(contents) < MAX_CANDIDATES:  # tags side by side are one statement
        previous_end = text.rfind("</answer>", 0, first)
        previous = text.rfind("<answer>", 0, previous_end) if previous_end >= 0 else -1
        if previous < 0 or not side_by_side(text[previous_end + len("</answer>") : first]):
            break
        contents.append(text[previous + len("<answer>") : previous_end])
        first = previous
    return Statement(start, "answer", " ; ".join(dict.fromkeys(_inner(content) for content in reversed(contents))))


def _inner(content: str) -> str:
    """The answer in a tag or a marked line: a box or a phrase in it, or all of it."""
    box = _boxed(content)
    if box is not None:
        return box.answer
    found = phrase_statement(content)
    return found.answer if found is not None else unwrapped(content)


def _hashed(text: str) -> Statement | None:
    start = text.rfind("####")
    if start < 0:
        return None
    line = _REST_OF_LINE.match(text, start + 4)
    assert line is not None
    box = _boxed(line[0])
    return Statement(start, "hash", box.answer if box else unwrapped(line[0]))


_FINDERS: Mapping[str, Callable[[str], Statement | None]] = {
    "boxed": _boxed,
    "answer": _tagged,
    "hash": _hashed,
    "phrase": phrase_statement,
}


def extract(completion: str, formats: Sequence[str] = FORMATS, last_number: bool = False) -> Statement | None:
    """The final statement of a completion, or None.

    Args:
      completion: what the policy wrote.
      formats: which of `FORMATS` count.
      last_number: whether, where no format is found, the last formula or number of the text counts.

    Raises:
      ValueError: there is no such format.
    """
    if unknown := [name for name in formats if name not in FORMATS]:
        raise ValueError(f"there is no answer format {unknown[0]!r}; the formats are {', '.join(FORMATS)}")
    text = after_thinking(completion)
    if text is None:
        return None
    text = _SPECIAL.split(text.strip(), maxsplit=1)[0] or text
    found = [statement for name in formats if name in _FINDERS and (statement := _FINDERS[name](text)) is not None]
    if found:
        last = max(found, key=lambda statement: statement.start)
        boxed = next((statement for statement in found if statement.format == "boxed"), None)
        if boxed is not None and last.format == "phrase" and not _overrides(text, last):
            return boxed
        return last
    if "boxed" in formats and _BOX.search(text):  # a box that was not closed: the answer was cut off
        return None
    if "bare" in formats and (statement := bare_statement(text)) is not None:
        return statement
    if last_number and (answer := conclusion(text, last_resort=True)) is not None:
        return Statement(0, NUMBER_FORMAT, answer)
    return None


def _overrides(text: str, phrase: Statement) -> bool:
    """Whether a phrase after the last box is a later answer: only a "final answer" with something to calculate with."""
    before = text[max(0, phrase.start - 40) : phrase.start]
    return bool(FINAL.search(before)) and bool(re.match(r"[-+(\[{\\$\d|]", phrase.answer))
