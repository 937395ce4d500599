"""Extraction of the program from a completion."""

import functools
import re
import textwrap

from markdown_it import MarkdownIt

MAX_PROGRAM = 200_000  # characters

_PYTHON = ("python", "python3", "py")


@functools.cache
def _parser(containers: bool) -> MarkdownIt:
    """A parser of fenced blocks; HTML counts as text.

    Args:
      containers: blocks may be inside of list items and quotes, whose indentation and marks are removed. Otherwise
        these are text, and blocks may be indented arbitrarily.
    """
    parser = MarkdownIt("commonmark")
    parser.core.ruler.enableOnly(["normalize", "block"])
    parser.block.ruler.enableOnly(["fence", "paragraph", *(["code", "list", "blockquote"] if containers else [])])
    return parser


def _blocks(completion: str, containers: bool) -> list[tuple[str, str]]:
    """Language and text of each fenced block."""
    fences = [token for token in _parser(containers).parse(completion) if token.type == "fence"]
    return [("".join(token.info.split()[:1]).lower(), token.content.removesuffix("\n")) for token in fences]


def program_of(completion: str) -> str:
    """The last block fenced as Python; else the last block without a language; else all the text.

    Blocks are those of CommonMark, also in list items and quotes. If there are none, indented fences count, too, and a
    list item is ignored if the lines of the block are left of it. An unclosed block extends to the end. Returns an
    empty
    text without a program: no text, or only blocks of other languages.
    """
    inner, outer = _blocks(completion, containers=True), _blocks(completion, containers=False)
    for languages in (_PYTHON, ("",)):
        found = [[text for language, text in blocks if language in languages] for blocks in (inner, outer)]
        for text in [*(texts[-1] for texts in found if texts), *reversed(found[0])]:
            if text.strip():
                return text
    return completion if completion.strip() and not outer else ""


def preamble_of(prompt: str, entry_point: str) -> str:
    """The code before the function of the prompt: imports and helpers."""
    starts = [match.start() for match in re.finditer(rf"^(?:async )?def {re.escape(entry_point)}\b", prompt, re.M)]
    return prompt[: starts[-1]] if starts else prompt


def completed(prompt: str, entry_point: str, text: str) -> str:
    """The program of a HumanEval completion: a complete function, or a body that continues the prompt."""
    name = re.escape(entry_point)
    if re.search(rf"^(?:(?:async )?def|class) {name}\b|^{name}\s*(?::[^=\n]*)?=", text, re.M):
        return preamble_of(prompt, entry_point) + "\n" + text
    lines = text.split("\n")
    first = next((number for number, line in enumerate(lines) if line.strip()), 0)
    if not lines[first][:1].isspace():  # the indentation was lost: of the first line, or of all
        rest = [line for line in lines[first + 1 :] if line.strip()]
        if rest and all(line[:1].isspace() for line in rest) and not lines[first].rstrip().endswith(":"):
            lines[first] = "    " + lines[first]
            text = "\n".join(lines)
        else:
            text = textwrap.indent(text, "    ")
    return prompt + ("" if prompt.endswith("\n") else "\n") + text
