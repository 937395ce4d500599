"""IFBench's instructions about words, sentences and counts; see `ifbench`."""

import re
import string
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise

from rlvr_jax.verifiers.constraints.text import count_words, phrase_pattern, sentences, tokens

# Also the marks of printed text, which the published checks take for letters.
_MARKS = string.punctuation + "\u2018\u2019\u201c\u201d\u00ab\u00bb\u2013\u2014\u2026\u2022"
_DELETE = str.maketrans("", "", _MARKS)
_JAPANESE = re.compile(r"[\u3040-\u30ff\u4e00-\u9fff]")  # kana and kanji
_CONSONANTS = re.compile(r"[b-df-hj-np-tv-z]{2}")
_CONJUNCTIONS = frozenset({"and", "but", "for", "nor", "or", "so", "yet"})
_PERSONAL = """
    i me my mine myself we us our ours ourselves you your yours yourself yourselves he him his himself she her hers
    herself it its itself they them their theirs themselves
"""
_OTHER_PRONOUNS = """
    this that these those who whom whose which what whoever whomever whatever whichever anybody anyone anything
    everybody everyone everything nobody nothing somebody someone something each either neither both all some any none
"""
_PRONOUNS = frozenset((_PERSONAL + _OTHER_PRONOUNS).split())
_NAMED = """
    Emma Liam Sophia Jackson Olivia Noah Ava Lucas Isabella Mason Mia Ethan Charlotte Alexander Amelia Benjamin Harper
    Leo Zoe Daniel Chloe Samuel Lily Matthew Grace Owen Abigail Gabriel Ella Jacob Scarlett Nathan Victoria Elijah Layla
    Nicholas Audrey David Hannah Christopher Penelope Thomas Nora Andrew Aria Joseph Claire Ryan Stella Jonathan
"""
_NAMES = frozenset(_NAMED.split())  # the list that the prompts give


def bare_words(text: str) -> list[str]:
    """The words between spaces, without the punctuation around them; `don't` stays one, `--` is none."""
    return [word for word in (word.strip(_MARKS) for word in text.split()) if word]


def _is_word(found: str, keyword: str) -> bool:
    """True if a word between spaces is the keyword, in any case, and nothing but punctuation stands beside it."""
    before, _, after = found.lower().partition(keyword.strip().lower())
    return keyword.strip().lower() in found.lower() and not (before + after).strip(_MARKS)


def _words_with_marks(text: str) -> list[str]:
    """The words of `bare_words`, as they stand between spaces: `C++,` keeps its signs."""
    return [word for word in text.split() if word.strip(_MARKS)]


def _joined_words(text: str) -> list[str]:
    """The words between spaces without any punctuation: `well-known` is `wellknown`."""
    return text.translate(_DELETE).split()


def _ending(sentence: str) -> str:
    """The mark that the sentence ends with, before quotes and brackets."""
    return sentence.rstrip("\"'\u201d\u2019)]}*")[-1:]


def _word_count_range(response: str, *, min_words: int, max_words: int) -> bool:
    return min_words <= count_words(response) <= max_words


def _unique_word_count(response: str, *, N: int) -> bool:  # noqa: N803  the kwarg's name
    return len(set(bare_words(response.lower()))) >= N


def _conjunctions(response: str, *, small_n: int) -> bool:
    return len(_CONJUNCTIONS.intersection(bare_words(response.lower()))) >= small_n


def _person_names(response: str, *, N: int) -> bool:  # noqa: N803
    return len(_NAMES.intersection(re.findall(r"\w+", response))) >= N


def _pronouns(response: str, *, N: int) -> bool:  # noqa: N803
    return sum(1 for token in tokens(response.lower().replace("/", " ")) if token.lstrip("'") in _PRONOUNS) >= N


def _numbers(response: str, *, N: int) -> bool:  # noqa: N803
    return sum(1 for _ in re.finditer(r"\d+", response.translate(_DELETE))) == N


def _punctuation(response: str) -> bool:
    for interrobang in ("?!", "!?"):
        if interrobang in response:
            # Its own question and exclamation mark don't count for those.
            return set(".,!?;:") <= set(response.replace(interrobang, "", 1))
    return "\u203d" in response and set(".,!?;:") <= set(response)


def _keywords_multiple(
    response: str, *, keyword1: str, keyword2: str, keyword3: str, keyword4: str, keyword5: str
) -> bool:
    keywords, text = (keyword1, keyword2, keyword3, keyword4, keyword5), response.lower()
    return all(
        text.count(keyword.strip().lower()) == count for keyword, count in zip(keywords, (1, 2, 3, 5, 7), strict=True)
    )


def _words_japanese(response: str, *, N: int) -> bool:  # noqa: N803
    every = [word.strip(string.punctuation) for word in response.split()][N - 1 :: N] if N else []
    return bool(every) and all(_JAPANESE.search(word) for word in every if word and not word.isdigit())


