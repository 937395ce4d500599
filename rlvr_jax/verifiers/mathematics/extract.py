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
from dataclasses import dataclass

FORMATS = ("boxed", "answer", "hash", "phrase", "bare")
NUMBER_FORMAT = "number"  # the last resort

_MAX_STATEMENT = 1_000  # characters of a phrase's statement, and of a bare answer
_MAX_BOX = 20_000  # characters in a box
_MAX_BOXES = 40  # from the end that are looked at
_TAIL = 4_000  # characters at the end in which phrases without a mark are searched

_SPECIAL = re.compile(r"<\|[a-zA-Z_]{1,40}\|>|</s>|<eos>|<end_of_turn>")
_BOX = re.compile(r"\\f?boxed\s*(?:\{|(?=[\d\-+a-zA-Z]))")
_GAP_NOISE = re.compile(r"\\text\s*\{|\\q?quad|\\[,;:! ]|\\[()\[\]]|[{}$*\s]|\\\\")
_JOINED = re.compile(r"(?:.{0,30}?)(?:[,;&]|\b(?:and|or|und|oder|et|ou|y|o)|[,;]?(?:and|or))[,:]?", re.IGNORECASE)
_HEDGE = re.compile(
    r"\b(?:or|either|alternatively|maybe|perhaps|possibly|could be|might be|may be|not sure|otherwise)\b", re.IGNORECASE
)
_CORRECTION = re.compile(
    r"\b(?:wait|actually|correct(?:ion|ed)?|instead|mistake|no,|sorry|therefore|thus|so|hence)\b", re.IGNORECASE
)
_NEGATION = re.compile(
    r"\b(?:not|isn't|wasn't|cannot|can't|never|wrong|incorrect|neither|nor|rather than|no)\b|n't\b|不是", re.IGNORECASE
)
_NOT_THE_NEXT = re.compile(r"\b(?:not|rather than|instead of)\s*$", re.IGNORECASE)
_NOT_ANOTHER = re.compile(r"^\W*(?:and )?(?:not|rather than|instead of)\s*\$.*", re.IGNORECASE | re.DOTALL)
_FINAL = re.compile(r"final\s+answer\b(?:\s+is\b|\s*[:=])?\**\s*:?", re.IGNORECASE)
_PHRASE = re.compile(
    r"(?:\banswers?\s*(?:(?:is|are|=|equals|would be|will be|should be|must be)\b|[:=])"
    r"|\bréponse(?:\s+finale)?\s*(?:est\b|:)"
    r"|\brespuesta(?:\s+final)?\s*(?:es\b|:)|\bantwort\s*(?:ist|lautet|:)|\brisposta\s*(?:è\b|:)|\bresposta\s*(?:é\b|:)"
    r"|答案(?:是|为|為|\uff1a|:)|答えは|답은|ответ\s*(?:[:—-]|равен)|الجواب(?:\s*هو|:)|उत्तर(?:\s*है|:))\**\s*:?",
    re.IGNORECASE,
)
_MATH = re.compile(
    r"\$\$(?P<a>[^$]+)\$\$|(?<!\\)\$(?P<b>(?:[^$\\]|\\.)+)\$|\\\((?P<c>.+?)\\\)|\\\[(?P<d>.+?)\\\]", re.DOTALL
)
_BOLD = re.compile(r"\*\*(?P<a>[^*\n]{1,200})\*\*")
_SENTENCE_END = re.compile(r"(?<![A-Z]\.[A-Z])(?<!\b[A-Za-z])[.!?](?=\s|$|\")|[。\uff01\uff1f।]|\n\s*\n")
_LEAD = re.compile(
    r"^(?:\s|:|\*|>|therefore|thus|hence|so|then|clearly|simply|just|that|is|be|the|for sure|definitely|approximately"
    r"|about|exactly|equal to|equals|indeed|now|option|choice|letter)+(?=[\s:*\"“(\\$\d.-]|$)\s*",
    re.IGNORECASE,
)
_TEXT = re.compile(r"\\(?:text\w*|mathrm|mbox|operatorname|begin|end)\s*\{[^{}]*\}")
_LATIN_WORD = re.compile(r"(?<!\\)[^\W\d_]{2,}")
_OPTION = re.compile(r"^\(?([A-J])\)?(?=[.,:;)]|\s*$|\s*[。\uff0c])(?!\s*[,;]?\s*\(?[A-J]\b)")
_OPTION_NOT = re.compile(r"^\(?([A-J])\)?[\s,.;:。\uff0c]*(?=(?:not|non|pas|nicht|no)\s|不是)")
_VALUE = re.compile(
    r"(?<![A-Za-z0-9_.,/^\\])(?:[-\u2212+]\s?)?[$€£¥]?\s?\\?(?:[1-9]\d{0,2}(?:,\d{3})+(?!\d)|\d+(?: \d{3})*(?! ?\d))?"
    r"(?:\.\d+)?(?<=\d)(?:/\d+(?:\.\d+)?)?(?:[eE][-+]?\d+)?(?:\s?\\?%|\s?percent\b|[€£])?|\[[^\[\]\n]{1,40}\]"
)
_ASIDE = re.compile(r"([^,\s]*\d[^,\s]*)\s*,\s*(?!.*\b(?:or|and|not|maybe)\b)[A-Za-z][A-Za-z' ]{4,80}", re.IGNORECASE)
_PREDICATE = re.compile(
    r"(?:\b(?:is|are|was|be|equals?|get|gives?|have|has|est|ist|es|são|è|makes?|totals?|about|approximately|exactly)|it's|[=:\uff1a为是]|هو)[\s*:(\[{$]*$",
    re.IGNORECASE,
)
_CONCLUDING = re.compile(
    r"(?:^|[\s\])])(?:therefore|thus|hence|so|in conclusion|donc|also|por lo tanto|因此|所以|لذا|इसलिए)", re.IGNORECASE
)
_AFTER = re.compile(r"[\s*)\]}\"'.!²³]*(?:[^\W\d_]+[\s*/.!)।。²³]*){0,6}")


