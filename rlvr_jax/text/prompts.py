"""Prompts: rendering a problem to the text that the policy continues.

A chat template is the tokenizer's own (Jinja), rendered exactly. Base models have none and get a plain template with
placeholders for system prompt and problem, in the style of DeepSeek-R1-Zero. The tokenizer's start token (such as
`<s>`) is prepended unless a chat template has rendered the prompt, which writes its own.

Thinking: templates with `enable_thinking` (Qwen3, SmolLM3) get its value; for any other prompt, "on" appends an opened
`<think>`, and "off" adds nothing.

Tools are described by the chat template if it knows the format of their calls, otherwise in front of the problem.

Observations and the prompts of later context windows are text: whatever they contain, no token of theirs is an added
token of the tokenizer (those that mark turns, thoughts and calls), but for those of the template and white space.
"""

import datetime
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rlvr_jax.text.messages import Messages
from rlvr_jax.text.tags import THINK, opens_thinking
from rlvr_jax.text.tokenizers import encode, text_start

# DeepSeek-R1 (arXiv:2501.12948), table 1, with a placeholder for a system prompt.
R1_ZERO = (
    "{system}A conversation between User and Assistant. The user asks a question, and the Assistant solves it. The "
    "assistant first thinks about the reasoning process in the mind and then provides the user with the answer. The "
    "reasoning process and answer are enclosed within <think> </think> and <answer> </answer> tags, respectively, "
    "i.e., <think> reasoning process here </think> <answer> answer here </answer>. User: {prompt}. Assistant:"
)
_TODAY = re.compile(r"""strftime_now\(\s*(?P<quote>['"])(?P<format>.*?)(?P=quote)\s*\)""")
_ANSWER = "d41d8cd98f00"  # that no template writes itself
_CUT = "\ue000"  # of the private use area: the text on both sides of it is encoded by itself
_MORE = "…"  # at the end of a text that was cut
LONGEST = 32  # characters for each token of a text that is cut; what is behind these is not counted
DATE = "2025-01-01"  # the default date of chat templates


@dataclass(frozen=True)
class PromptConfig:
    """The rendering of a problem to the text that the policy continues.

    Attributes:
      format: "plain" is the problem alone; "chat" the tokenizer's chat template, or `template` if it has none;
        "template" always `template`.
      template: text with the placeholders {system} and {prompt}.
      date: year-month-day for chat templates with today's date, so that runs are reproducible.
    """

    format: Literal["plain", "chat", "template"] = "plain"
    template: str = R1_ZERO
    date: str = DATE


@dataclass(frozen=True)
class Tools:
    """Tools that a prompt describes.

    Attributes:
      schemas: for chat templates, in the form of OpenAI's API.
      instructions: the same in words, for prompts without such a template; empty for none.
      native: a text of the chat templates that describe calls in the format of these; empty if there are none.
      variable: of these templates that has the tools, if it is another than that of most.
    """

    schemas: tuple[Mapping[str, Any], ...]
    instructions: str
    native: str = ""
    variable: str = ""


