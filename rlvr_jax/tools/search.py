"""Search over a fixed corpus of documents, and a tool that opens one. Each worker process loads the corpus once."""

from pathlib import Path
from typing import Literal, get_args

import numpy as np

from rlvr_jax import named
from rlvr_jax.tasks.corpus import dense
from rlvr_jax.tasks.corpus.bm25 import best, scores
from rlvr_jax.tasks.corpus.documents import Document
from rlvr_jax.tasks.corpus.store import Corpus, load, prepare
from rlvr_jax.tools.tool import CallError, Tool

Ranking = Literal["bm25", "dense", "both"]
MOST_RESULTS = 50
NOTHING = "No document has any of these words."
_FUSED = 100  # results of each ranking that are fused


def tool(
    corpus: str,
    text: str = "text",
    withhold: bool = False,
    k: int = 5,
    tokens: int = 512,
    ranking: Ranking = "bm25",
    embeddings: str = "",
    embed: str = "",
    index_dir: str = "",
) -> Tool:
    """Finds documents: `search`. The corpus is prepared if it has not been.

    Args:
      corpus, text, withhold: see `rlvr_jax.tasks.corpus.prepare`.
      k: number of documents that are found by default.
      tokens: of the results; each has an equal share.
      ranking: `bm25`; `dense`, by cosine similarity; or `both`, by reciprocal rank fusion.
      embeddings: a .npy file of shape (documents, dimensions), for the rankings `dense` and `both`.
      embed: the function query -> embedding, as `module:function`; it runs in a worker process.
      index_dir: folder of prepared corpora, see `prepare`.

    Raises:
      ValueError: an option is out of range, or the corpus or the embeddings are malformed.
      OSError: there is no such file.
    """
    if ranking not in get_args(Ranking):
        raise ValueError(f"ranking must be one of {', '.join(get_args(Ranking))}, not {ranking!r}")
    if not 1 <= k <= MOST_RESULTS:
        raise ValueError(f"k must be from 1 to {MOST_RESULTS}, not {k!r}")
    needs = {"embeddings": embeddings, "embed": embed}
    if ranking != "bm25" and (missing := [name for name, value in needs.items() if not value]):
        raise ValueError(
            f"ranking = {ranking!r} needs embeddings, a .npy file, and embed, a function: {' and '.join(missing)} "
            "missing"
        )
    folder = prepare(corpus, text, withhold, index_dir)
    load(str(folder))  # a damaged one is an error here
    options = {"corpus": str(folder), "usual": k}
    if ranking != "bm25":
        dense.load_embeddings(embeddings, len(load(str(folder)).ids))
        named.check_arguments(embed, "query")
        options |= {"ranking": ranking, "embeddings": str(Path(embeddings).expanduser().absolute()), "embed": embed}
    properties = {
        "query": {"type": "string", "description": "Words to search for."},
        "k": {"type": "integer", "minimum": 1, "maximum": MOST_RESULTS, "description": f"How many; {k} if absent."},
    }
    parameters = {"type": "object", "properties": properties, "required": ["query"]}
    description = "Finds the documents that fit a query best: a line with the id, title and beginning of each."
    return Tool("search", description, parameters, f"{__name__}:search", options, tokens=tokens, lines=True)


def open_tool(
    corpus: str,
    text: str = "text",
    withhold: bool = False,
    tokens: int = 1024,
    index_dir: str = "",
) -> Tool:
    """Shows a document by its id: `open`. Arguments and errors are those of `tool`."""
    folder = prepare(corpus, text, withhold, index_dir)
    load(str(folder))
    properties = {"id": {"type": "string", "description": "Id of the document, as search shows it."}}
    parameters = {"type": "object", "properties": properties, "required": ["id"]}
    description = "Shows a document: its title, authors and text."
    return Tool("open", description, parameters, f"{__name__}:open_document", {"corpus": str(folder)}, tokens=tokens)


def search(
    query: str,
    k: int | None = None,
    *,
    corpus: str,
    usual: int = 5,
    ranking: Ranking = "bm25",
    embeddings: str = "",
    embed: str = "",
) -> str:
    """The best documents for a query, a line for each: its id, year, title and text.

    Args:
      query: words.
      k: number of documents, at least 1; None for the `usual` one.
      corpus: folder of the prepared corpus.
      ranking, embeddings, embed: see `tool`.

    Raises:
      CallError: there is no query.
    """
    if not query.strip():
        raise CallError("the query is empty")
    found = load(corpus)
    numbers = _ranked(found, query, k or usual, ranking, embeddings, embed)
    if not numbers:
        return NOTHING
    return "\n".join(_line(found.document(number)) for number in numbers)


def open_document(id: str, *, corpus: str) -> str:
    """A document: id, year, title and authors on a line, then its text.

    Args:
      id: of the document.
      corpus: folder of the prepared corpus.

    Raises:
      CallError: there is no such document.
    """
    found = load(corpus)
    if id not in found.numbers:
        raise CallError(f"there is no document {id!r:.100}")
    document = found.document(found.numbers[id])
    authors = f" {', '.join(document.authors)}." if document.authors else ""
    return f"{_head(document)}{authors}\n{document.text}"


def _ranked(corpus: Corpus, query: str, k: int, ranking: Ranking, embeddings: str, embed: str) -> list[int]:
    if ranking == "bm25":
        return best(scores(corpus.index, query), k)
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