@dataclass(frozen=True)
class Statement:
    """A final statement.

    Attributes:
      start: where it starts in the text.
      format: one of `FORMATS` or `NUMBER_FORMAT`.
      answer: its text; `""` if it is empty.
    """

    start: int
    format: str
    answer: str


def after_thinking(completion: str) -> str | None:
    """What follows the last `</think>`; None if thinking was opened after it, or without it, and not closed."""
    start = completion.rfind("</think>")
    if completion.rfind("<think>") > start:
        return None
    return completion[start + len("</think>") :] if start >= 0 else completion


def _box_content(text: str, match: re.Match[str]) -> tuple[str, int] | None:
    """The content of a box and where the box ends; None if it is not closed."""
    if not match[0].endswith("{"):
        found = re.compile(r"[-+]?[\w.]+").match(text, match.end())
        return (found[0].rstrip("."), found.end()) if found else None
    depth, position = 1, match.end()
    for brace in re.compile(r"(?<!\\)(?:\\\\)*([{}])").finditer(text, position, position + _MAX_BOX):
        depth += 1 if brace[1] == "{" else -1
        if depth == 0:
            return text[position : brace.end() - 1], brace.end()
    return None


def _boxes(text: str) -> Iterator[tuple[int, int, str]]:
    """(start, end, content) of the outermost boxes, from the last one backwards, as far as they matter."""
    matches = list(_BOX.finditer(text))[-_MAX_BOXES:]
    found: list[tuple[int, int, str]] = []
    for match in matches:
        content = None if found and match.start() < found[-1][1] else _box_content(text, match)
        if content is not None:
            found.append((match.start(), content[1], content[0]))
    return reversed(found)


def _side_by_side(gap: str) -> bool:
    """Whether the text between two boxes makes them one statement: `,`, `and`, `or maybe`, nothing."""
    if len(gap) > 200:
        return False
    bare = _GAP_NOISE.sub("", gap)
    if not bare.strip(".,;:&-/|+"):
        return True
    words = _GAP_NOISE.sub(" ", gap).strip()
    if len(words) <= 40 and not re.search(r"[.!?]\s", words) and _JOINED.fullmatch(words):
        return True
    return bool(_HEDGE.search(words)) and not _CORRECTION.search(words)


def _boxed(text: str) -> Statement | None:
    group: list[tuple[int, int, str]] = []
    for box in _boxes(text):
        if group and not _side_by_side(text[box[1] : group[-1][0]]):
            break
        group.append(box)
    if not group:
        return None
    contents = [re.sub(r"\\f?boxed\s*\{", "{", content).strip() for _, _, content in reversed(group)]
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
    while len(contents) < _MAX_BOXES:  # tags side by side are one statement
        previous_end = text.rfind("</answer>", 0, first)
        previous = text.rfind("<answer>", 0, previous_end) if previous_end >= 0 else -1
        if previous < 0 or not _side_by_side(text[previous_end + len("</answer>") : first]):
            break
        contents.append(text[previous + len("<answer>") : previous_end])
        first = previous
    return Statement(start, "answer", " ; ".join(dict.fromkeys(_inner(content) for content in reversed(contents))))


