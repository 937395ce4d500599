"""Tools for a fixed corpus of documents: search, and open. They run in worker processes, which load the corpus once."""

from pathlib import Path

import numpy as np

from rlvr_jax import named
from rlvr_jax.tasks.corpus import dense
from rlvr_jax.tasks.corpus.bm25 import best, scores
from rlvr_jax.tasks.corpus.documents import Document
from rlvr_jax.tasks.corpus.store import Corpus, load

MOST_RESULTS = 50
_FUSED = 100  # results of each ranking that are fused


def search(
    query: str,
    k: int = 5,
    *,
    corpus: str | Path,
    characters: int = 2000,
    embeddings: str = "",
    embed: str = "",
    ranking: str = "bm25",
) -> str:
    """The best documents for a query, a line for each: its id, year, title and the beginning of its text.

    Args:
      query: words.
      k: number of documents, at most 50.
      corpus: folder of the prepared corpus, see `rlvr_jax.tasks.corpus.prepare`.
      characters: maximum length of the result; each document has an equal share.
      embeddings: a .npy file with the embedding of each document, for the rankings `dense` and `both`.
      embed: the function query -> embedding, as `module:function`.
      ranking: `bm25`; `dense`, by cosine similarity; or `both`, by reciprocal rank fusion.

    Raises:
      ValueError: there is no query, `k` is out of range, or there is no such ranking.
    """
    if not isinstance(query, str) or not query.strip():
        raise ValueError("the query is empty")
    if not isinstance(k, int) or not 1 <= k <= MOST_RESULTS:
        raise ValueError(f"k must be from 1 to {MOST_RESULTS}, not {k!r:.50}")
    found = load(corpus)
    numbers = _ranked(found, query, k, embeddings, embed, ranking)
    if not numbers:
        return "No document has any of these words."
    share = max(1, characters // len(numbers))
    return "\n".join(_cut(_line(found.document(number)), share - 1) for number in numbers)


def open_document(id: str, *, corpus: str | Path, characters: int = 4000) -> str:
    """A document: id, year, title and authors on a line, then its text.

    Args:
      id: of the document.
      corpus: folder of the prepared corpus.
      characters: maximum length of the result.

    Raises:
      ValueError: there is no such document.
    """
    found = load(corpus)
    if not isinstance(id, str) or id not in found.numbers:
        raise ValueError(f"there is no document {id!r:.100}")
    document = found.document(found.numbers[id])
    authors = f" {', '.join(document.authors)}." if document.authors else ""
    return _cut(f"{_head(document)}{authors}\n{document.text}", characters)


def _ranked(corpus: Corpus, query: str, k: int, embeddings: str, embed: str, ranking: str) -> list[int]:
    if ranking == "bm25":
        return best(scores(corpus.index, query), k)
    if ranking not in ("dense", "both"):
        raise ValueError(f"ranking must be bm25, dense or both, not {ranking!r}")
    vectors = dense.load_embeddings(embeddings, len(corpus.ids))
    similar = dense.similarities(vectors, np.asarray(named.load(embed)(query)))
    if ranking == "dense":
        return best(similar, k)
    rankings = [best(values, max(k, _FUSED)) for values in (scores(corpus.index, query), similar)]
    return best(dense.fused(rankings, len(corpus.ids)), k)


def _head(document: Document) -> str:
    year = f" ({document.year})" if document.year is not None else ""
    return f"{document.id}{year} {document.title}".rstrip() + ("" if document.title.endswith((".", "?", "!")) else ".")


def _line(document: Document) -> str:
    return " ".join(f"{_head(document)} {document.text}".split())


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: max(characters - 1, 0)].rstrip() + "…"
