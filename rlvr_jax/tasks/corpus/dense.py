"""Dense retrieval: documents by the similarity of their embeddings, which the user gives, to that of the query."""

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32

_RANK = 60  # of the reciprocal rank fusion


@functools.lru_cache(maxsize=4)
def load_embeddings(path: str | Path, count: int) -> Float32[np.ndarray, "documents dim"]:
    """The embeddings of a corpus, each of length 1.

    Args:
      path: a .npy file of shape (documents, dimensions), in the order of the corpus.
      count: documents of the corpus.

    Raises:
      ValueError: it holds no such array of finite numbers.
      OSError: there is no such file.
    """
    try:
        array = np.load(Path(path).expanduser(), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path} can't be read as an array: {error}") from error
    if not isinstance(array, np.ndarray) or array.ndim != 2 or len(array) != count or array.dtype.kind not in "fiu":
        shape = getattr(array, "shape", None)
        raise ValueError(f"{path} holds an array of shape {shape}; the corpus needs ({count}, dimensions)")
    array = array.astype(np.float32)
    if wrong := np.flatnonzero(~np.isfinite(array).all(1)).tolist():
        raise ValueError(f"{path}: the embedding of document {wrong[0]} is not finite")
    return array / np.maximum(np.linalg.norm(array, axis=1, keepdims=True), np.finfo(np.float32).tiny)


def similarities(
    embeddings: Float32[np.ndarray, "documents dim"], query: Float[np.ndarray, "dim"]
) -> Float32[np.ndarray, "documents"]:
    """The cosine similarity of each document to the query, plus 1.

    Raises:
      ValueError: the query's embedding has another size, or is not finite.
    """
    query = np.asarray(query, np.float32)
    if query.shape != embeddings.shape[1:] or not np.isfinite(query).all():
        raise ValueError(f"the embedding of the query must be {embeddings.shape[1]} finite numbers, not {query.shape}")
    return 1 + embeddings @ (query / max(float(np.linalg.norm(query)), np.finfo(np.float32).tiny))


def fused(rankings: Sequence[Sequence[int]], count: int) -> Float32[np.ndarray, "documents"]:
    """The score of each of `count` documents: the sum of 1 / (60 + rank) over the rankings, ranks from 1.

    Source: reciprocal rank fusion, Cormack, Clarke & Buettcher 2009.
    """
    found = np.zeros(count, np.float32)
    for ranking in rankings:
        found[list(ranking)] += 1 / (_RANK + np.arange(1, len(ranking) + 1, dtype=np.float32))
    return found
