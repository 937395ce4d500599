r"""Extraction of the final answer from a completion.

Only what follows the last `</think>` counts, and thinking that was not closed has no answer. Then the last final
statement counts, whichever format it has: a `\boxed{}`, an `<answer>` tag, a `####` line, or a phrase such as "the
answer is"; a box or a phrase that stands in a tag or a line is that statement's answer. Earlier boxes are intermediate
work and are ignored, and so is a box that the text denies (`\boxed{4} is not the answer`). But candidates that are
offered side by side, as in `\boxed{3} or \boxed{4}`, are one statement with several values, so that none of them is
the answer unless the reference has several values too. A `####` line is an answer if a number or a formula follows;
other ones are headings of Markdown.

The work is linear in the length of the completion.
"""

import itertools
import re
from collections.abc import Iterator, Sequence

from rlvr_jax.text.tags import after_thinking
from rlvr_jax.verifiers.mathematics.hedging import denied, hedges, labels, side_by_side
from rlvr_jax.verifiers.mathematics.sentences import (
    FINAL,
    MAX_CANDIDATES,
    STARTS_WITH_VALUE,
    Statement,
    bare_statement,
    conclusion,
    phrase_statement,
    unwrapped,
    without_reason,
)

FORMATS = ("boxed", "answer", "hash", "phrase", "bare")
NUMBER_FORMAT = "number"  # the last resort

_MAX_BOX = 20_000  # characters in a box

_SPECIAL = re.compile(r"<\|[a-zA-Z0-9_]{1,40}\|>|</s>|<eos>|<end_of_turn>")
_OPEN, _CLOSE = "<answer>", "</answer>"
_LINE_START = re.compile(r"^(?:[\s:*]|=(?!=))+")
_LINE_END = re.compile(r"(?<!\\)[\s,;*]+$")
_BOX = re.compile(r"\\f?boxed\s*(?:\{|(?=[\d\-+a-zA-Z]))")
# A sign in front of a box, as in `x = -\boxed{3}`; but `5 -\boxed{3} = 2` fills in a blank.
_SIGN = re.compile(r"(?:^|(?:[$=(\[{,:>]|\\(?:approx|quad|[lg]eq?))[ \t]*|(?<![A-Za-z\\])[A-Za-z]{2,}[ \t]+)-$")
_UNBRACED = re.compile(r"[-+]?[\w.]+")
_BRACE = re.compile(r"(?<!\\)(?:\\\\)*([{}])")
_REST_OF_LINE = re.compile(r"[^\r\n]*")
_HASHES = re.compile(r"#{4,}[ \t]*([^\r\n#]*)")
# `#### 2. Add them up`, `#### (a) The first case`; and `#### 2 Checking`, `#### (B) Second case`, if text follows.
_NUMBERED_HEADING = re.compile(r"\W*(?:\d+|[a-z])[.):]+\s+\W*[^\W\d_]|A\s+[a-z]")
_TITLE = re.compile(r"(?:\d+|\(?[A-Z][.):]+)\s+\W*[A-Z][a-z]+")


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
            signed = _SIGN.search(text, max(0, match.start() - 20), match.start())
            found.append((match.start(), content[1], f"-({content[0]})" if signed else content[0]))
    return reversed(found)


def _boxed(text: str, values: int = 1) -> Statement | None:
    boxes = [box for box in _boxes(text) if not denied(text, box[0], box[1])]
    gaps = [text[earlier[1] : later[0]] for later, earlier in itertools.pairwise(boxes)]
    if len(boxes) == values > 1 and all(map(labels, gaps)):
        group = boxes
    else:
        group = boxes[: 1 + next((index for index, gap in enumerate(gaps) if not side_by_side(gap)), len(gaps))]
    if not group:
        return None
    contents = [unwrapped(re.sub(r"\\f?boxed\s*\{", "{", content)) for _, _, content in reversed(group)]
    if len(group) > 1 and len(set(contents)) > 1:
        contents = [content or r"\text{nothing}" for content in contents]
    elif len(group) > 1:
        contents = contents[:1]
    return Statement(group[-1][0], "boxed", " ; ".join(contents))


def _tagged(text: str) -> Statement | None:
    spans = _tags(text)
    if not spans:
        return None
    answers = [_inner(text[start + len(_OPEN) : end]) for start, end in reversed(spans)]
    return Statement(spans[0][0], "answer", " ; ".join(dict.fromkeys(answers)))


