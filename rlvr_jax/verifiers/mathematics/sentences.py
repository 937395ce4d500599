"""Answers in sentences: after a phrase such as "the answer is", alone, or at the end of the last sentence."""

import re
from dataclasses import dataclass

MAX_STATEMENT = 1_000  # characters of a phrase's statement, and of a bare answer
MAX_CANDIDATES = 40  # from the end that are looked at
_TAIL = 4_000  # characters at the end in which phrases without a mark are searched

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
FINAL = re.compile(r"final\s+answer\b(?:\s+is\b|\s*[:=])?\**\s*:?", re.IGNORECASE)
_PHRASE = re.compile(
    r"(?:\b(?:answers?|(?:correct|right|best) (?:option|choice))\s*(?:(?:is|are|=|equals|would be|will be"
    r"|should be|must be)\b|[:=])"
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
      format: one of the formats of `extract`, or `number`.
      answer: its text; `""` if it is empty.
    """

    start: int
    format: str
    answer: str


def side_by_side(gap: str) -> bool:
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


def unwrapped(text: str) -> str:
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
    window = text[start : start + MAX_STATEMENT]
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
    matches = _maths(sentence)[-MAX_CANDIDATES:]
    if not matches:
        return None
    while len(matches) > 1 and _NOT_THE_NEXT.search(sentence[: matches[-1].start()]):
        matches.pop()  # $3$, not $4$
    group = [matches[-1]]
    for match in reversed(matches[:-1]):
        if not side_by_side(sentence[match.end() : group[-1].start()]):
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
    return unwrapped(sentence)


def phrase_statement(text: str) -> Statement | None:
    """The last "final answer", or else the last "answer is", that is followed by an answer."""
    for pattern in (FINAL, _PHRASE):
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


def conclusion(text: str, last_resort: bool) -> str | None:
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
        return unwrapped(bold[-1][1])
    alone = len(text.strip()) <= MAX_STATEMENT and sentence == text.strip()
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


def bare_statement(text: str) -> Statement | None:
    """The whole text where it is nothing but an answer, or the value that its last sentence ends with."""
    stripped = text.strip()
    if not stripped:
        return None
    if option := _OPTION_NOT.match(stripped):
        return Statement(0, "bare", option[1])
    if len(stripped) <= MAX_STATEMENT and "\n\n" not in stripped:
        match = _MATH.fullmatch(stripped.removesuffix("."))
        if match is not None or not _maths(stripped):
            plain = re.sub(r"\\[a-zA-Z]+|[\\{}]", " ", stripped)
            words = re.findall(r"[^\W\d_]{2,}", re.sub(r"\\(?:text|mathrm|operatorname)\s*\{[^{}]*\}", " ", plain))
            numeral = re.search(r"\d", plain)
            sentence = numeral and len(words) > 1 and _LATIN_WORD.match(stripped)
            if match is not None or (len(words) <= (2 if numeral else 8) and not sentence):
                return Statement(0, "bare", unwrapped(stripped))
    answer = conclusion(text, last_resort=False)
    return None if answer is None else Statement(0, "bare", answer)
