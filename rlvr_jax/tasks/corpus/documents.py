"""Documents of a file or folder: JSON Lines, JSON, CSV or Parquet, the first two plain or with gzip."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlvr_jax.tasks import table


@dataclass(frozen=True)
class Document:
    """A document of a corpus.

    Attributes:
      id: unique in the corpus.
      title: empty if it has none.
      text: not empty.
      year: of its publication, if known.
      authors: their names, in order.
    """

    id: str
    title: str
    text: str
    year: int | None = None
    authors: tuple[str, ...] = ()

    @property
    def indexed(self) -> str:
        """The text that a search compares with the query."""
        return "\n".join((self.title, ", ".join(self.authors), self.text))


def read_documents(path: str | Path, text: str = "text") -> list[Document]:
    """The documents of a corpus, in their order.

    Args:
      path: a file, or a folder of files of one kind.
      text: the field of a document's text; the others are "id", and optionally "title", "year" and "authors", a
        list of names.

    Raises:
      ValueError: a file is cut or malformed, a field is missing or of another type, or an id occurs twice; the message
        names file and line.
      OSError: there is no such file.
    """
    path = Path(path).expanduser()
    files = [file for found in table.splits_of(path).values() for file in found] if path.is_dir() else [path]
    documents: dict[str, Document] = {}
    places: dict[str, str] = {}
    for place, record in table.read(files):
        document = _document(place, record, text)
        if document.id in documents:
            raise ValueError(f"{place}: the id {document.id!r} is that of another document: {places[document.id]}")
        documents[document.id], places[document.id] = document, place
    if not documents:
        raise ValueError(f"{path} holds no document")
    return list(documents.values())


def _document(place: str, record: Mapping[str, Any], text: str) -> Document:
    for field in ("id", text):
        if not isinstance(record.get(field), str) or not record[field].strip():
            there = f"holds {record[field]!r:.100}" if field in record else "is missing"
            raise ValueError(f"{place}: the field {field!r} {there}; a document has text there")
    title, year = record.get("title") or "", record.get("year")
    if not isinstance(title, str):
        raise ValueError(f"{place}: the field 'title' holds {title!r:.100}, not text")
    if not isinstance(year, int | None) or isinstance(year, bool):
        raise ValueError(f"{place}: the field 'year' holds {year!r:.100}, not a whole number")
    authors = record.get("authors") or []
    if not isinstance(authors, list) or not all(isinstance(author, str) for author in authors):
        raise ValueError(f"{place}: the field 'authors' holds {authors!r:.100}, not a list of names")
    for field, value in (("id", record["id"]), ("title", title), (text, record[text]), ("authors", "".join(authors))):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{place}: the field {field!r} has half of a surrogate pair, which is no text") from None
    return Document(record["id"], title, record[text], year, tuple(authors))
