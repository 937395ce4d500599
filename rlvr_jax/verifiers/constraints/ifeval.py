"""The 25 instructions of IFEval (Zhou et al. 2023, https://arxiv.org/abs/2311.07911) as functions of a response.

Each check takes the response and the instruction's kwargs, and returns whether the response follows it. Decisions are
those of the published checker, odd ones included, so that scores are comparable:

- `number_bullet_lists` is exact, not "at least", and counts every line that starts with `-`, dividers too.
- `number_highlighted_sections` pairs asterisks wherever they stand in a line: `2 * 3 * 4` has a highlight.
- `title` takes all from the first `<<` to the last `>>` of a line for one title.
- `nth_paragraph_first_word` counts the paragraphs that are not blank, but finds the n-th among all of them.
- `constrained_response` looks for its options anywhere, `postscript` for its marker; a section is `SECTION 1` anywhere.
- `json_format` takes any JSON value, a bare number too.
- Words are runs of letters and digits (`don't` is two, and so are words of Indic scripts with vowel signs, as in NLTK
  before 3.10), capital words are tokens (`DON'T` is two), and a line of text without a full stop is a part of the next
  sentence.

They differ where the published checker contradicts its own instructions, or is unsafe:

- A keyword is itself, not a regular expression: `C++` and `a.b` mean what they say. A forbidden one that begins or ends
  with a sign is found beside anything, also in `C++11` and `ASP.NET`; the published checker finds it only there.
- Text of fewer than five words in capitals or small letters is English if its letters may be: langdetect, which the
  published checker asks, guesses.
- A text whose language can't be told does not follow a language instruction; the published checker lets it pass.
- A kwarg that is missing or out of its range is an error; the published checker draws one at random, and it does so
  for the `letter` of the prompts 1122 (`#`) and 1129 (`!`). Here that very character is counted, as those prompts ask.
- JSON that is nested too deeply for Python's parser is not followed. The published checker raises an exception.
- Sentences and tokens are those of `text`, not of NLTK; `e.g.` and `i.e.` end none.
"""

import json
import re
from collections.abc import Callable, Mapping
from typing import Literal

from rlvr_jax.verifiers.constraints.language import detect_language, is_english, known_languages
from rlvr_jax.verifiers.constraints.text import count_words, phrase_pattern, sentences, tokens

Relation = Literal["less than", "at least"]

_OPTIONS = ("My answer is yes.", "My answer is no.", "My answer is maybe.")
_HIGHLIGHT, _BOLD = re.compile(r"\*([^\n*]*+)\*"), re.compile(r"\*\*([^\n*]*+)\*\*")
# With the spaces that people put between the letters. Texts are lowered before.
_POSTSCRIPTS = {"P.S.": re.compile(r"p\.\s?s\."), "P.P.S": re.compile(r"p\.\s?p\.\s?s")}
_FENCES = ("```json", "```Json", "```JSON", "```")


def _holds(count: int, relation: Relation, threshold: int) -> bool:
    return count < threshold if relation == "less than" else count >= threshold


def _occurrences(phrase: str, text: str) -> int:
    """Occurrences of the phrase in the text, in any case, within words too; overlapping ones count once."""
    return sum(1 for _ in re.finditer(re.escape(phrase), text, re.IGNORECASE))


def _keywords(response: str, *, keywords: list[str]) -> bool:
    return all(re.search(re.escape(keyword), response, re.IGNORECASE) for keyword in keywords)


def _keyword_frequency(response: str, *, keyword: str, frequency: int, relation: Relation) -> bool:
    return _holds(_occurrences(keyword.strip(), response), relation, frequency)


def _forbidden_words(response: str, *, forbidden_words: list[str]) -> bool:
    return not any(phrase_pattern(word.strip()).search(response) for word in forbidden_words)


def _letter_frequency(response: str, *, letter: str, let_frequency: int, let_relation: Relation) -> bool:
    if len(letter) != 1:
        raise ValueError(f"letter must be one character, not {letter!r}")
    return _holds(response.lower().count(letter.lower()), let_relation, let_frequency)


def _response_language(response: str, *, language: str) -> bool:
    if language not in known_languages():
        raise ValueError(f"language {language!r} is not known; the known ones are {', '.join(known_languages())}")
    return detect_language(response) == language


def _number_sentences(response: str, *, num_sentences: int, relation: Relation) -> bool:
    return _holds(len(sentences(response)), relation, num_sentences)


def _number_paragraphs(response: str, *, num_paragraphs: int) -> bool:
    paragraphs = [paragraph.strip() for paragraph in response.split("***")]
    return all(paragraphs[1:-1]) and sum(map(bool, paragraphs)) == num_paragraphs


def _number_words(response: str, *, num_words: int, relation: Relation) -> bool:
    return _holds(count_words(response), relation, num_words)


