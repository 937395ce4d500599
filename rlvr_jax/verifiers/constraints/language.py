"""The language of a text, by `langdetect`: the detector of IFEval's own checker, made deterministic.

langdetect (https://github.com/Mimino666/langdetect) draws random numbers: with its defaults it may call one short text
German and then Dutch. Here its generator starts from the same seed for every text, its profiles are loaded in the
order of their names, and none of its global state is touched, so a text has one language, in every process.
"""

import functools
from pathlib import Path
from typing import Any

MAX_LENGTH = 20_000  # characters that are looked at; langdetect itself reads the first 10,000, after removing addresses

_WORDS_TO_TELL = 5  # with fewer, the language is a guess


@functools.cache  # two threads may both load, each its own: the detector is whole before anyone sees it
def _detectors() -> Any:
    from langdetect import detector_factory  # takes a while, and only some constraints need it

    factory = detector_factory.DetectorFactory()
    factory.seed = 0
    profiles = sorted(Path(detector_factory.PROFILES_DIRECTORY).iterdir())
    factory.load_json_profile([profile.read_text(encoding="utf-8") for profile in profiles])
    return factory


def is_english(text: str) -> bool:
    """True if the text is English by langdetect; a text of a few words is if it has only English letters.

    langdetect is unreliable for such short texts: it takes `STOP!` for Norwegian.
    """
    if len(text.split()) < _WORDS_TO_TELL:
        letters = [character for character in text if character.isalpha()]
        return bool(letters) and all(map(str.isascii, letters))
    return detect_language(text) == "en"


def known_languages() -> tuple[str, ...]:
    """The codes that `detect_language` may return: ISO 639-1, and zh-cn and zh-tw."""
    return tuple(_detectors().langlist)


def detect_language(text: str) -> str | None:
    """The code of the text's language, e.g. "en"; None if it has no letters to tell by, or no language stands out."""
    from langdetect.lang_detect_exception import LangDetectException

    detector = _detectors().create()
    detector.append(text[:MAX_LENGTH])
    try:
        code = detector.detect()
    except LangDetectException:
        return None
    return None if code == detector.UNKNOWN_LANG else code
