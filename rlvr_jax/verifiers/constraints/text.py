"""Sentences, words and tokens of a text: what constraints count. Linear in its length, no data to download.

IFEval's checker (https://github.com/google-research/google-research/tree/master/instruction_following_eval) leaves
sentences and tokens to NLTK, whose sentence splitter needs a trained model. The rules here are written after the
method of that model, Kiss & Strunk, "Unsupervised Multilingual Sentence Boundary Detection" (2006): a full stop ends
a sentence unless the word before it is an abbreviation, an initial or a number and the next word does not look like
the start of a sentence. Their statistics of a newspaper are replaced by two short lists of English words.
"""

import re
from collections.abc import Iterator

_WORD = re.compile(r"\w+")

# An end of a sentence, perhaps: its marks, and the quotes, brackets and asterisks that close after them. Possessive,
# and what follows is looked at outside of the expression: a long run of marks is read once.
_END = re.compile(r"([.!?]++)[\"'\u201d\u2019)\]}*]*+")
_BESIDE = "\"'\u201d\u2019)]}*([{;:@"  # may follow the marks without a space
_BEFORE = re.compile(r"[\w.,'\u2019-]+\Z")  # the word that the marks belong to
_LONGEST_WORD = 40  # characters that are looked at before and after the marks
_NUMBER = re.compile(r"[0-9]+(?:[.,][0-9]+)*")
_DOTTED = re.compile(r"[a-z](?:\.[a-z])+")  # u.s, p.m, i.e

_ABBREVIATED = """
    adm ave bros capt col corp cos dr ft gen gov hon inc jr lt ltd maj messrs mr mrs ms mt prof rep rev sen sgt sr st vs
    jan feb aug sept sep oct nov dec ala ariz calif colo conn fla ill kan mich minn nev okla ore pa tenn va wash wis
    ph.d al approx cf etc viz
"""
_ABBREVIATIONS = frozenset(_ABBREVIATED.split())
_ALWAYS_WITHIN = frozenset({"e.g", "i.e"})  # something follows that belongs to the sentence
_NOT_ABBREVIATED = frozenset({"p.s", "p.p.s"})  # NLTK's model does not know them
_STARTING = """
    a after all also although an and another any as at because before being both but by can despite did do during each
    even every few finally first for from further he her here his how however i if in indeed instead is it its just
    last later let like many meanwhile more moreover most my nevertheless no nor not now of on once one only or other
    others our over people please perhaps she similarly since so some soon still such than thank that the their then
    there therefore these they this those though through thus to today together two under unless until was we well
    were what when where whether which while who whose why will with without would yes yet you your
"""
_STARTERS = frozenset(_STARTING.split())  # start a sentence when they are capitalised: they are not part of names

# Tokens in the manner of the Penn Treebank: punctuation stands alone, but for hyphens, apostrophes, and the points,
# commas and colons inside of numbers and names.
_ALONE = r";@#$%&?!*()\[\]{}<>\"«»\u201c\u201d\u2018\u2019\u201e"
_TOKEN = re.compile(rf"\.{{2,}}|--|[{_ALONE}]|[:,](?![0-9])|(?:[^\s.:,\-{_ALONE}]|\.(?!\.)|[:,](?=[0-9])|-(?!-))+")
_CONTRACTION = re.compile(r"([^']++)('|'[smd]|'ll|'re|'ve)", re.IGNORECASE)
# Where the Treebank cuts what is written as one word.
_FUSED = {"cannot": 3, "gimme": 3, "gonna": 3, "gotta": 3, "lemme": 3, "wanna": 3, "more'n": 4, "'tis": 2, "'twas": 2}


def phrase_pattern(phrase: str) -> re.Pattern[str]:
    """The phrase as whole words, in any case: no letter or digit goes on where the phrase begins or ends with one.

    Where it begins or ends with a sign (`C++`, `$5`, `.NET`), anything may stand beside that.
    """
    before = r"(?<!\w)" if _WORD.match(phrase[:1]) else ""
    after = r"(?!\w)" if _WORD.match(phrase[-1:]) else ""
    return re.compile(before + re.escape(phrase) + after, re.IGNORECASE)


def count_words(text: str) -> int:
    """The number of runs of letters, digits and underscores: `don't` counts as two words, `---` as none."""
    return sum(1 for _ in _WORD.finditer(text))


def _starts_sentence(word: str) -> bool:
    return word[:1].isupper() and word.lower().split("'")[0] in _STARTERS


def _at_line_start(text: str, position: int) -> bool:
    return text[max(0, position - _LONGEST_WORD) : position].rstrip(" \t-*").endswith("\n")


def _ends(text: str, match: re.Match) -> bool:
    """True if a sentence ends with the marks of `match`, an occurrence of `_END` with more text after it."""
    following = text[match.end() : match.end() + _LONGEST_WORD].split(maxsplit=1)
    word = _WORD.match(following[0]) if following else None
    after = word[0] if word else ""  # "" if what follows is a quote, a bracket or another sign
    marks = match[1]
    if marks != ".":
        # An ellipsis may stand within a sentence; exclamation and question marks always end one.
        return marks.strip(".") != "" or after[:1].isupper()
    before = _BEFORE.search(text, max(0, match.start() - _LONGEST_WORD), match.start())
    last = before[0].lower() if before else ""
    initial = len(last) == 1 and last.isalpha()
    numbers_a_line = initial and _at_line_start(text, before.start())  # A. Introduction
    if numbers_a_line or _NUMBER.fullmatch(last):
        return not after[:1].islower()
    if initial and not after:
        return True
    if last in _ALWAYS_WITHIN:
        return False
    if initial or last.rpartition("-")[2] in _ABBREVIATIONS:
        return _starts_sentence(after)
    if _DOTTED.fullmatch(last) and last not in _NOT_ABBREVIATED:
        return _starts_sentence(after)
    return True


def _spans(text: str) -> Iterator[tuple[int, int]]:
    start = 0
    for match in _END.finditer(text):
        beside = text[match.end(1) : match.end(1) + 1]
        if beside and not beside.isspace() and beside not in _BESIDE:
            continue  # inside of a word: 3.5, example.com
        if match.end() == len(text) or _ends(text, match):
            yield start, match.end()
            start = match.end()
    yield start, len(text)


def sentences(text: str) -> list[str]:
    """The sentences of an English text, stripped, with their closing marks; none for a blank one.

    As in NLTK, lines and paragraphs do not end a sentence: a heading is a part of the sentence that follows it.
    """
    found = (text[start:end].strip() for start, end in _spans(text))
    return [sentence for sentence in found if sentence]


def _split(token: str) -> list[str]:
    """The token, cut where the Treebank separates a contraction: `DON'T` is `DO` and `N'T`."""
    lower = token.lower()
    if lower in _FUSED:
        cut = _FUSED[lower]
    elif lower.endswith("n't") and len(token) > 3:
        cut = len(token) - 3
    elif match := _CONTRACTION.fullmatch(token):
        cut = match.end(1)
    else:
        return [token]
    return [token[:cut], token[cut:]]


def tokens(text: str) -> list[str]:
    """Words and punctuation marks, as the Penn Treebank separates them; a hyphenated word is one token."""
    found: list[str] = []
    for sentence in sentences(text):
        stop = sentence.endswith(".") and not sentence.endswith("..") and len(sentence) > 1
        for match in _TOKEN.finditer(sentence[:-1] if stop else sentence):
            found += _split(match[0])
        if stop:
            found.append(".")
    return found