def renderer(
    tokenizer: Any,
    kind: Literal["plain", "chat", "template"],
    template: str,
    system: str = "",
    thinking: Literal["default", "on", "off"] = "default",
    shots: Sequence[tuple[str, str]] = (),
    date: str = DATE,
    tools: Tools | None = None,
) -> Callable[[str | Messages], str]:
    """The function from a problem (text or chat messages) to the prompt.

    Args:
      tokenizer: of the policy; its chat template is used for "chat" only.
      kind: "plain" is the problem alone, including a line break at its end, which the others strip; "chat" is the
        tokenizer's chat template, or `template` if it has none; "template" is always `template`.
      template: text with the placeholders {system}, for the system prompt and a line break, and {prompt}.
      system: system prompt; empty for none.
      thinking: see the module.
      shots: (problem, answer) pairs before the problem: earlier turns of the chat, or text.
      date: year-month-day, for chat templates with a date.
      tools: that the policy may call.

    Raises:
      ValueError: the chat template can't be rendered with these, or there is no placeholder for the system prompt. From
        the function: the messages need a chat template, or have a system prompt in addition to `system`.
    """
    chat = getattr(tokenizer, "chat_template", None) if kind == "chat" else None
    first = "" if chat else text_start(tokenizer)
    known = tool_options(tokenizer, tools) if chat else {}
    if tools and tools.instructions and not known:
        if shots:
            shots = [(_instructed(tools, shots[0][0]), shots[0][1]), *shots[1:]]
        else:
            render = renderer(tokenizer, kind, template, system, thinking, (), date)
            return lambda problem: render(_instructed(tools, problem))
    if kind == "plain":
        if system:
            raise ValueError("a system prompt needs prompt format 'chat' or 'template', it is 'plain'")
        before = "".join(f"{problem}{answer}\n\n" for problem, answer in shots)
        return lambda problem: _thinking(_begun(before + _single(problem), first), thinking)
    if chat is None:
        if system and "{system}" not in template:
            raise ValueError("there is a system prompt, but the template has no placeholder {system}")
        start = template.replace("{system}", f"{system}\n" if system else "")  # not str.format: problems hold braces
        again = template.replace("{system}", "")
        asked = lambda text, problem: text.replace("{prompt}", _single(problem).rstrip("\n"))  # noqa: E731
        solved = [f"{asked(again if turn else start, q)} {answer}\n\n" for turn, (q, answer) in enumerate(shots)]
        before, last = "".join(solved), again if shots else start
        return lambda problem: _thinking(_begun(before + asked(last, problem), first), thinking)

    switch, knows_switch = _switch(chat, thinking)
    options: dict[str, Any] = {**switch, **known}

    def render(problem: str | Messages) -> str:
        if isinstance(problem, str):
            problem = ({"role": "user", "content": problem.rstrip("\n")},)
        elif system and problem[0]["role"] == "system":
            raise ValueError("the messages have a system prompt, and the task's config has another one")
        messages = [{"role": "system", "content": system}] * bool(system)
        for question, answer in shots:
            messages.append({"role": "user", "content": question.rstrip("\n")})
            messages.append({"role": "assistant", "content": answer})
        messages.extend(problem)
        text = chat_text(tokenizer, messages, date=date, add_generation_prompt=True, **options)
        return text if knows_switch else _thinking(text, thinking)

    render("1 + 1 = ?")  # errors of the template appear before any long work
    return render


def continuation(
    tokenizer: Any,
    kind: Literal["plain", "chat", "template"],
    thinking: Literal["default", "on", "off"] = "default",
    date: str = DATE,
    tools: Tools | None = None,
) -> Callable[[str | Messages, int], list[int]]:
    """The function (observation, last token of a turn) -> tokens inserted before the policy's next turn.

    With a chat template these are its tokens from the end of one answer to the beginning of the next; the end-of-turn
    token is left out if the policy has sampled it. Sampled tokens are never re-tokenised. The tokens are those of the
    rendered template, unless an observation contains the text of an added token, which is then encoded in parts.

    Args:
      tokenizer, kind, thinking, date, tools: as for `renderer`.

    Raises:
      ValueError: from the function: the template can't be rendered with these messages, or a text can't be encoded
        without added tokens.
    """
    chat = getattr(tokenizer, "chat_template", None) if kind == "chat" else None
    harmless = _harmless(tokenizer)
    if chat is None:
        return lambda observation, _: _encode_parts(tokenizer, harmless(_single(observation)))
    switch, knows_switch = _switch(chat, thinking)
    options = {**switch, **tool_options(tokenizer, tools)}

    def tokens(observation: str | Messages, last: int) -> list[int]:
        said = ({"role": "user", "content": observation},) if isinstance(observation, str) else observation
        said = [{**message, "content": harmless(message["content"])} for message in said]
        messages = [{"role": "user", "content": "1 + 1 = ?"}, {"role": "assistant", "content": _ANSWER}, *said]
        text = chat_text(tokenizer, messages, date=date, add_generation_prompt=True, **options)
        after = text.rpartition(_ANSWER)[2]
        ids = _encode_parts(tokenizer, after if knows_switch else _thinking(after, thinking))
        return ids[1:] if ids[:1] == [last] else ids

    return tokens