def _inner(content: str) -> str:
    """The answer in a tag or a marked line: a box or a phrase in it, or all of it."""
    box = _boxed(content)
    if box is not None:
        return box.answer
    found = _phrase(content)
    return found.answer if found is not None else _unwrapped(content)


def _hashed(text: str) -> Statement | None:
    start = text.rfind("####")
    if start < 0:
        return None
    line = re.compile(r"[^\r\n]*").match(text, start + 4)
    assert line is not None
    box = _boxed(line[0])
    return Statement(start, "hash", box.answer if box else _unwrapped(line[0]))


def _unwrapped(text: str) -> str:
    """Without emphasis, quotes, and the delimiters of formulas, where they enclose everything."""
    text = text.strip()
    for _ in range(4):
        stripped = text.strip().strip('*`"“”').strip()
        match = _MATH.fullmatch(stripped.removesuffix("."))
        if match is not None:
            stripped = next(group for group in match.groups() if group is not None)
        if stripped == text:
            break
        text = stripped
    return text


def _sentence(text: str, start: int) -> str:
    """From `start` to the end of the sentence; ends of sentences in formulas do not count."""
    window = text[start : start + _MAX_STATEMENT]
    begin = len(window) - len(window.lstrip(" \t\r\n*:"))
    position = begin
    while position < len(window):
        end = _SENTENCE_END.search(window, position)
        newline = window.find("\n", position)
        stop = min(end.start() if end else len(window), newline if newline >= 0 else len(window))
        math = _MATH.search(window, position)
        if math is None or math.start() > stop:
            return window[begin:stop]
        position = math.end()
    return window[begin:]


def _maths(text: str) -> list[re.Match[str]]:
    """The formulas in a text; what stands between the `$` of two prices is none."""
    return [
        match
        for match in _MATH.finditer(text)
        if not match["b"] or len(_LATIN_WORD.findall(_TEXT.sub("", match["b"]))) < 3
    ]


def _formulas(sentence: str) -> str | None:
    """The last formulas that stand side by side in a sentence, with a percent sign or `or` that follows, or None."""
    matches = _maths(sentence)[-_MAX_BOXES:]
    if not matches:
        return None
    while len(matches) > 1 and _NOT_THE_NEXT.search(sentence[: matches[-1].start()]):
        matches.pop()  # $3$, not $4$
    group = [matches[-1]]
    for match in reversed(matches[:-1]):
        if not _side_by_side(sentence[match.end() : group[-1].start()]):
            break
        group.append(match)
    parts = [next(part for part in match.groups() if part is not None).strip() for match in reversed(group)]
    after = _NOT_ANOTHER.sub("", sentence[group[0].end() :])
    if re.match(r"\s*(?:\\?%|percent|pct)", after):
        parts[-1] += "%"
    if (rest := re.search(r"\bor\b\s+(.*)", after)) or _NEGATION.search(after):
        parts.append(rest[1] if rest else r"\text{not}")
    return " ; ".join(parts)


def _said(sentence: str) -> str | None:
    """The answer in the sentence that follows a phrase, or None if it says nothing or denies it."""
    sentence = _LEAD.sub("", sentence, count=1)
    if not sentence.strip(' .*$"') or re.match(r"(?:not|n't)\b", sentence.strip(), re.IGNORECASE):
        return None
    if option := _OPTION.match(sentence) or _OPTION_NOT.match(sentence):
        return option[1]
    formulas = _formulas(sentence)
    if formulas is None and len(_LATIN_WORD.findall(sentence)) > 3 and (only := _only_number(sentence)) is not None:
        return only
    if formulas is not None:
        before = sentence[: _maths(sentence)[0].start()]
        return None if _HEDGE.search(before) else formulas
    if aside := _ASIDE.fullmatch(sentence):
        return aside[1]
    return _unwrapped(sentence)


def _phrase(text: str) -> Statement | None:
    """The last "final answer", or else the last "answer is", that is followed by an answer."""
    for pattern in (_FINAL, _PHRASE):
        for match in reversed(list(pattern.finditer(text))[-8:]):
            said = _said(_sentence(text, match.end()))
            if said is not None:
                return Statement(match.end(), "phrase", said)
    return None


