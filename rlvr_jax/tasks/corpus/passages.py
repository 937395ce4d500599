"""One sentence of each document, withheld from search: the passage that problems are made of.

As in the inverse cloze task (Lee, Chang & Toutanova 2019, arXiv:1906.00300) the withheld sentence is the query and the
rest of the document what must be found. Where a sentence cites papers of the corpus by their authors and year, that one
is withheld. A citation is attributed to a document if no other one has these authors and year, and if its title shares
an uncommon word with the citing document.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace

from rlvr_jax.tasks.corpus.bm25 import words
from rlvr_jax.tasks.corpus.documents import Document
from rlvr_jax.tasks.task import draw

_MIN_WORDS, _MIN_UNCOMMON = 8, 3  # of a passage
_COMMON, _MIN_COMMON = 0.02, 10  # a word in more than this share, and number, of the documents is common
_NAME = 4e-4  # a word in at most this share of them may be a name that gives the document away
HIDDEN = "___"
_WORD = re.compile(r"[^\W_][\w\-]*")
# A full stop after these ends no sentence.
_ABBREVIATION = re.compile(r"(?:\b(?:et al|e\.g|i\.e|cf|vs|etc|resp|approx|Fig|Sec|No)|\b[A-Z])\.$")
_END = re.compile(r"[.!?][\"”\u2019)\]]*(?=\s+[\"“(\[]?[A-Z0-9])")
_SURNAME = r"[A-Z][\w'\u2019\-]+"
_CITATION = re.compile(
    rf"\(?(?P<first>{_SURNAME})(?:(?P<many> et al\.?)| and (?P<second>{_SURNAME})),? ?\(?(?P<year>20\d\d)[a-z]?\)?"
)


@dataclass(frozen=True)
class Passage:
    """A sentence of a document.

    Attributes:
      text: the sentence; citations are replaced by [1], [2], ….
      cited: the ids of the cited documents, in that order; most passages have none.
      start, stop: its place in the text of the document.
    """

    text: str
    cited: tuple[str, ...]
    start: int
    stop: int


def sentences(text: str) -> list[tuple[int, int]]:
    """Start and end of each sentence of a text."""
    found, start = [], 0
    for match in _END.finditer(text):
        if not _ABBREVIATION.search(text[start : match.end()]):
            found.append((start, match.end()))
            start = match.end() + len(text[match.end() :]) - len(text[match.end() :].lstrip())
    return [*found, (start, len(text))] if text[start:].strip() else found


def passages(documents: Sequence[Document]) -> list[Passage | None]:
    """The withheld passage of each document; None if it has fewer than three sentences, or none that tells enough.

    In passages without citations the words that only few documents have are hidden: most are names.
    """
    frequency = Counter(word for document in documents for word in set(words(document.indexed)))
    common = {word for word, count in frequency.items() if count > max(_COMMON * len(documents), _MIN_COMMON)}
    attributed = _attribution(documents, common)

    def hidden(match: re.Match) -> str:
        return HIDDEN if any(frequency[word] <= _NAME * len(documents) for word in words(match[0])) else match[0]

    def passage(document: Document) -> Passage | None:
        bounds = sentences(document.text)
        if len(bounds) < 3:
            return None
        found = []
        for start, stop in bounds:
            text = document.text[start:stop]
            if len(text.split()) < _MIN_WORDS:
                continue
            numbered, cited = _numbered(text, lambda match: attributed(document, match))
            if cited:
                return Passage(numbered, cited, start, stop)
            if len(set(words(text)) - common) >= _MIN_UNCOMMON:
                found.append((start, stop))
        if not found:
            return None
        start, stop = found[draw("passage", document.id) % len(found)]
        return Passage(_WORD.sub(hidden, document.text[start:stop]), (), start, stop)

    return [passage(document) for document in documents]


def without(document: Document, passage: Passage | None) -> Document:
    """The document without its passage."""
    if passage is None:
        return document
    before, after = document.text[: passage.start].rstrip(), document.text[passage.stop :].lstrip()
    return replace(document, text=f"{before} {after}".strip())


def _attribution(documents: Sequence[Document], common: Set[str]) -> Callable[[Document, re.Match], str | None]:
    """The function (citing document, citation) -> id of the cited document, or None."""
    by_authors: dict[tuple[str, str, int], list[Document]] = defaultdict(list)
    for document in documents:
        names = [author.split()[-1] for author in document.authors if author.strip()]
        if document.year is not None and len(names) > 1:
            by_authors[names[0], names[1] if len(names) == 2 else "", document.year].append(document)

    def attributed(citing: Document, citation: re.Match) -> str | None:
        found = by_authors.get((citation["first"], citation["second"] or "", int(citation["year"])), [])
        if len(found) != 1 or found[0].id == citing.id:
            return None
        shared = set(words(found[0].title)) & set(words(f"{citing.title} {citing.text}"))
        return found[0].id if shared - common else None

    return attributed


def _numbered(text: str, attributed: Callable[[re.Match], str | None]) -> tuple[str, tuple[str, ...]]:
    """The sentence with its citations as [1], [2], …, and their ids; none if any of them is not attributed."""
    ids = [attributed(match) for match in _CITATION.finditer(text)]
    if not ids or None in ids:
        return text, ()
    cited = tuple(dict.fromkeys(ids))
    numbers = iter(ids)
    return _CITATION.sub(lambda _: f"[{cited.index(next(numbers)) + 1}]", text), cited
