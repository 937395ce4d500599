"""The public data sets that lie beside the repository, in `../shared/data`."""

import gzip
import json
from pathlib import Path

DATA = Path(__file__).parents[2].parent / "shared" / "data"


def rows(name: str) -> list[dict]:
    """The records of a gzipped JSON Lines file; fails with what is absent, if it is."""
    path = DATA / name
    assert path.is_file(), f"{path} is absent: this test reads the data sets in ../shared/data beside the repository"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]