def _last_sentence(text: str) -> str:
    tail = text[-_TAIL:].rstrip()
    position = 0
    masked = tail
    for match in _maths(tail):
        masked = masked[: match.start()] + "x" * len(match[0]) + masked[match.end() :]
    masked = masked.rstrip(" .!?。।*")
    for match in _SENTENCE_END.finditer(masked):
        position = match.end()
    newline = masked.rfind("\n")
    return tail[max(position, newline + 1) :].strip()


def _numbers(text: str) -> list[re.Match[str]]:
    return [match for match in _VALUE.finditer(text) if match[0].strip()]


def _only_number(sentence: str) -> str | None:
    """The number of a sentence that has one number, and neither hedges nor denies it; else None."""
    values = _numbers(sentence)
    if len(values) != 1 or _HEDGE.search(sentence) or _NEGATION.search(sentence):
        return None
    return _unbracketed(values[0][0])


def _unbracketed(value: str) -> str:
    return value.strip().strip("[]").strip()


def _conclusion(text: str, last_resort: bool) -> str | None:
    """The value that the last sentence ends with, or, as a last resort, the last formula or number of the text."""
    sentence = _last_sentence(text)
    if _HEDGE.search(sentence):
        return None
    formulas = _formulas(sentence)
    if formulas is not None:
        last = _maths(sentence)[-1]
        if last_resort or len(sentence[last.end() :].split()) <= 8:
            return formulas
    if bold := list(_BOLD.finditer(sentence)):
        return _unwrapped(bold[-1][1])
    alone = len(text.strip()) <= _MAX_STATEMENT and sentence == text.strip()
    concluding = list(_CONCLUDING.finditer(sentence))
    end = sentence[concluding[-1].end() :] if concluding else sentence
    if (alone or concluding) and (only := _only_number(end)) is not None:
        return only
    values = _numbers(sentence)
    if not values and last_resort:
        sentence = text[-_TAIL:]
        if (formulas := _formulas(sentence)) is not None:
            return formulas
        values = _numbers(sentence)
    if not values:
        return None
    before, after = sentence[: values[-1].start()], sentence[values[-1].end() :]
    if _NEGATION.search(after) or _NEGATION.search(before[-6:]):
        return None
    if last_resort or (_PREDICATE.search(before) and _AFTER.fullmatch(after)):
        return _unbracketed(values[-1][0])
    return None


def _bare(text: str) -> Statement | None:
    """The whole text where it is nothing but an answer, or the value that its last sentence ends with."""
    stripped = text.strip()
    if not stripped:
        return None
    if option := _OPTION_NOT.match(stripped):
        return Statement(0, "bare", option[1])
    if len(stripped) <= _MAX_STATEMENT and "\n\n" not in stripped:
        match = _MATH.fullmatch(stripped.removesuffix("."))
        if match is not None or not _maths(stripped):
            plain = re.sub(r"\\[a-zA-Z]+|[\\{}]", " ", stripped)
            words = re.findall(r"[^\W\d_]{2,}", re.sub(r"\\(?:text|mathrm|operatorname)\s*\{[^{}]*\}", " ", plain))
            numeral = re.search(r"\d", plain)
            sentence = numeral and len(words) > 1 and _LATIN_WORD.match(stripped)
            if match is not None or (len(words) <= (2 if numeral else 8) and not sentence):
                return Statement(0, "bare", _unwrapped(stripped))
    answer = _conclusion(text, last_resort=False)
    return None if answer is None else Statement(0, "bare", answer)


_FINDERS: Mapping[str, Callable[[str], Statement | None]] = {
    "boxed": _boxed,
    "answer": _tagged,
    "hash": _hashed,
    "phrase": _phrase,
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
    if "bare" in formats and (statement := _bare(text)) is not None:
        return statement
    if last_number and (answer := _conclusion(text, last_resort=True)) is not None:
        return Statement(0, NUMBER_FORMAT, answer)
    return None


def _overrides(text: str, phrase: Statement) -> bool:
    """Whether a phrase after the last box is a later answer: only a "final answer" with something to calculate with."""
    before = text[max(0, phrase.start - 40) : phrase.start]
    return bool(_FINAL.search(before)) and bool(re.match(r"[-+(\[{\\$\d|]", phrase.answer))
