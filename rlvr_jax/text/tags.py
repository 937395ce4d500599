"""The tags that policies write around thoughts, answers and tool calls, and what counts as said.

A thought is not said: no verifier sees it. `rlvr_jax.verifiers.guarded` cuts it off for all of them. Its tags count in
capitals, too, or a policy could think aloud in `<THINK>` and be judged on its thoughts.
"""

import re

THINK, END_THINK = "<think>", "</think>"
ANSWER, END_ANSWER = "<answer>", "</answer>"
TOOL_CALL, END_TOOL_CALL = "<tool_call>", "</tool_call>"
TAGS = (THINK, END_THINK, ANSWER, END_ANSWER, TOOL_CALL, END_TOOL_CALL)

# Letter by letter: a search that ignores case in other alphabets, too, takes the Kelvin sign for a K.
_OPENS, _CLOSES = (re.compile(f"<{slash}[tT][hH][iI][nN][kK]>") for slash in ("", "/"))


def after_thinking(text: str) -> str | None:
    """The text after the last `</think>`, or all of it where nobody thinks.

    None while a thought is open at the end of the text: a `<think>` without a `</think>` behind it. What stands before
    a thought does not count either, whoever answers first and thinks then has not settled on that answer.

    Args:
      text: the response, with the `<think>` before it if the prompt has opened a thought.
    """
    start = 0
    for match in _CLOSES.finditer(text):
        start = match.end()
    return None if _OPENS.search(text, start) else text[start:]


def opens_thinking(prompt: str) -> bool:
    """True if the prompt ends inside a thought that the completion has to close."""
    return _OPENS.fullmatch(prompt.rstrip()[-len(THINK) :]) is not None


def answer_in_tags(text: str) -> str | None:
    """The content of the last `<answer>…</answer>`, stripped; None if there is none."""
    end = text.rfind(END_ANSWER)
    start = text.rfind(ANSWER, 0, end) if end >= 0 else -1
    return text[start + len(ANSWER) : end].strip() if start >= 0 else None
