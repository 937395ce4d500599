r"""A number with words after it: `12 red pens` is 12; `12 or so`, `12 dozen` and `12 times x` are not.

Words are dropped only where they name what is counted. A word that changes the number, denies it, limits it, or offers
another one makes the text no quantity.
"""

import re
from dataclasses import dataclass

from rlvr_jax.verifiers.mathematics.expression import FUNCTIONS, NAMES
from rlvr_jax.verifiers.mathematics.latex import clean

MAX_QUANTITY = 200  # characters
_MAX_WORDS = 16

_NUMBER_WORDS = (
    r"zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|(?:thir|four|fif|six|seven|eigh|nine)teen"
    r"|(?:twen|thir|for|fif|six|seven|eigh|nine)ty|(?:hundred|thousand|million|billion|trillion|zillion)(?:s|ths?)?"
    r"|half|halve[ds]?|thirds?|quarters?|(?:four|fif|six|seven|eigh|nin|ten)ths?|dozens?|score|once|twice|doubled?"
    r"|tripled?"
)
NUMBER_WORD = re.compile(rf"(?:{_NUMBER_WORDS})\b", re.IGNORECASE)
# Words that the name of a unit does not have among them.
NOT_A_NAME = re.compile(
    rf"\b(?:{_NUMBER_WORDS}"
    # another number, or none
    r"|or|and|nor|but|either|neither|maybe|perhaps|possibly|probably|might|may|could|otherwise|alternatively|instead"
    r"|not|never|no|none|wrong|incorrect|false|invalid|unless|if|whether|depending|depends|unsure|wait"
    r"|isn|wasn|aren|won|don|doesn|didn|can|cannot|couldn|is|was|be|been"
    # bounds
    r"|least|most|minimum|maximum|above|below|beyond|onwards?|upwards?"
    # arithmetic
    r"|plus|minus|divided|multiplied|squared|cubed|factorial|negative|choose|mod|modulo|point|power|root"
    r"|than (?:the|this|that|it|what)|abc|xyz)\b|n['\u2019]t\b|[或不非百万萬亿億兆半]|千(?![克米瓦卡])",
    re.IGNORECASE,
)
_SCALE = re.compile(r"[\s-]*(?:e|k|mil|mio|mn|bn|tn|b|t)\b", re.IGNORECASE)
# Where the name of the unit ends: `3 boxes | of tea`, `16.50 | on bread`, `2 cups | a day`, `9 years | old`.
_UNIT_END = re.compile(
    r"\b(?:of|on|in|at|for|from|to|with|by|a|an|the|each|every|that|who|which|than|left|remaining|more|less|fewer|total"
    r"|altogether|old|long|tall|wide|high|deep|away|ago|later|times?)\b.*",
    re.IGNORECASE,
)
_SYMBOLS = {name.lower() for name in FUNCTIONS | NAMES} | {"pi", "sqrt", "infinity"}
_SHORT_UNITS = frozenset(
    [
        *"mgshLlWVNJA",
        "cm",
        "mm",
        "km",
        "dm",
        "kg",
        "mg",
        "lb",
        "oz",
        "ft",
        "yd",
        "mi",
        "hr",
        "pm",
        "am",
        "PM",
        "AM",
        "ml",
        "mL",
    ]
)

_SIGN = r"[-+]"
_CURRENCY = r"[€£¥₹$]"
_NUMBER = r"(?P<whole>[0-9]{1,3}(?:,[0-9]{3})+|[1-9][0-9]{0,2}(?: [0-9]{3})+|[0-9]+)?(?:\.(?P<decimals>[0-9]+))?"
_START = re.compile(
    rf"(?P<sign>{_SIGN}?)\s?{_CURRENCY}?\s?(?P<sign_after>{_SIGN}?)\s?{_NUMBER}(?![0-9,]*[0-9])\s?{_CURRENCY}?"
    r"\s?(?P<percent>%|(?:percent|pct)\b)?"
)
_WORDS = re.compile(r"(?:[^\W\d_]|[\s/()'\u2019°-])*(?:[.。]|(?<=[^\W\d_])!)?")
_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")


@dataclass(frozen=True)
class Quantity:
    """A number and its unit.

    Attributes:
      whole, decimals: digits, either may be empty.
      negative: whether a minus stands before them.
      percent: whether it is a percentage.
      unit: the words that follow, up to the first that is no part of a name; or `""`.
    """

    whole: str
    decimals: str
    negative: bool
    percent: bool
    unit: str

    def latex(self) -> str:
        """The quantity for the comparison of formulas: `-12.5\\%`, `12\\text{ red pens}`."""
        number = ("-" if self.negative else "") + self.whole + (f".{self.decimals}" if self.decimals else "")
        return number + (r"\%" if self.percent else rf"\text{{ {self.unit}}}" if self.unit else "")


def quantity(text: str) -> Quantity | None:
    """The number that a text is, with nothing but its sign, currency, percent sign and words after it; or None.

    LaTeX (`\\$12`, `12\\text{ cm}`, `1{,}200`) is read as what it shows.
    """
    if len(text) > MAX_QUANTITY:
        return None
    text = _TEXT.sub(r" \1", clean(text.strip())).strip()
    found = _START.match(text)
    if found is None or not (found["whole"] or found["decimals"]) or (found["sign"] and found["sign_after"]):
        return None
    rest = text[found.end() :]
    words = re.findall(r"[^\W\d_]+", rest)
    if not _WORDS.fullmatch(rest) or len(words) > _MAX_WORDS or re.match(r"/|(?:st|nd|rd|th)\b", rest):
        return None
    if NOT_A_NAME.search(rest) or (not found["percent"] and _SCALE.match(rest)) or not _names(words, rest):
        return None
    whole = re.sub("[ ,]", "", found["whole"] or "")
    unit = _UNIT_END.sub("", rest.strip(" .!()")).strip(" -/()")
    negative = "-" in (found["sign"], found["sign_after"])
    return Quantity(whole, found["decimals"] or "", negative, bool(found["percent"]), unit)


def _names(words: list[str], rest: str) -> bool:
    """True if words after a number can name what is counted: `3 xy`, `3 pi` and `3 times x` are products."""
    if not words:
        return not rest.strip(" .。°")
    if any(word.lower() in _SYMBOLS for word in words):
        return False
    if any(len(word) == 1 and word.isascii() and word not in ("a", "A", "I", "s", "t") for word in words[1:]):
        return False
    first = words[0]
    return not first.isascii() or len(first) > 2 or first in _SHORT_UNITS or len("".join(words)) > 5
