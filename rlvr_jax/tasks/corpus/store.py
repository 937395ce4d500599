"""Prepared corpora: folders with the documents and their index, made once and shared by all processes.

The folder's name is a checksum of the corpus, the settings and the version of this format; its files have
checksums, too, verified when a process loads it. Arrays and texts are mapped into memory, not read.
"""

import functools
import hashlib
import json
import mmap
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from rlvr_jax.tasks.corpus import bm25
from rlvr_jax.tasks.corpus.documents import Document, read_documents
from rlvr_jax.tasks.corpus.passages import passages, without

_VERSION = 1  # of the format, of what the words of a text are, and of the choice of passages
_ARRAYS = ("starts", "documents", "weights", "places")
_FILES = (*(f"{name}.npy" for name in _ARRAYS), "documents.jsonl", "names.json")
_META = "checksums.json"


@dataclass(frozen=True)
class Corpus:
    """A prepared corpus.

    Attributes:
      index: of titles and texts.
      numbers: id -> number of the document.
      ids: of the documents, in their order.
      places: where each document begins in `lines`, and the end of the last one.
      lines: the documents as JSON Lines.
    """

    index: bm25.Index
    numbers: Mapping[str, int]
    ids: tuple[str, ...]
    places: Int64[np.ndarray, "bounds"]
    lines: mmap.mmap

    def document(self, number: int) -> Document:
        """The document of that number."""
        record = json.loads(self.lines[self.places[number] : self.places[number + 1]])
        return Document(**{**record, "authors": tuple(record["authors"])})


def prepare(path: str | Path, text: str = "text", withhold: bool = False, folder: str | Path = "") -> Path:
    """The folder of the prepared corpus, made if it does not exist.

    Args:
      path, text: of the corpus, see `documents.read_documents`.
      withhold: leaves out a passage of each document, see `passages`.
      folder: its parent; empty for rlvr_jax/corpora in the folder XDG_CACHE_HOME, by default ~/.cache.

    Raises:
      ValueError, OSError: as `read_documents`; or the folder can't be written.
    """
    path = Path(path).expanduser()
    parent = folder or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "rlvr_jax", "corpora")
    target = Path(parent).expanduser().absolute() / _checksum_of_corpus(path, [_VERSION, text, withhold])
    if target.exists():  # it was renamed when it was complete
        return target
    documents = read_documents(path, text)
    if withhold:
        documents = [without(*pair) for pair in zip(documents, passages(documents), strict=True)]
    index = bm25.make_index([document.indexed for document in documents])
    if not index.terms:
        raise ValueError(f"{path} has no word to search for, only signs and the commonest words")
    lines = [json.dumps(vars(document)).encode() + b"\n" for document in documents]
    places = np.cumsum([0, *map(len, lines)]).astype(np.int64)
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix="incomplete.", dir=target.parent))
    try:
        arrays = {"starts": index.starts, "documents": index.documents, "weights": index.weights, "places": places}
        for name in _ARRAYS:
            np.save(unfinished / f"{name}.npy", arrays[name])
        (unfinished / "documents.jsonl").write_bytes(b"".join(lines))
        names = {"terms": list(index.terms), "ids": [document.id for document in documents]}
        (unfinished / "names.json").write_text(json.dumps(names))
        (unfinished / _META).write_text(json.dumps({name: _checksum(unfinished / name) for name in _FILES}))
        try:
            unfinished.rename(target)
        except OSError:
            if not target.exists():  # otherwise another process was faster
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return target


@functools.lru_cache(maxsize=4)
def load(folder: str | Path) -> Corpus:
    """A prepared corpus; loaded once per process.

    Raises:
      ValueError: it is damaged.
    """
    folder = Path(folder)
    try:
        expected = json.loads((folder / _META).read_text())
        for name in _FILES:
            if _checksum(folder / name) != expected[name]:
                raise ValueError(f"{name} has changed")
        starts, documents, weights, places = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in _ARRAYS)
        names = json.loads((folder / "names.json").read_text())
        with (folder / "documents.jsonl").open("rb") as file:
            lines = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"the prepared corpus in {folder} is damaged: {error}. Delete that folder and run again"
        ) from error
    terms, ids = {term: number for number, term in enumerate(names["terms"])}, tuple(names["ids"])
    index = bm25.Index(terms, starts, documents, weights, len(ids))
    return Corpus(index, {id: number for number, id in enumerate(ids)}, ids, places, lines)


def _checksum_of_corpus(path: Path, settings: Sequence[int | str]) -> str:
    digest = hashlib.sha256(json.dumps(settings).encode())
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    for file in files:
        digest.update(file.name.encode() + bytes.fromhex(_checksum(file)))
    return digest.hexdigest()[:16]


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