def _tags(text: str) -> list[tuple[int, int]]:
    """The positions of the last `<answer>` and its end tag, and before it of those side by side with it."""
    spans: list[tuple[int, int]] = []
    before = len(text)
    while len(spans) < MAX_CANDIDATES:
        end = text.rfind(_CLOSE, 0, before)
        start = text.rfind(_OPEN, 0, end) if end >= 0 else -1
        if start < 0 or (spans and not side_by_side(text[end + len(_CLOSE) : before])):
            break
        spans.append((start, end))
        before = start
    return spans


def _inner(content: str) -> str:
    """The answer in a tag or a marked line: a box or a phrase in it, or all of it, which is no answer if very long."""
    if len(content) > _MAX_BOX:
        return content
    box = _boxed(content)
    if box is not None:
        return box.answer
    found = phrase_statement(content)
    if found is not None:
        return found.answer
    return without_reason(_LINE_END.sub("", _LINE_START.sub("", unwrapped(content))))


def _hashed(text: str) -> Statement | None:
    """The last `####` line with a value, or one that would have a value but for a hedge."""
    for match in reversed(list(_HASHES.finditer(text))[-MAX_CANDIDATES:]):
        line, followed = match[1], bool(text[match.end() :].strip(" \t\r\n#*"))
        answer = _inner(line)
        heading = _NUMBERED_HEADING.match(line) or (followed and _TITLE.match(line))
        if r"\boxed" in line or (STARTS_WITH_VALUE.match(answer) and not heading) or hedges(line):
            return Statement(match.start(), "hash", answer)
    return None


def _worded(text: str) -> Statement | None:
    """A `####` line of words at the end of the text: an answer if there is no other, since it may be a heading."""
    match = next(reversed(list(_HASHES.finditer(text))), None)
    if match is None or text[match.end() :].strip():
        return None
    return Statement(match.start(), "hash", _inner(match[1]))


def _statements(text: str, formats: Sequence[str], values: int) -> list[Statement]:
    """The last statement in each of the formats but `bare`."""
    found = [_boxed(text, values)] if "boxed" in formats else []
    rest = text
    if "answer" in formats and (tagged := _tagged(text)) is not None:
        found.append(tagged)
        for start, end in _tags(text):
            rest = _blanked(rest, start, end)
    if "hash" in formats and (hashed := _hashed(text)) is not None:
        found.append(hashed)
        rest = _blanked(rest, hashed.start, _REST_OF_LINE.match(text, hashed.start).end())
    if "phrase" in formats:
        found.append(phrase_statement(rest))  # a phrase in tags or in a marked line is no statement of its own
    return [statement for statement in found if statement is not None]


def _blanked(text: str, start: int, end: int) -> str:
    return text[:start] + "\n" * (end - start) + text[end:]


def extract(
    completion: str, formats: Sequence[str] = FORMATS, last_number: bool = False, values: int = 1
) -> Statement | None:
    """The final statement of a completion, or None.

    Args:
      completion: the policy's text.
      formats: which of `FORMATS` count.
      last_number: whether, where no format is found, the last formula or number of the text counts.
      values: how many values the reference has: so many boxes, with nothing but labels between, are one statement.

    Raises:
      ValueError: there is no such format.
    """
    if unknown := [name for name in formats if name not in FORMATS]:
        raise ValueError(f"there is no answer format {unknown[0]!r}; the formats are {', '.join(FORMATS)}")
    text = after_thinking(completion)
    if text is None:
        return None
    text = _SPECIAL.split(text.strip(), maxsplit=1)[0] or text
    found = _statements(text, formats, values)
    if found:
        last = max(found, key=lambda statement: statement.start)
        boxed = next((statement for statement in found if statement.format == "boxed"), None)
        if boxed is not None and last.format == "phrase" and not _overrides(text, last):
            return boxed
        return last
    if "hash" in formats and (statement := _worded(text)) is not None:
        return statement
    if "boxed" in formats and _cut_off(text):
        return None
    if "bare" in formats and (statement := bare_statement(text)) is not None:
        return statement
    if last_number and (answer := conclusion(text, last_resort=True)) is not None:
        return Statement(0, NUMBER_FORMAT, answer)
    return None


def _cut_off(text: str) -> bool:
    """True if the last box of a text is not closed."""
    last = next(reversed(list(_BOX.finditer(text))), None)
    return last is not None and _box_content(text, last) is None


def _overrides(text: str, phrase: Statement) -> bool:
    """True if a phrase after the last box is a later answer: only a "final answer" with something to calculate with."""
    before = text[max(0, phrase.start - 40) : phrase.start]
    return bool(FINAL.search(before)) and bool(re.match(r"[-+(\[{\\$\d|]", phrase.answer))