def window_prompt(tokenizer: Any, render: Callable[[str | Messages], str]) -> Callable[[str | Messages], list[int]]:
    """The function from a problem to the tokens of its prompt, for problems in which the policy or a tool has a say.

    Args:
      tokenizer: of the policy.
      render: from `renderer`; what it adds to the problem may have added tokens.

    Raises:
      ValueError: from the function: as `render`, or a text can't be encoded without added tokens.
    """
    harmless = _harmless(tokenizer)

    def tokens(problem: str | Messages) -> list[int]:
        if isinstance(problem, str):
            return _encode_parts(tokenizer, render(harmless(problem)))
        said = tuple({**message, "content": harmless(message["content"])} for message in problem)
        return _encode_parts(tokenizer, render(said))

    return tokens


def shortener(tokenizer: Any) -> Callable[[str, int], str]:
    """The function (text, number of tokens) -> the text, cut and with "…" at its end if it has more tokens than these.

    They are counted as `continuation` encodes the text by itself. The "…" is one of them, and left out where the
    tokenizer lacks it or there is room for nothing else. A text that can't be encoded is left as it is.
    """
    harmless = _harmless(tokenizer)

    def count(text: str) -> int:
        return len(_encode_parts(tokenizer, harmless(text)))

    try:
        mark, of_mark = _MORE, count(_MORE)
    except ValueError:
        mark, of_mark = "", 0

    def shorten(text: str, most: int) -> str:
        begin = text[: most * LONGEST]
        try:
            if count(begin) <= most and begin == text:
                return text
            ends = _token_ends(tokenizer, harmless(begin))
            end = mark if of_mark < most else ""
            kept = min(most - of_mark * bool(end), len(ends) - 1)
            while count(shorter := begin[: ends[kept]].rstrip() + end) > most:
                kept -= 1  # a text may be encoded otherwise before its end
            return shorter
        except ValueError:
            return text

    return shorten


def _token_ends(tokenizer: Any, text: str) -> list[int]:
    """The text's beginning and the place behind each token, in the text without its cuts."""
    ends, begin = [0], 0
    for part in text.split(_CUT):
        offsets = tokenizer.backend_tokenizer.encode(part, add_special_tokens=False).offsets
        ends += [begin + end for _, end in offsets]
        begin += len(part)
    return ends


def tool_options(tokenizer: Any, tools: Tools | None) -> dict[str, Any]:
    """The options with which the chat template describes tools; empty if it does not, or not in the format of these.

    SmolLM 3's has variables of its own: `xml_tools`, and `python_tools` for calls as Python, of functions alone.
    """
    if not (tools and tools.native):
        return {}
    schemas = list(tools.schemas)
    text = tokenizer.get_chat_template(tools=schemas)
    if tools.native not in text or "tools" not in text:
        return {}
    variable = tools.variable or ("xml_tools" if "xml_tools" in text else "tools")
    return {variable: schemas if variable == "tools" else [schema["function"] for schema in schemas]}


def _instructed(tools: Tools, problem: str | Messages) -> str | Messages:
    """The problem, or the first of its messages, behind the instructions for the use of tools."""
    if isinstance(problem, str):
        return f"{tools.instructions}\n\n{problem}"
    first, *rest = problem
    return ({**first, "content": f"{tools.instructions}\n\n{first['content']}"}, *rest)


