"""Finding the program in what a policy wrote."""

import functools
import re
import textwrap

from markdown_it import MarkdownIt

MAX_PROGRAM = 200_000  # characters

_PYTHON = ("python", "python3", "py")


@functools.cache
def _parser(containers: bool) -> MarkdownIt:
    """A parser of fenced blocks; HTML is text to it.

    Args:
      containers: blocks may lie in list items and quotes, whose indentation and marks are not theirs. Otherwise those
        are text, and blocks may be indented as far as they like.
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

    Blocks are those of CommonMark, in list items and quotes, too. Where that finds none, one that is indented is no
    less a block, and where its lines lie left of the list item that it starts in, the list does not count. A block that
    is not closed goes on to the end. Returns an empty text where there is no program: no text, or only blocks of other
    languages.
    """
    inner, outer = _blocks(completion, containers=True), _blocks(completion, containers=False)
    for languages in (_PYTHON, ("",)):
        found = [[text for language, text in blocks if language in languages] for blocks in (inner, outer)]
        for text in [*(texts[-1] for texts in found if texts), *reversed(found[0])]:
            if text.strip():
                return text
    return completion if completion.strip() and not outer else ""


def preamble_of(prompt: str, entry_point: str) -> str:
    """The code before the function that the prompt asks for: imports and helpers."""
    starts = [match.start() for match in re.finditer(rf"^(?:async )?def {re.escape(entry_point)}\b", prompt, re.M)]
    return prompt[: starts[-1]] if starts else prompt


def completed(prompt: str, entry_point: str, text: str) -> str:
    """The program of a HumanEval completion: a whole function, or the body that goes on where the prompt ends."""
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
