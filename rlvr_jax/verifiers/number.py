"""The `####` number of GSM8K: a worked solution ends with `#### 72`, and only that number is compared.

The convention is that of the data set (https://github.com/openai/grade-school-math). Its own checker searches for the
first `#### number` and ignores what else the line says; here the last `####` counts, since that is the answer which
the writer settled on, and a line that hedges (`#### 3 or 4`) has no answer.
"""

import re

from rlvr_jax.verifiers.verdict import Verdict

MAX_LINE = 200  # characters of an answer line
MAX_DIGITS = 40  # of an answer

_SIGN = r"[-+\u2212]"
_WORD = r"[^\W\d_]+"
_NUMBER = r"(?P<whole>[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)?(?:\.(?P<decimals>[0-9]+))?"
_REST_OF_LINE = re.compile(r"[^\r\n]*")
# An optional sign and dollar, the number, then at most a percent sign or a unit of up to three words, and a full stop.
_LINE = re.compile(
    rf"(?P<sign>{_SIGN}?)\s?\$?\s?(?P<sign_after>{_SIGN}?){_NUMBER}\s?(?P<unit>%|{_WORD}(?:[ /]{_WORD}){{0,2}})?\.?"
)
# Words that do not name a unit but change the number before them, or offer another one.
_NOT_A_UNIT = re.compile(
    r"\b(or|and|to|not|nor|but|than|plus|minus|times|divided|over|by|point|squared|cubed|halve?s?|e|k|mil|mio|mn|bn|b"
    r"|zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|dozens?|score"
    r"|(hundred|thousand|million|billion|trillion)(s|ths?)?|half|thirds?|quarters?|(four|fif|six|seven|eigh|nin|ten)ths?)\b",
    re.IGNORECASE,
)


def canonical_number(text: str) -> str:
    """The one way to write the number in `text`: `$1,080.50` → `1080.5`, `-0` → `0`. Equal numbers, equal results.

    Accepted are a sign, `$`, commas between groups of three digits, decimals, and after them `%` or a unit of up to
    three words, which are ignored, and a full stop.

    Raises:
      ValueError: `text` is anything else, or longer than the bounds of this module.
    """
    text = text.strip()
    if len(text) > MAX_LINE:
        raise ValueError(f"the answer line is longer than {MAX_LINE} characters")
    match = _LINE.fullmatch(text)
    if match is None or not (match["whole"] or match["decimals"]) or (match["sign"] and match["sign_after"]):
        raise ValueError(f"{text!r} is not one number")
    unit = match["unit"] or ""
    if _NOT_A_UNIT.search(unit):
        raise ValueError(f"{text!r} is not one number: {unit!r} is not a unit")
    whole, decimals = (match["whole"] or "").replace(",", ""), match["decimals"] or ""
    if len(whole) + len(decimals) > MAX_DIGITS:
        raise ValueError(f"a number of {len(whole) + len(decimals)} digits, more than {MAX_DIGITS}")
    whole, decimals = whole.lstrip("0") or "0", decimals.rstrip("0")
    magnitude = f"{whole}.{decimals}" if decimals else whole
    negative = (match["sign"] or match["sign_after"]) in ("-", "\u2212") and magnitude != "0"
    return f"-{magnitude}" if negative else magnitude


def verify(completion: str, reference: str) -> Verdict:
    """Scores 1 if the number after the last `####` of the completion, on the same line, equals `reference`.

    The comparison is exact: `18.00` is `18`, `17.999` is not. `answer` is the canonical number.

    Parts: `format` (there is a `####` with one number after it).

    Raises:
      ValueError: `reference` is not a number.
    """
    if not isinstance(reference, str):
        raise ValueError(f"the reference of a gsm8k example is a number as text, not {reference!r}")
    try:
        right = canonical_number(reference)
    except ValueError as error:
        raise ValueError(f"the reference of a gsm8k example is a number as text: {error}") from None
    start = completion.rfind("####")
    if start < 0:
        return Verdict(0.0, {"format": 0.0}, reason="no #### in the completion")
    line = _REST_OF_LINE.match(completion, start + len("####"))
    try:
        answer = canonical_number(line[0])
    except ValueError as error:
        return Verdict(0.0, {"format": 0.0}, reason=str(error))
    if answer == right:
        return Verdict(1.0, {"format": 1.0}, answer, "right")
    return Verdict(0.0, {"format": 1.0}, answer, f"{answer} is not {right}")
