"""Tags around thoughts and answers, and the text that counts as the answer.

No verifier sees a thought: `rlvr_jax.verifiers.guarded` removes it for all of them. Thinking tags are case-insensitive,
or a policy could think in `<THINK>` and be judged on its thoughts.
"""

import re

THINK, END_THINK = "<think>", "</think>"
ANSWER, END_ANSWER = "<answer>", "</answer>"
TOOL_CALL, END_TOOL_CALL = "<tool_call>", "</tool_call>"
TAGS = (THINK, END_THINK, ANSWER, END_ANSWER, TOOL_CALL, END_TOOL_CALL)

# Letter by letter: case-insensitive search beyond ASCII takes the Kelvin sign for a K.
_OPENS, _CLOSES = (re.compile(f"<{slash}[tT][hH][iI][nN][kK]>") for slash in ("", "/"))


def after_thinking(text: str) -> str | None:
    """The text after the last `</think>`, or all of it without thoughts.

    None if the text ends in an open thought: a `<think>` without a later `</think>`. Text before a thought does not
    count either: an answer followed by more thinking is not final.

    Args:
      text: the response, preceded by `<think>` if the prompt has opened a thought.
    """
    if "<" not in text:  # most texts are short and without tags
        return text
    start = 0
    for match in _CLOSES.finditer(text):
        start = match.end()
    return None if _OPENS.search(text, start) else text[start:]


def opens_thinking(prompt: str) -> bool:
    """True if the prompt ends in an open thought, which the completion has to close."""
    end = prompt.rstrip()
    return end.endswith(">") and _OPENS.fullmatch(end[-len(THINK) :]) is not None


def answer_in_tags(text: str) -> str | None:
    """The content of the last `<answer>…</answer>`, stripped; None if there is none."""
    end = text.rfind(END_ANSWER)
    start = text.rfind(ANSWER, 0, end) if end >= 0 else -1
    return text[start + len(ANSWER) : end].strip() if start >= 0 else None


def between(text: str, opening: str, closing: str) -> list[str]:
    """The texts between the marks, each up to the next closing one, in time linear in the text."""
    found, at = [], 0
    while (start := text.find(opening, at)) >= 0 and (end := text.find(closing, start + len(opening))) >= 0:
        found.append(text[start + len(opening) : end])
        at = end + len(closing)
    return found