def _harmless(tokenizer: Any) -> Callable[[str], str]:
    """The function that cuts a text within every added token of the tokenizer, for `_encode_parts`.

    Raises:
      ValueError: from the function: the text yields an added token nevertheless.
    """
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    guarded = {id: token.content for id, token in added.items() if token.content.strip()}
    contents = sorted(guarded.values(), key=len, reverse=True)
    found = re.compile("|".join(map(re.escape, contents))) if contents else None

    def cut(text: str) -> str:
        text = text.replace(_CUT, "")
        while found and (match := found.search(text)):
            if len(match[0]) == 1:
                raise ValueError(f"a text for the policy contains {match[0]!r}, a token that is no text")
            text = f"{text[: match.start() + 1]}{_CUT}{text[match.start() + 1 :]}"
        if guarded.keys() & set(_encode_parts(tokenizer, text)):  # of a tokenizer that changes texts before it encodes
            raise ValueError(f"a text can't be encoded without special tokens: {text.replace(_CUT, '')!r:.100}")
        return text

    return cut


def _encode_parts(tokenizer: Any, text: str) -> list[int]:
    """The tokens of the text, each part between cuts by itself."""
    return [id for part in text.split(_CUT) for id in encode(tokenizer, part)]


def _switch(chat: Any, thinking: str) -> tuple[dict[str, bool], bool]:
    """The chat template's option for thinking, and True if the template has it."""
    options = {} if thinking == "default" else {"enable_thinking": thinking == "on"}
    return options, "enable_thinking" in (chat if isinstance(chat, str) else str(chat))


def chat_text(tokenizer: Any, messages: Sequence[Mapping[str, Any]], date: str = DATE, **options: Any) -> str:
    """The rendering of messages by the tokenizer's chat template, with a given date.

    Raises:
      ValueError: the template can't be rendered with these messages.
    """
    try:
        template = _on_day(tokenizer.get_chat_template(tools=options.get("tools")), date)
        return tokenizer.apply_chat_template(list(messages), chat_template=template, tokenize=False, **options)
    except Exception as error:  # Jinja's errors, and those raised by templates
        system = " with a system prompt" if messages[0]["role"] == "system" else ""
        raise ValueError(
            f"the chat template of the tokenizer can't be rendered{system}: {type(error).__name__}: {error}. Prompt "
            "format 'template' does without it"
        ) from error


def _on_day(template: str, date: str) -> str:
    """The template with a fixed date in place of its calls for today's."""
    day = datetime.date.fromisoformat(date)
    fixed = _TODAY.sub(lambda match: repr(day.strftime(match["format"])), template)
    if "strftime_now(" in fixed:
        raise ValueError("it asks for today's date in a form that is computed, so that no two days' prompts are alike")
    return fixed


def end_of_turn(tokenizer: Any) -> int | None:
    """The token that the chat template writes after an answer; None if it writes none.

    Raises:
      ValueError: the template can't be rendered.
    """
    if getattr(tokenizer, "chat_template", None) is None:
        return None
    messages = [{"role": "user", "content": "1 + 1 = ?"}, {"role": "assistant", "content": _ANSWER}]
    _, found, behind = chat_text(tokenizer, messages).rpartition(_ANSWER)
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder()
    return next((token for token in encode(tokenizer, behind if found else "") if token in added), None)


def _begun(text: str, first: str) -> str:
    """The text with the tokenizer's start text prepended, unless it begins with that."""
    return text if text.startswith(first.rstrip()) else first + text


def _thinking(prompt: str, thinking: str) -> str:
    return f"{prompt}{THINK}\n" if thinking == "on" and not opens_thinking(prompt) else prompt


def _single(problem: str | Messages) -> str:
    """The problem as a single text, for prompts without a chat template."""
    if isinstance(problem, str):
        return problem
    if len(problem) > 1 or problem[0]["role"] != "user":
        roles = ", ".join(message["role"] for message in problem)
        raise ValueError(f"messages of {roles} need prompt format 'chat' and a tokenizer with a chat template")
    return problem[0]["content"]
