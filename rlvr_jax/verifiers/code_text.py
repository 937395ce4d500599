"""Finding the program in what a policy wrote."""

import re
import textwrap

MAX_PROGRAM = 200_000  # characters

_PYTHON = ("python", "python3", "py")
_FENCE = re.compile(r"[ ]{0,3}(`{3,}|~{3,})[ ]*([\w+-]*)[^\n`]*")


def program_of(completion: str) -> str:
    """The last block fenced as Python; else the last block without a language; else all the text.

    A block that is not closed goes on to the end. Returns an empty text where there is no program: no text, or only
    blocks of other languages.
    """
    blocks: list[tuple[str, list[str]]] = []
    fence = ""
    for line in completion.split("\n"):
        match = _FENCE.fullmatch(line.rstrip())
        if fence:
            if match and match[1].startswith(fence) and not match[2]:
                fence = ""
            else:
                blocks[-1][1].append(line)
        elif match:
            fence = match[1]
            blocks.append((match[2].lower(), []))
    if not blocks:
        return completion if completion.strip() else ""
    for wanted in (_PYTHON, ("",)):
        for language, lines in reversed(blocks):
            if language in wanted and any(line.strip() for line in lines):
                return "\n".join(lines)
    return ""


def preamble_of(prompt: str, entry_point: str) -> str:
    """What stands before the function that the prompt asks for: imports and helpers."""
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
