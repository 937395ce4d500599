"""Corpora of documents: read and checked (`documents`), indexed (`bm25`), and prepared once per corpus (`store`)."""

from rlvr_jax.tasks.corpus.documents import Document, read_documents
from rlvr_jax.tasks.corpus.store import Corpus, load, prepare

__all__ = ["Corpus", "Document", "load", "prepare", "read_documents"]
