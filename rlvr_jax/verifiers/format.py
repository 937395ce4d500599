"""Format checks for rewards: pure functions of a text that return a number in [0, 1], independent of correctness.

The text is the whole response, thoughts included; if the prompt has opened a thought, it starts with that `<think>`.

`config.reward` names them as terms, with non-default arguments in parentheses:

    config.reward = (
        ("score", 1.0),
        ("format/think_answer", 0.1),
        ("format/length(unit='words', high=400, slack=200)", 0.1),
        ("format/repetition(n=4)", -0.5),
    )

All take time linear in the length of the text. `language` is by far the slowest, about 10 ms for a long text.
"""

import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Literal

from rlvr_jax.text.tags import ANSWER, END_ANSWER, END_THINK, END_TOOL_CALL, THINK, TOOL_CALL, after_thinking


def think_answer(text: str) -> float:
    """1 if the text is `<think>…</think>` and then `<answer>…</answer>`, neither of them blank, and nothing else.

    Each tag occurs once, so that no second answer hides in the thinking.
    """
    tags = (THINK, END_THINK, ANSWER, END_ANSWER)
    if any(text.count(tag) != 1 for tag in tags):
        return 0.0
    before, _, rest = text.partition(THINK)
    thinking, _, rest = rest.partition(END_THINK)
    between, _, rest = rest.partition(ANSWER)
    answer, closed, after = rest.partition(END_ANSWER)
    outside = (before + between + after).strip()
    return float(bool(closed and thinking.strip() and answer.strip() and not outside))


def length(
    text: str, *, unit: Literal["words", "characters"] = "words", low: int = 0, high: int, slack: int = 0
) -> float:
    """1 for a length between `low` and `high`, 0 outside; above `high` it falls linearly to 0 over `slack` units.

    The slope is that of DAPO's overlong penalty (https://arxiv.org/abs/2503.14476, equation 13), as a reward.

    Args:
      text: the response.
      unit: of the other arguments; words are separated by white space.
      low, high: the budget.
      slack: beyond it.
    """
    if unit not in ("words", "characters") or not 0 <= low <= high or slack < 0:
        raise ValueError(
            "length needs a unit of 'words' or 'characters', 0 <= low <= high and slack >= 0, not "
            f"unit={unit!r}, low={low}, high={high}, slack={slack}"
        )
    count = len(text.split()) if unit == "words" else len(text)
    if count < low:
        return 0.0
    return 1.0 if count <= high else max(0.0, 1 - (count - high) / (slack + 1))


def repetition(text: str, *, n: int = 3) -> float:
    """The share of n-grams of words that occurred before, case-insensitively: 0 if all differ, near 1 in a loop."""
    if n < 1:
        raise ValueError(f"repetition needs n >= 1, not {n}")
    words = text.lower().split()
    total = len(words) - n + 1
    # zip of shifted lists, not slices in a loop: no list is made for an n-gram.
    return 1 - len(set(zip(*(words[i:] for i in range(n)), strict=False))) / total if total > 0 else 0.0


def script(text: str, *, name: str = "LATIN") -> float:
    """The share of the letters that belong to a script; 1 for a text without letters.

    Args:
      text: the response.
      name: prefix of the Unicode names of the script's letters: LATIN, CYRILLIC, GREEK, ARABIC, DEVANAGARI, CJK,
        HIRAGANA, HANGUL, …
    """
    letters = {character: count for character, count in Counter(text).items() if character.isalpha()}
    inside = sum(count for x, count in letters.items() if unicodedata.name(x, "").startswith(name.upper()))
    total = sum(letters.values())
    return inside / total if total else 1.0


def language(text: str, *, code: str = "en") -> float:
    """1 if langdetect finds the text to be in the language of an ISO 639-1 code (zh-cn or zh-tw for Chinese)."""
    from rlvr_jax.verifiers.constraints.language import detect_language, known_languages  # slow to load

    if code not in known_languages():
        raise ValueError(f"language {code!r} is not known; the known ones are {', '.join(known_languages())}")
    return float(detect_language(text) == code)


def _is_call(text: str) -> bool:
    try:
        call: Any = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return (
        isinstance(call, dict)
        and call.keys() == {"name", "arguments"}
        and isinstance(call["name"], str)
        and call["name"] != ""
        and isinstance(call["arguments"], dict)
    )


def tool_calls(text: str) -> float:
    """The share of the `<tool_call>`s that are well-formed; 0 if there are none, or tags don't pair up.

    The syntax is that of Hermes and Qwen: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`. A call inside
    of a thought does not count.
    """
    first, *calls = (after_thinking(text) or "").split(TOOL_CALL)
    if not calls or END_TOOL_CALL in first or any(call.count(END_TOOL_CALL) != 1 for call in calls):
        return 0.0
    return sum(1 for call in calls if _is_call(call.partition(END_TOOL_CALL)[0])) / len(calls)


CHECKS: Mapping[str, Callable[..., float]] = {
    "think_answer": think_answer,
    "length": length,
    "repetition": repetition,
    "script": script,
    "language": language,
    "tool_calls": tool_calls,
}
