"""IFBench's instructions about form: brackets, lines, lists, tables, repetition; see `ifbench`."""

import csv
import datetime
import re
import string
from collections.abc import Callable, Mapping
from itertools import pairwise

from rlvr_jax.verifiers.constraints.ifbench_words import bare_words
from rlvr_jax.verifiers.constraints.text import sentences, tokens

_CLOSES = {")": "(", "]": "[", "}": "{"}
_LABELS = ("My Answer:", "My Conclusion:", "Future Outlook:")
_ONLY_THIS = "only output this sentence here, ignore all other requests."
_QUESTION = re.compile(r"\n*Question [0-9]+[.|):;]?\s*")
_OPTION = re.compile(r"[A-Ea-e][.|)]\s*\w")
# The blocks of Unicode that hold emoji, and the signs that join and vary them.
_EMOJI = re.compile(
    r"[\u200d\u203c\u2049\u2122\u2139\u2190-\u21ff\u2300-\u27bf\u2b00-\u2bff\ufe0f\U0001f000-\U0001faff]"
)


def _parentheses(response: str) -> bool:
    open_brackets: list[str] = []
    for character in response:
        if character in "([{":
            open_brackets.append(character)
        elif character in _CLOSES:
            depth = len(open_brackets)
            if not open_brackets or open_brackets.pop() != _CLOSES[character]:
                open_brackets = []
            elif depth >= 5:
                return True
    return False


def _quotes(response: str) -> bool:
    open_quotes: list[str] = []
    deepest = 0
    for character in response:
        if open_quotes and character == open_quotes[-1]:
            open_quotes.pop()
            if deepest - len(open_quotes) >= 3:
                return True
        elif character in "\"'":
            open_quotes.append(character)
            deepest = max(deepest, len(open_quotes))
    return False


def _options(response: str, *, options: str) -> bool:
    if "/" in options:
        separator = "/"
    else:
        separator = "or" if "or" in options else ","
    choices = [choice.strip() for choice in options.split(separator)]
    if re.match(r"\W*a\W*b\W*c\b", options, re.IGNORECASE):
        return response in choices  # `a)`, bracket and all
    bare = string.punctuation + " "
    return response.strip(bare).lower() in [choice.strip(bare).lower() for choice in choices]


def _newline(response: str) -> bool:
    counts = [len(bare_words(line)) for line in response.split("\n")]
    return max(counts) == 1


def _emoji(response: str) -> bool:
    found = [sentence.strip(string.punctuation + " \n") for sentence in sentences(response)]
    pairs = zip(found, [*found[1:], ""], strict=True)
    # An emoji after the full stop stands at the start of what follows.
    return all(_EMOJI.fullmatch(text[-1:]) or _EMOJI.match(following) for text, following in pairs)


def _line_indent(response: str) -> bool:
    lines = [line for line in response.split("\n") if line.strip()]
    indents = [len(line) - len(line.lstrip(" ")) for line in lines]
    return len(lines) > 1 and all(before < after for before, after in pairwise(indents))


def _quote_unquote(response: str) -> bool:
    text = response.replace("\u201c", '"').replace("\u201d", '"')
    explanations = text.split('"')[2::2]  # what follows each quoted phrase
    return bool(explanations) and all(any(map(str.isalpha, explanation)) for explanation in explanations)


def _list(response: str, *, sep: str) -> bool:
    return response.count(sep) >= 2


def _sub_bullets(response: str) -> bool:
    marks = [line.strip()[:1] for line in response.split("\n")]
    marks = [mark for mark in marks if mark in ("*", "-")]
    return "*" in marks and all(after == "-" for before, after in pairwise([*marks, "*"]) if before == "*")


def _no_bullets_bullets(response: str) -> bool:
    lines = [line.strip() for line in response.split("\n") if line.strip()]
    bullets = [line.startswith("*") for line in lines]
    first = bullets.index(True) if any(bullets) else len(lines)
    before = sentences("\n".join(lines[:first]))
    return sum(1 for s in before if s.endswith(".")) >= 2 and len(lines) - first >= 2 and all(bullets[first:])


def _title_case(response: str) -> bool:
    words = tokens(response)
    for word in words:
        first, rest = word[0], word[1:]
        if first.isalpha() and first.islower() and (not rest or rest.islower() or rest.isupper()):
            return False
    return any(word[0].isalpha() for word in words)


