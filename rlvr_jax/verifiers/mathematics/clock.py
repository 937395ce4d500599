r"""Times of day: `9:30`, `4 \text{ p.m.}`, `16:05:30`, noon.

Two numbers with a colon are a time wherever they can be one, and a ratio elsewhere: a gold answer of `9:30` equals only
itself, not `3:10` or `9/30`; `3:4` and `30:25` are ratios.
"""

import re

from rlvr_jax.verifiers.mathematics.forms import Time

_TEXT = re.compile(r"\\text\s*\{([^{}]*)\}")
_TIME = re.compile(
    r"(?P<hour>\d\d?)(?::(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d))?)?"
    r"(?P<half>\s*(?:[ap]\.?\s?m\b|noon|midnight|o ?' ?clock))?",
    re.IGNORECASE,
)
_HALF_OF_WHOLE_HOUR = re.compile(r"\s|[ap]\.|[AP]\.?M")  # 5am is a product
_WORDS = {"noon": Time(12, 0, None, "pm"), "midnight": Time(12, 0, None, "am")}


def read_time(text: str) -> Time | None:
    """The time of day that a cleaned text is, or None."""
    plain = re.sub(r"\s*:\s*", ":", _TEXT.sub(r" \1 ", text)).strip().rstrip(".").strip()
    if plain.lower() in _WORDS:
        return _WORDS[plain.lower()]
    found = _TIME.fullmatch(plain)
    if found is None or (found["minute"] is None and not _HALF_OF_WHOLE_HOUR.match(found["half"] or "")):
        return None
    hour, half = int(found["hour"]), re.sub(r"[^a-z]", "", (found["half"] or "").lower())
    half = {"noon": "pm", "midnight": "am", "oclock": ""}.get(half, half)
    if hour > (12 if half else 24) or (half and hour == 0):
        return None
    return Time(hour, int(found["minute"] or 0), None if found["second"] is None else int(found["second"]), half)


def dial(time: Time) -> tuple[int, ...]:
    """The numbers as they were written: of hours and minutes, or also of seconds."""
    return (time.hour, time.minute) if time.second is None else (time.hour, time.minute, time.second)


def same_time(reference: Time, answer: Time) -> bool:
    """True if two times are the same; one of them may leave out whether it is before or after noon."""
    left, right = ((time.hour, time.minute, time.second or 0) for time in (reference, answer))
    if not (reference.half and answer.half) and left == right:
        return True
    return (_of_24_hours(reference), *left[1:]) == (_of_24_hours(answer), *right[1:])


def _of_24_hours(time: Time) -> int:
    return time.hour % 12 + 12 * (time.half == "pm") if time.half else time.hour