def _nth_paragraph_first_word(response: str, *, num_paragraphs: int, nth_paragraph: int, first_word: str) -> bool:
    if not 1 <= nth_paragraph <= num_paragraphs:
        raise ValueError(f"nth_paragraph must be between 1 and num_paragraphs = {num_paragraphs}, not {nth_paragraph}")
    paragraphs = response.split("\n\n")
    if sum(1 for paragraph in paragraphs if paragraph.strip()) != num_paragraphs:
        return False
    words = paragraphs[nth_paragraph - 1].split(maxsplit=1)
    if not words:
        return False
    word = words[0].lstrip("'").lstrip('"')
    return re.split(r"[.,?!'\"]", word, maxsplit=1)[0].lower() == first_word.lower()


def _number_placeholders(response: str, *, num_placeholders: int) -> bool:
    count = 0
    for line in response.split("\n"):
        end = 0
        while (start := line.find("[", end)) >= 0 and (end := line.find("]", start) + 1) > 0:
            count += 1
    return count >= num_placeholders


def _postscript(response: str, *, postscript_marker: str) -> bool:
    marker = postscript_marker.strip()
    if pattern := _POSTSCRIPTS.get(marker):
        return pattern.search(response.lower()) is not None
    return marker.lower() in response.lower()


def _number_bullet_lists(response: str, *, num_bullets: int) -> bool:
    lines = [line.lstrip() for line in response.split("\n")]
    count = sum(1 for line in lines if line.startswith("-"))
    rest = iter(lines)
    for line in rest:
        if line == "*":  # a bullet whose text is in the next line, which then is no bullet with an asterisk itself
            count += next(rest, None) is not None
        elif line.startswith("*"):
            count += line[1] != "*"
    return count == num_bullets


def _constrained_response(response: str) -> bool:
    return any(option in response for option in _OPTIONS)


def _number_highlighted_sections(response: str, *, num_highlights: int) -> bool:
    found = _HIGHLIGHT.findall(response) + _BOLD.findall(response)
    return sum(1 for section in found if section.strip()) >= num_highlights


def _multiple_sections(response: str, *, section_spliter: str, num_sections: int) -> bool:
    mark = re.compile(re.escape(section_spliter.strip()) + r"\s?\d+")
    return sum(1 for _ in mark.finditer(response)) >= num_sections


def _json_format(response: str) -> bool:
    text = response.strip()
    for fence in _FENCES:
        text = text.removeprefix(fence)
    try:
        json.loads(text.removesuffix("```").strip())
    except (ValueError, RecursionError):
        return False
    return True


def _title(response: str) -> bool:
    for line in response.split("\n"):
        start, end = line.find("<<"), line.rfind(">>")
        if 0 <= start < end - 2 and line[start : end + 2].lstrip("<").rstrip(">").strip():
            return True
    return False


def _two_responses(response: str) -> bool:
    parts = [part.strip() for part in response.split("******")]
    answers = list(filter(None, parts))
    return all(parts[1:-1]) and len(answers) == 2 and answers[0] != answers[1]


def _repeat_prompt(response: str, *, prompt_to_repeat: str) -> bool:
    return response.strip().lower().startswith(prompt_to_repeat.strip().lower())


def _end(response: str, *, end_phrase: str) -> bool:
    return response.strip().strip('"').lower().endswith(end_phrase.strip().lower())


def _capital_words(response: str, *, capital_frequency: int, capital_relation: Relation) -> bool:
    return _holds(sum(1 for token in tokens(response) if token.isupper()), capital_relation, capital_frequency)


def _english_capital(response: str) -> bool:
    return response.isupper() and is_english(response)


def _english_lowercase(response: str) -> bool:
    return response.islower() and is_english(response)


def _no_comma(response: str) -> bool:
    return "," not in response


def _quotation(response: str) -> bool:
    text = response.strip()
    return len(text) > 1 and text.startswith('"') and text.endswith('"')


CHECKS: Mapping[str, Callable[..., bool]] = {
    "change_case:capital_word_frequency": _capital_words,
    "change_case:english_capital": _english_capital,
    "change_case:english_lowercase": _english_lowercase,
    "combination:repeat_prompt": _repeat_prompt,
    "combination:two_responses": _two_responses,
    "detectable_content:number_placeholders": _number_placeholders,
    "detectable_content:postscript": _postscript,
    "detectable_format:constrained_response": _constrained_response,
    "detectable_format:json_format": _json_format,
    "detectable_format:multiple_sections": _multiple_sections,
    "detectable_format:number_bullet_lists": _number_bullet_lists,
    "detectable_format:number_highlighted_sections": _number_highlighted_sections,
    "detectable_format:title": _title,
    "keywords:existence": _keywords,
    "keywords:forbidden_words": _forbidden_words,
    "keywords:frequency": _keyword_frequency,
    "keywords:letter_frequency": _letter_frequency,
    "language:response_language": _response_language,
    "length_constraints:nth_paragraph_first_word": _nth_paragraph_first_word,
    "length_constraints:number_paragraphs": _number_paragraphs,
    "length_constraints:number_sentences": _number_sentences,
    "length_constraints:number_words": _number_words,
    "punctuation:no_comma": _no_comma,
    "startend:end_checker": _end,
    "startend:quotation": _quotation,
}
