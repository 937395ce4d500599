"""Answers in sentences: after a phrase such as "the answer is", alone, or at the end of the last sentence."""

import re
from dataclasses import dataclass

from rlvr_jax.verifiers.mathematics.expression import FUNCTIONS
from rlvr_jax.verifiers.mathematics.hedging import BOUND, HEDGE, NEGATION, NOT_THE_NEXT, side_by_side
from rlvr_jax.verifiers.mathematics.quantity import NUMBER_WORD

MAX_STATEMENT = 1_000  # characters of a phrase's statement, and of a bare answer
MAX_CANDIDATES = 40  # from the end that are looked at
_TAIL = 4_000  # characters at the end in which phrases without a mark are searched

# A reason or an explanation after an answer: `12, as 5 + 7 = 12`.
_REASON = re.compile(
    r"(?:\s*[,;(\u2014\u2013]\s*(?:as(?! well| are| do| is)|by|which|given|so that)"
    r"|\s*[,;(\u2014\u2013]?\s*(?:because|since|where))\b(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
_REASON_DENIES = re.compile(r"\b(?:wrong|incorrect|mistake|false|not (?:the|my|right|correct))\b", re.IGNORECASE)
# A value at the start of a text: a number, a formula, an option in brackets, or a symbol that is no word.
STARTS_WITH_VALUE = re.compile(
    rf"[\s*(\[{{|]*(?:[-+\u2212±]?\s?[€£¥₹]?\s?(?:[.]?\d|[$\\√∞∅ℝπ½¼¾]|[a-zA-Z]\s*[=^_(<>]|[a-zA-Z]\s*$)|\(?[A-J][).:]"
    rf"|(?:{'|'.join(sorted(FUNCTIONS))}|sqrt|pi)\b|{NUMBER_WORD.pattern})",
    re.IGNORECASE,
)
_IS = re.compile(
    r"\b(?:is|are|was|equals?|est|sont|ist|es|son)(?:\s+(?:equal to|exactly|about|approximately|therefore|thus|then"
    r"|also|just|simply|only))*[\s:*]+|(?:[=:\uff1a为是有])[\s*]*",
    re.IGNORECASE,
)
_OPTION_IS_RIGHT = re.compile(
    r"\b(?:option|choice|answer)\s+\(?(?P<a>[A-J])\)?\s+(?:is|must be|would be)\s+"
    r"(?:indeed |therefore |thus |clearly )?"
    r"(?:the\s+)?(?:correct|right|best|answer)\b(?!\s+(?:only|if|unless|or|when|for))"
    r"|\b(?:choose|select|pick|go with)\s+(?:option |choice |answer )?\(?(?P<b>[A-J])\)?(?=[.!]?\s*$|[.!]\s)"
)
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
_TAGS = re.compile(r"</?answer>")
_MATH = re.compile(
    r"\$\$(?P<a>[^$]+)\$\$|(?<!\\)\$(?P<b>(?:[^$\\]|\\.)+)\$|\\\((?P<c>.+?)\\\)|\\\[(?P<d>.+?)\\\]", re.DOTALL
)
_BOLD = re.compile(r"\*\*(?P<a>[^*\n]{1,200})\*\*")
_SENTENCE_END = re.compile(
    r"(?<![A-Z]\.[A-Z])(?<!\b[A-Za-z])(?<!\b[DM]r)(?<!\bM[rs]s)(?<!\bMs)[.!?](?=\s|$|\")|[。\uff01\uff1f।]|\n\s*\n|</answer>|<\|[a-z_]+\|>"
)
_LEAD = re.compile(
    r"^(?:\s|:|\*|>|therefore|thus|hence|so|then|clearly|simply|just|that|is|be|the|for sure|definitely|approximately"
    r"|about|exactly|equal to|equals|indeed|now|option|choice|letter)+(?=[\s:*\"“(\\$\d.-]|$)\s*",
    re.IGNORECASE,
)
_TEXT = re.compile(r"\\(?:text\w*|mathrm|mbox|operatorname|begin|end)\s*\{[^{}]*\}")
_WORD = re.compile(r"(?<!\\)(?<![^\W\d_])[^\W\d_]{2,}")
_OPTION = re.compile(r"^(?:\(([A-J])\)|([A-J])(?![\w)]))(?=[.,:;*]|\s*$|\s*[。\uff0c])")
_OTHER_OPTION = re.compile(r"(?<![\w\\])[B-J](?!\w)|\bA\b(?!\s+[a-z])|\bor\b")
_OTHER_NEGATION = re.compile(r"\W*(?:non|pas|nicht)\b")
_OPTION_NOT = re.compile(r"^\(?([A-J])\)?[\s,.;:。\uff0c]*(?=(?:not|non|pas|nicht|no)\s|不是)")
_VALUE = re.compile(
    r"(?<![A-Za-z0-9_.,/^\\])(?:[-\u2212+]\s?)?[$€£¥]?\s?\\?(?:[1-9]\d{0,2}(?:,\d{3})+(?!\d)|\d+(?: \d{3})*(?! ?\d))?"
    r"(?:\.\d+)?(?<=\d)(?:/\d+(?:\.\d+)?)?(?:[eE][-+]?\d+)?(?:\s?\\?%|\s?percent\b|[€£])?|\[[^\[\]\n]{1,40}\]"
)
_CHANGES = re.compile(
    r"(?:\b(?:times|plus|minus|negative|by|(?<!total )of|than|root|over|step|case|number|part|line|after|before"
    r"|except|but"
    r"|without|like|near|log)|[-+*/^\u00d7\u00f7])\s*\(?$",
    re.IGNORECASE,
)
# A verb before the number that it gives: `she pays $12`.
_GIVES = re.compile(
    r"\b(?:needs?|takes?|took|costs?|pa(?:ys|y|id)|spen(?:ds?|t)|earn(?:s|ed)?|ma(?:kes?|de)|s(?:ells?|old)|b(?:uys?|ought)"
    r"|g(?:ets?|ot)|receive[sd]?|save[sd]?|eats?|ate|use[sd]?|walk(?:s|ed)?|r[au]ns?|travel(?:s|ed)?|reads?|weigh(?:s|ed)?"
    r"|left with|total of|becomes?|remains?)(?: (?:only|just|exactly|about|around|approximately))?[\s*($]*$"
    r"|[共要到得了]\s*$",
    re.IGNORECASE,
)
_ORDINAL = re.compile(r"(?:st|nd|rd|th)\b")
_OR_ELSE = re.compile(r"[\s.!?*]*(?:or|maybe|perhaps|alternatively|possibly)\b", re.IGNORECASE)
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
    return [match for match in _MATH.finditer(text) if not match["b"] or not _between_prices(match)]


def _between_prices(match: re.Match[str]) -> bool:
    """True if a `$…$` is prose from the sign of one price to that of the next: `$5 for each and $`."""
    words = len(_WORD.findall(_TEXT.sub("", match["b"])))
    next_price = match["b"].endswith(" ") and match.string[match.end() : match.end() + 1].isdigit()
    return words >= 3 or (words >= 1 and next_price)


def _formulas(sentence: str) -> tuple[str, str] | None:
    """The last formulas that stand side by side in a sentence, with a percent sign or `or` that follows, or None.

    First comes what stands before them.
    """
    matches = _maths(sentence)[-MAX_CANDIDATES:]
    if not matches:
        return None
    while len(matches) > 1 and NOT_THE_NEXT.search(sentence[: matches[-1].start()]):
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
    if (rest := re.search(r"\bor\b\s+(.*)", after)) or NEGATION.search(after):
        parts.append(rest[1] if rest else r"\text{not}")
    return sentence[: group[-1].start()], " ; ".join(parts)


def _said(sentence: str) -> str | None:
    """The answer in the sentence that follows a phrase, or None if it says nothing or denies it."""
    sentence = _LEAD.sub("", _TAGS.sub(" ", sentence), count=1)
    if not sentence.strip(' .*$"') or re.match(r"(?:not|n't)\b", sentence.strip(), re.IGNORECASE):
        return None
    if (option := _option(sentence)) is not None:
        return option
    sentence = without_reason(_predicate(sentence))
    if (found := _formulas(sentence)) is not None:
        before, formulas = found
        return unwrapped(sentence) if HEDGE.search(before) or BOUND.search(before) else formulas
    if _is_prose(sentence) and (only := _only_number(sentence)) is not None:
        before = sentence[: sentence.index(only)]
        if len(_WORD.findall(sentence)) > 3 or _PREDICATE.search(before) or _GIVES.search(before):
            return only
    if (aside := _ASIDE.fullmatch(sentence)) and not _REASON_DENIES.search(sentence):
        return aside[1]
    return unwrapped(sentence)


def _option(sentence: str) -> str | None:
    """The letter of an option at the start of a sentence that names no other."""
    found = _OPTION_NOT.match(sentence) or _OPTION.match(sentence)
    if found is None:
        return None
    rest = sentence[found.end() :]
    denial = NEGATION.search(rest) or _OTHER_NEGATION.match(rest)  # of the other options: B, not C
    if re.search(r"\bsure\b", rest) or _OTHER_OPTION.search(rest, 0, denial.start() if denial else len(rest)):
        return None
    return found[1] or found[found.lastindex]


def _is_prose(sentence: str) -> bool:
    """True if a sentence starts with words that say of what it gives the number."""
    return not STARTS_WITH_VALUE.match(sentence) and bool(_WORD.match(sentence))


def _predicate(sentence: str) -> str:
    """The value that a sentence gives its subject: `20 cm` of `The area of $ABCD$ is 20 cm`; or all of it."""
    if not _is_prose(sentence):
        return sentence
    inside = [match.span() for match in _maths(sentence)]
    for match in _IS.finditer(sentence):
        if not any(start < match.start() < end for start, end in inside):
            rest, before = sentence[match.end() :], sentence[: match.start()]
            if STARTS_WITH_VALUE.match(rest) and not (HEDGE.search(before) or NEGATION.search(before)):
                return rest
    return sentence


def without_reason(sentence: str) -> str:
    """A sentence that starts with its answer, without the clause that says why."""
    found = _REASON.search(sentence) if STARTS_WITH_VALUE.match(sentence) else None
    if found is None or found.start() == 0 or HEDGE.search(found["rest"]) or _REASON_DENIES.search(found["rest"]):
        return sentence
    return sentence[: found.start()]


def phrase_statement(text: str) -> Statement | None:
    """The last "final answer", or else the last "answer is", that is followed by an answer."""
    for pattern in (FINAL, _PHRASE):
        for match in reversed(list(pattern.finditer(text))[-8:]):
            sentence = _sentence(text, match.end())
            said = _said(sentence)
            if said is not None:
                rest = text[text.find(sentence, match.end()) + len(sentence) :][:40]
                return Statement(match.end(), "phrase", f"{said} or" if _OR_ELSE.match(rest) else said)
    return _option_statement(text)


def _option_statement(text: str) -> Statement | None:
    """The option that the text says to be right (`option (C) is correct`), unless it hedges or denies around that."""
    start = max(0, len(text) - _TAIL)
    found = next(reversed(list(_OPTION_IS_RIGHT.finditer(text, start))), None)
    if found is None:
        return None
    around = text[max(start, found.start() - 60) :]
    if HEDGE.search(around) or NEGATION.search(around):
        return None
    return Statement(found.start(), "phrase", found["a"] or found["b"])


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
    """The number of a sentence that has one number, and neither hedges, denies, limits nor changes it; else None."""
    values = _numbers(sentence)
    if len(values) != 1 or any(pattern.search(sentence) for pattern in (HEDGE, NEGATION, BOUND)):
        return None
    before = sentence[: values[0].start()]
    if any(NUMBER_WORD.fullmatch(word) for word in _WORD.findall(sentence)) or _CHANGES.search(before):
        return None
    return None if _ORDINAL.match(sentence, values[0].end()) else _unbracketed(values[0][0])


def _unbracketed(value: str) -> str:
    return value.strip().strip("[]").strip()


def conclusion(text: str, last_resort: bool) -> str | None:
    """The value that the last sentence ends with, or, as a last resort, the last formula or number of the text."""
    sentence = _last_sentence(text)
    if HEDGE.search(sentence):
        return None
    if (found := _formulas(sentence)) is not None:
        last = _maths(sentence)[-1]
        before, formulas = found
        if BOUND.search(before) or NOT_THE_NEXT.search(before):
            return None
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
        if (found := _formulas(sentence)) is not None:
            return found[1]
        values = _numbers(sentence)
    if not values:
        return None
    before, after = sentence[: values[-1].start()], sentence[values[-1].end() :]
    if NEGATION.search(after) or NEGATION.search(re.split(r"[,;\d]", before)[-1]):
        return None
    if last_resort or (_PREDICATE.search(before) and _AFTER.fullmatch(after)):
        return _unbracketed(values[-1][0])
    return None


def bare_statement(text: str) -> Statement | None:
    """The whole text where it is nothing but an answer, or the value that its last sentence ends with."""
    stripped = text.strip()
    if not stripped:
        return None
    if _OPTION_NOT.match(stripped) and (option := _option(stripped)) is not None:
        return Statement(0, "bare", option)
    if len(stripped) <= MAX_STATEMENT and "\n\n" not in stripped:
        match = _MATH.fullmatch(stripped.removesuffix("."))
        if match is not None or not _maths(stripped):
            plain = re.sub(r"\\[a-zA-Z]+|[\\{}]", " ", stripped)
            words = re.findall(r"[^\W\d_]{2,}", re.sub(r"\\(?:text|mathrm|operatorname)\s*\{[^{}]*\}", " ", plain))
            numeral = re.search(r"\d", plain)
            sentence = numeral and len(words) > 1 and _WORD.match(stripped)
            if match is not None or (len(words) <= (2 if numeral else 8) and not sentence):
                return Statement(0, "bare", unwrapped(stripped))
    answer = conclusion(text, last_resort=False)
    return None if answer is None else Statement(0, "bare", answer)