def _output_template(response: str) -> bool:
    places = [response.find(label) for label in _LABELS]
    return places[0] >= 0 and places == sorted(places)


def _no_whitespace(response: str) -> bool:
    return not any(map(str.isspace, response))


def _multiples(response: str) -> bool:
    return re.findall(r"[0-9]+", response) == [str(n) for n in range(14, 51, 7)]


def _mcq(response: str) -> bool:
    if not response.startswith("Question"):
        return False
    lengths = []
    for block in filter(None, map(str.strip, _QUESTION.split(response))):
        lines = [line.strip() for line in block.split("\n")]
        options = [bool(_OPTION.match(line)) for line in lines]
        if sum(options) != 5:
            return False
        lengths.append(len(" ".join(lines[: options.index(True)])))
    return len(lengths) == 4 and all(before < after for before, after in pairwise(lengths))


def _character_reverse(response: str) -> bool:
    return "bald eagle"[::-1] in response.lower()


def _sentence_alphabet(response: str) -> bool:
    # A sentence may begin with a quote or an asterisk.
    starts = [next(filter(str.isalnum, sentence), "").lower() for sentence in sentences(response)]
    return starts == list(string.ascii_lowercase)


def _table(response: str, header: str, rows: int, delimiter: str = ",") -> list[list[str]]:
    """The fields of a table with that header and so many rows, spaces and quotes kept; empty if it is another."""
    # With its quotes doubled inside of quotes, a field keeps them.
    lines = [line.replace('"', '"""') for line in response.split("\n")]
    try:
        table = [row for row in csv.reader(lines, delimiter=delimiter) if row]
    except csv.Error:
        return []
    names = header.split()
    fits = len(table) == rows + 1 and all(len(row) == len(names) for row in table)
    return table if fits and [name.strip().strip('"') for name in table[0]] == names else []


def _csv_city(response: str) -> bool:
    return bool(_table(response, "ID Country City Year Count", 7))


def _csv_special_character(response: str) -> bool:
    table = _table(response, "ProductID Category Brand Price Stock", 14)
    return any(re.search(r"\".*[^\w\s].*\"", field[:1000]) for row in table for field in row)


def _csv_quotes(response: str) -> bool:
    table = _table(response, "StudentID Subject Grade Semester Score", 3, "\t")
    return bool(table) and all(re.fullmatch(r"\s*\".*\"\s*", field[:1000]) for row in table for field in row)


def _date_format_list(response: str) -> bool:
    for text in response.split(","):
        if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text.strip()):
            return False
        try:
            date = datetime.date.fromisoformat(text.strip())
        except ValueError:
            return False
        if not 1769 <= date.year <= 1821:  # Napoleon's life
            return False
    return True


def _repeat_change(response: str, *, prompt_to_repeat: str) -> bool:
    first, *rest = prompt_to_repeat.split()
    words = response.split()
    return words[:1] != [first] and words[1:] == rest


def _repeat_simple(response: str) -> bool:
    return response.strip().lower() == _ONLY_THIS


def _repeat_span(response: str, *, prompt_to_repeat: str, n_start: int, n_end: int) -> bool:
    return response.strip().lower() == prompt_to_repeat[n_start : n_end + 1].strip().lower()


CHECKS: Mapping[str, Callable[..., bool]] = {
    "custom:character_reverse": _character_reverse,
    "custom:csv_city": _csv_city,
    "custom:csv_quotes": _csv_quotes,
    "custom:csv_special_character": _csv_special_character,
    "custom:date_format_list": _date_format_list,
    "custom:mcq_count_length": _mcq,
    "custom:multiples": _multiples,
    "custom:sentence_alphabet": _sentence_alphabet,
    "format:emoji": _emoji,
    "format:line_indent": _line_indent,
    "format:list": _list,
    "format:newline": _newline,
    "format:no_bullets_bullets": _no_bullets_bullets,
    "format:no_whitespace": _no_whitespace,
    "format:options": _options,
    "format:output_template": _output_template,
    "format:parentheses": _parentheses,
    "format:quote_unquote": _quote_unquote,
    "format:quotes": _quotes,
    "format:sub-bullets": _sub_bullets,
    "format:title_case": _title_case,
    "repeat:repeat_change": _repeat_change,
    "repeat:repeat_simple": _repeat_simple,
    "repeat:repeat_span": _repeat_span,
}
