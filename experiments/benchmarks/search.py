"""Time and quality of search over a corpus.

    python -m experiments.benchmarks.search --corpus=acl_anthology_2016_2020.jsonl.gz --text=abstract

It searches for the titles of some documents, and for the passage of each that is withheld from the corpus
(`rlvr_jax/tasks/papers.py`), as the tool `search` does, and opens them. Times are CPU times of this process.
"""

import argparse
import functools
import time
from collections.abc import Callable

import numpy as np

from rlvr_jax.tasks.corpus import load, prepare, read_documents
from rlvr_jax.tasks.corpus.passages import passages
from rlvr_jax.tools.search import open_document, search


def timed(function: Callable[[], object]) -> tuple[object, float]:
    """The result of a function, and its CPU time in seconds."""
    began = time.process_time()
    return function(), time.process_time() - began


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--corpus", required=True)
    flags.add_argument("--text", default="text", help="the field of the documents' text")
    flags.add_argument("--index_dir", default="", help="folder of prepared corpora")
    flags.add_argument("--queries", type=int, default=1000)
    given = flags.parse_args()
    folder, seconds = timed(lambda: prepare(given.corpus, given.text, True, given.index_dir))
    corpus, loading = timed(lambda: load(str(folder)))
    print(
        f"{len(corpus.ids)} documents, prepared in {seconds:.1f} s (0 if they were), loaded in {1e3 * loading:.0f} ms"
    )
    documents = read_documents(given.corpus, given.text)
    pairs = [pair for pair in zip(documents, passages(documents), strict=True) if pair[1] is not None]
    pairs = pairs[:: max(1, len(pairs) // given.queries)]
    queries = {"titles": [x.title or x.id for x, _ in pairs], "passages": [passage.text for _, passage in pairs]}
    look = functools.partial(search, k=10, corpus=str(folder))
    for name, texts in queries.items():
        found, times = zip(*(timed(functools.partial(look, text)) for text in texts), strict=True)
        ids = [[line.split(" ")[0].rstrip(".") for line in text.split("\n")] for text in found]
        ranks = np.array([x.index(y.id) if y.id in x else 10 for x, (y, _) in zip(ids, pairs, strict=True)])
        shares = ", ".join(f"{np.mean(ranks < k):.2f} among the first {k}" for k in (1, 5, 10))
        mean, slow = 1e3 * np.mean(times), 1e3 * np.percentile(times, 99)
        print(f"{len(texts)} {name}: {mean:.2f} ms a search, 99 % below {slow:.2f} ms; found {shares}")
    _, opening = timed(lambda: [open_document(document.id, corpus=str(folder)) for document, _ in pairs])
    print(f"{1e3 * opening / len(pairs):.2f} ms to open a document")


if __name__ == "__main__":
    main()