def _sentence_type(response: str) -> bool:
    ends = Counter(map(_ending, sentences(response)))
    return ends["."] == 2 * ends["?"] > 0


def _sentence_balance(response: str) -> bool:
    ends = Counter(map(_ending, sentences(response)))
    return ends["."] == ends["?"] == ends["!"] > 0


def _sentence_words(response: str) -> bool:
    found = sentences(response)
    words = bare_words(response.lower())
    return len(found) == 3 and len(set(map(len, found))) == 1 and len(set(words)) == len(words)


def _overlap(response: str, *, reference_text: str, percentage: float) -> bool:
    ours, theirs = ({text[i : i + 3] for i in range(len(text) - 2)} for text in (response, reference_text))
    return bool(ours) and abs(100 * len(ours & theirs) / len(ours) - percentage) <= 2


def _keyword_in_sentence(response: str, *, word: str, N: int) -> bool:  # noqa: N803
    sentence = "".join(sentences(response)[N - 1 : N]) if N else ""
    return phrase_pattern(word.strip()).search(sentence) is not None


def _increment(response: str, *, small_n: int) -> bool:
    counts = [len(_joined_words(sentence)) for sentence in sentences(response)]
    return len(counts) > 1 and all(after == before + small_n for before, after in pairwise(counts))


def _alphabet(response: str) -> bool:
    starts = [ord(word[0].lower()) - ord("a") for word in _joined_words(response)]
    in_order = all(after == (before + 1) % 26 for before, after in pairwise(starts))
    return len(starts) > 1 and 0 <= starts[0] < 26 and in_order


def _vowel(response: str) -> bool:
    return (
        "\n" not in response.strip() and bool(bare_words(response)) and len(set("aeiou") & set(response.lower())) <= 3
    )


def _consonants(response: str) -> bool:
    return all(_CONSONANTS.search(word) for word in response.lower().split())


def _palindrome(response: str) -> bool:
    return sum(1 for word in _joined_words(response.lower()) if len(word) >= 5 and word == word[::-1]) >= 10


def _prime_lengths(response: str) -> bool:
    lengths = set(map(len, _joined_words(response)))
    return bool(lengths) and all(n > 1 and all(n % d for d in range(2, int(n**0.5) + 1)) for n in lengths)


def _repeats(response: str, *, small_n: int) -> bool:
    return 1 <= max(Counter(_joined_words(response.lower())).values(), default=0) <= small_n


def _last_first(response: str) -> bool:
    found = [bare_words(sentence.lower()) for sentence in sentences(response)]
    return len(found) > 1 and all(before and after and before[-1] == after[0] for before, after in pairwise(found))


def _paragraph_last_first(response: str) -> bool:
    paragraphs = list(filter(None, (bare_words(line.lower()) for line in response.split("\n"))))
    return bool(paragraphs) and all(len(words) > 1 and words[0] == words[-1] for words in paragraphs)


def _no_consecutive(response: str) -> bool:
    words = _joined_words(response.lower())  # over the end of a line, too
    return len(words) > 1 and all(before[0] != after[0] for before, after in pairwise(words))


def _keyword_position(response: str, *, keyword: str, n: int, m: int) -> bool:
    sentence = "".join(sentences(response)[n - 1 : n]) if n else ""
    return any(_is_word(word, keyword) for word in _words_with_marks(sentence)[m - 1 : m]) if m else False


def _words_position(response: str, *, keyword: str) -> bool:
    words = _words_with_marks(response)
    return len(words) > 1 and _is_word(words[1], keyword) and _is_word(words[-2], keyword)


CHECKS: Mapping[str, Callable[..., bool]] = {
    "count:conjunctions": _conjunctions,
    "count:keywords_multiple": _keywords_multiple,
    "count:numbers": _numbers,
    "count:person_names": _person_names,
    "count:pronouns": _pronouns,
    "count:punctuation": _punctuation,
    "count:unique_word_count": _unique_word_count,
    "count:word_count_range": _word_count_range,
    "count:words_japanese": _words_japanese,
    "ratio:overlap": _overlap,
    "ratio:sentence_balance": _sentence_balance,
    "ratio:sentence_type": _sentence_type,
    "ratio:sentence_words": _sentence_words,
    "sentence:increment": _increment,
    "sentence:keyword": _keyword_in_sentence,
    "words:alphabet": _alphabet,
    "words:consonants": _consonants,
    "words:keywords_specific_position": _keyword_position,
    "words:last_first": _last_first,
    "words:no_consecutive": _no_consecutive,
    "words:palindrome": _palindrome,
    "words:paragraph_last_first": _paragraph_last_first,
    "words:prime_lengths": _prime_lengths,
    "words:repeats": _repeats,
    "words:vowel": _vowel,
    "words:words_position": _words_position,
}
