"""BM25, the sparse ranking of documents by the words of a query (Robertson & Zaragoza 2009).

The weight of a term t with frequency f in a document of length l, of N documents of which n have the term:

    idf(t) * f * (k1 + 1) / (f + k1 * (1 - b + b * l / mean length)),   idf(t) = ln(1 + (N - n + 0.5) / (n + 0.5))

All weights are computed when the index is made (Lu 2024, BM25S, arXiv:2407.03618), so a search only adds up the lists
of its terms. The package bm25s does the same, but starts JAX when it is imported, which worker processes must not.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Int32, Int64

K1, B = 1.2, 0.75
_WORD = re.compile(r"[^\W_]+")
_STOP_WORDS = "a an and are as at be by for from has have in is it its of on or that the this to was we which with"
STOP_WORDS = frozenset(_STOP_WORDS.split())


@dataclass(frozen=True)
class Index:
    """For each term the documents that have it, and its weight in each.

    Attributes:
      terms: term -> its number.
      starts: the place of each term's list, and the end of the last one.
      documents: the lists of document numbers, one after the other, each ascending.
      weights: of the term in each of these documents.
      count: of documents.
    """

    terms: Mapping[str, int]
    starts: Int64[np.ndarray, "bounds"]
    documents: Int32[np.ndarray, "postings"]
    weights: Float32[np.ndarray, "postings"]
    count: int


def words(text: str) -> list[str]:
    """The terms of a text: words in lower case, without the commonest ones and without the s of plurals.

    Source of the latter: the S stemmer of Harman 1991, "How effective is suffixing?".
    """
    found = _WORD.findall(unicodedata.normalize("NFKC", text).casefold())
    return [_singular(word) for word in found if word not in STOP_WORDS]


def _singular(word: str) -> str:
    if len(word) > 3 and word.endswith("s"):
        if word.endswith("ies"):
            return word if word.endswith(("eies", "aies")) else word[:-3] + "y"
        if word.endswith("es"):
            return word if word.endswith(("aes", "ees", "oes")) else word[:-1]
        if not word.endswith(("us", "ss")):
            return word[:-1]
    return word


def make_index(texts: Sequence[str]) -> Index:
    """The index of texts, at least one."""
    counts = [Counter(words(text)) for text in texts]
    terms = {term: number for number, term in enumerate(sorted({term for count in counts for term in count}))}
    sizes = [len(count) for count in counts]
    numbers = np.fromiter((terms[term] for count in counts for term in count), np.int64, sum(sizes))
    frequencies = np.fromiter((x for count in counts for x in count.values()), np.float64, sum(sizes))
    documents = np.repeat(np.arange(len(texts), dtype=np.int32), sizes)
    lengths = np.array([sum(count.values()) for count in counts], np.float64)
    having = np.bincount(numbers, minlength=len(terms))
    idf = np.log1p((len(texts) - having + 0.5) / (having + 0.5))
    norm = K1 * (1 - B + B * lengths / max(lengths.mean(), 1.0))
    weights = idf[numbers] * frequencies * (K1 + 1) / (frequencies + norm[documents])
    order = np.argsort(numbers, kind="stable")
    starts = np.concatenate([[0], np.cumsum(having)]).astype(np.int64)
    return Index(terms, starts, documents[order], weights[order].astype(np.float32), len(texts))


def scores(index: Index, query: str) -> Float32[np.ndarray, "documents"]:
    """The score of each document; 0 for those without any term of the query."""
    found = np.zeros(index.count, np.float32)
    for term, times in sorted(Counter(words(query)).items()):
        number = index.terms.get(term)
        if number is not None:
            part = slice(index.starts[number], index.starts[number + 1])
            found[index.documents[part]] += np.float32(times) * index.weights[part]
    return found


def best(values: Float32[np.ndarray, "documents"], k: int) -> list[int]:
    """The numbers of the at most `k` highest values above 0, in descending order; of equal ones the first."""
    count = min(k, int(np.count_nonzero(values > 0)))
    if count <= 0:
        return []
    candidates = np.flatnonzero(values >= np.partition(values, len(values) - count)[len(values) - count])
    return candidates[np.argsort(-values[candidates], kind="stable")][:count].tolist()
