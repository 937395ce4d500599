"""Finding papers of a corpus by search alone, as for the related work of a paper.

One sentence of each paper is withheld from search (`corpus.passages`), so no search finds the passage itself. Kinds of
problems:

| kind          | the passage                                          | the answer                      |
|---------------|------------------------------------------------------|---------------------------------|
| `description` | withheld sentences of one or more papers on a topic  | these papers                    |
| `citation`    | a sentence that cites papers of the corpus, numbered | the cited papers                |
| `author`      | a withheld sentence of a paper                       | its first author's other papers |

The kind `author` takes two searches: no answer is among the first results for the passage itself. Passages that stand
in more than one paper are left out. Problems of papers from the year `heldout_from` on are held out; all papers are
searched.
"""

import functools
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from rlvr_jax.tasks.corpus import Document, load, prepare, read_documents
from rlvr_jax.tasks.corpus.bm25 import best, scores, words
from rlvr_jax.tasks.corpus.passages import HIDDEN, Passage, passages, sentences, without
from rlvr_jax.tasks.corpus.store import Corpus
from rlvr_jax.tasks.finite import finite_task
from rlvr_jax.tasks.task import Split, Task

Kind = Literal["description", "citation", "author"]
_MAX_PAPERS = 4  # of a description, and of an answer of the kind `author`
_FIRST_RESULTS = 10  # of a search with the passage, among which no answer of the kind `author` may be
_NEIGHBOURS = 50  # results of a search with the title, of which the other papers of a description are the first
_HIDDEN = f"{HIDDEN} stands for a rare word."
_ENDING = "Answer with the ids, separated by commas, in <answer> </answer>."


@dataclass(frozen=True)
class _Source:
    """A paper with its passage."""

    number: int
    document: Document
    passage: Passage


def papers(
    corpus: str,
    kind: Kind = "description",
    count: int = 1,
    heldout_from: int = 2020,
    text: str = "abstract",
    index_dir: str = "",
) -> Task:
    """Problems made from a corpus, in the order of its papers.

    Args:
      corpus: file or folder, see `corpus.read_documents`.
      kind: of the problems.
      count: papers that a passage of the kind `description` describes, 1 to 4.
      heldout_from: year of the first held-out papers: those that describe, cite, or whose author is asked for.
      text: the field of a paper's text.
      index_dir: folder of prepared corpora, see `corpus.prepare`.

    Raises:
      ValueError: an option is out of range, the corpus is malformed (names file and line), or no problem can be made.
      OSError: there is no such file, or the prepared corpus can't be written.
    """
    if kind not in get_args(Kind):
        raise ValueError(f"papers: kind must be one of {', '.join(get_args(Kind))}, not {kind!r}")
    if not 1 <= count <= (_MAX_PAPERS if kind == "description" else 1):
        raise ValueError(f"papers: count must be from 1 to {_MAX_PAPERS}, and 1 for other kinds, not {count}")
    documents, sources, searched = _read(corpus, text, index_dir)
    splits: dict[Split, list[_Source]] = {"train": [], "heldout": []}
    for source in sources:
        if source.document.year is not None:
            splits["heldout" if source.document.year >= heldout_from else "train"].append(source)
    make = {"description": _descriptions, "citation": _citations, "author": _authors}[kind]
    problems = {split: make(found, documents, searched, count) for split, found in splits.items()}
    if not any(problems.values()):
        raise ValueError(
            f"papers: no problem of the kind {kind} can be made of the {len(documents)} papers of {corpus}"
        )
    return finite_task(
        "papers",
        "papers",
        problems,
        prompt=lambda problem: problem[0],
        reference=lambda problem: {"papers": problem[1]},
    )


_Problem = tuple[str, list[str]]  # prompt, ids


@functools.lru_cache(maxsize=1)  # tasks of several kinds share it
def _read(corpus: str, text: str, index_dir: str) -> tuple[list[Document], list[_Source], Corpus]:
    """All papers, those with a passage that no paper repeats, and what is searched."""
    documents = read_documents(corpus, text)
    found = passages(documents)
    there = Counter(
        tuple(words(rest.text[start:stop]))
        for rest in map(without, documents, found)
        for start, stop in sentences(rest.text)
    )
    own = [None if x is None else tuple(words(y.text[x.start : x.stop])) for x, y in zip(found, documents, strict=True)]
    there.update(own)
    sources = [
        _Source(number, document, passage)
        for number, (document, passage) in enumerate(zip(documents, found, strict=True))
        if passage is not None and there[own[number]] == 1
    ]
    return documents, sources, load(prepare(corpus, text, withhold=True, folder=index_dir))


def _problem(asked: str, passage: str, ids: Sequence[str]) -> _Problem:
    return f"Find {asked}\n\n{passage}\n\n{_ENDING}", list(ids)


def _descriptions(sources: Sequence[_Source], documents: object, searched: Corpus, count: int) -> list[_Problem]:
    del documents
    own = {source.number: source for source in sources}
    problems, used = [], set()
    for source in sources:
        numbers = [source.number]
        if count > 1:
            found = best(scores(searched.index, source.document.title), _NEIGHBOURS)
            numbers += [number for number in found if number in own and number != source.number][: count - 1]
        numbers.sort()
        if len(numbers) < count or tuple(numbers) in used:
            continue
        used.add(tuple(numbers))
        described = [own[number] for number in numbers]
        text = "\n".join(f"[{i}] {x.passage.text}" for i, x in enumerate(described, start=1))
        what = "the paper that this sentence is of" if count == 1 else "the papers that these sentences are of"
        problems.append(_problem(f"{what}; {_HIDDEN}", text, [x.document.id for x in described]))
    return problems


def _citations(sources: Sequence[_Source], documents: object, searched: object, count: object) -> list[_Problem]:
    del documents, searched, count
    citing = [source.passage for source in sources if source.passage.cited]
    return [_problem("the papers that this sentence cites by numbers.", x.text, x.cited) for x in citing]


def _authors(
    sources: Sequence[_Source], documents: Sequence[Document], searched: Corpus, count: object
) -> list[_Problem]:
    del count
    by_author: dict[str, list[str]] = defaultdict(list)
    for document in documents:
        if document.authors:
            by_author[document.authors[0]].append(document.id)
    asked = f"the other papers whose first author has the name of that of the paper with this sentence; {_HIDDEN}"
    problems = []
    for source in sources:
        own, passage = source.document, source.passage
        ids = [id for id in by_author[own.authors[0]] if id != own.id] if own.authors else []
        if 1 <= len(ids) <= _MAX_PAPERS and not passage.cited:
            found = {searched.ids[number] for number in best(scores(searched.index, passage.text), _FIRST_RESULTS)}
            if not found & set(ids):
                problems.append(_problem(asked, passage.text, ids))
    return problems
