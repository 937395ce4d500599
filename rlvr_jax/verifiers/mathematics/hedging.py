"""Words that withdraw or limit an answer, or offer another one: hedges, negations, corrections, bounds."""

import re

_GAP_NOISE = re.compile(r"\\text\s*\{|\\q?quad|\\[,;:! ]|\\[()\[\]]|[{}$*\s]|\\\\")
_JOINED = re.compile(r"(?:.{0,30}?)(?:[,;&]|\b(?:and|or|und|oder|et|ou|y|o)|[,;]?(?:and|or))[,:]?", re.IGNORECASE)
HEDGE = re.compile(
    r"\b(?:or|either|alternatively|maybe|perhaps|possibly|(?:could|might|may)(?: also| well| even)? be|not sure"
    r"|otherwise)\b",
    re.IGNORECASE,
)
CORRECTION = re.compile(
    r"\b(?:wait|actually|correct(?:ion|ed)?|instead|mistake|no,|sorry|therefore|thus|so|hence)\b", re.IGNORECASE
)
NEGATION = re.compile(
    r"\b(?:not|isn't|wasn't|cannot|can't|never|wrong|incorrect|neither|nor|rather than|no)\b|n't\b|不是", re.IGNORECASE
)
NOT_THE_NEXT = re.compile(r"(?:\b(?:not|never|rather than|instead of|isn't|wasn't)|不是)[\s$({*]*$", re.IGNORECASE)
# What denies the value that it follows: `is not the answer`, but not `is not 5`.
_DENIED = re.compile(
    r"[\s$)\]}*.,;:\"'\\]*"
    r"(?:(?:hm+|oh|ah|oops|wait|no|actually|sorry|hold on|hang on)\b[\s,.!\u2026-]*){0,3}(?:"
    r"(?:just kidding|scratch that|never mind|on second thoughts?)|"
    r"(?:(?:but )?(?:which|that|this|it)(?=\s|['\u2019]s\b)\s*)?(?:"
    r"(?:is|['\u2019]s|was|are|were|would be|seems?|looks)(?:\s+(?:clearly|obviously|also|certainly))*\s+"
    r"(?:(?:wrong|incorrect|false|impossible|invalid)(?! to\b)|too (?:big|small|large|low|high|much|many|few)"
    r"|a mistake|an error)"
    r"|(?:(?:is|['\u2019]s|was|are|were|would be)(?:\s+(?:clearly|obviously|certainly))*(?:\s+not|n['\u2019]t)"
    r"|can(?:not|['\u2019]t| not)\s+be)"
    r"\s+(?:(?:the|an?|our|my)\s+(?:\w+\s+)?(?:answer|solution|result|option|choice)|right|correct|it|what|true"
    r"|valid|possible(?! to))"
    r"|\?\s+no))\b",
    re.IGNORECASE,
)
# What limits a number instead of giving it.
BOUND = re.compile(
    r"\b(?:at (?:most|least)|(?:more|less|fewer|greater|bigger|smaller|larger|higher|lower|other) than|up to"
    r"|no more|between|multiple of|divisor of|factor of|power of)\b",
    re.IGNORECASE,
)


def side_by_side(gap: str) -> bool:
    """True if the text between two boxes makes them one statement: `,`, `and`, `or maybe`, nothing."""
    if len(gap) > 200:
        return False
    bare = _GAP_NOISE.sub("", gap)
    if not bare.strip(".,;:&-/|+"):
        return True
    words = _GAP_NOISE.sub(" ", gap).strip()
    if len(words) <= 40 and not re.search(r"[.!?]\s", words) and _JOINED.fullmatch(words):
        return True
    return bool(HEDGE.search(words)) and not CORRECTION.search(words)


def labels(gap: str) -> bool:
    """True if the text between two boxes does no more than say what the second is: `; the other root is`."""
    return len(gap) <= 100 and not CORRECTION.search(gap) and not NEGATION.search(gap)


def hedges(line: str) -> bool:
    """True if a line offers or denies a value: `Or maybe 18`, `not 17`."""
    start = line.strip(" *:")
    return bool(re.search(r"[\d$]", line)) and bool(HEDGE.match(start) or NEGATION.match(start))


def denied(text: str, start: int, end: int) -> bool:
    """True if a text says of what stands at [start, end) that it is not the answer."""
    return bool(NOT_THE_NEXT.search(text[max(0, start - 40) : start]) or _DENIED.match(text, end, end + 200))
