"""Reads the data sets of the tests: the samples in this folder, or the whole files in one like it."""

import gzip
import json
from pathlib import Path
from typing import Any


def lines_of(path: Path) -> list[bytes]:
    """The lines of a file, which may be gzipped and then have `.gz` after its name."""
    if path.exists():
        return path.read_bytes().splitlines()
    return gzip.decompress(path.with_name(f"{path.name}.gz").read_bytes()).splitlines()


def rows(path: Path) -> list[dict[str, Any]]:
    """The records of a file of JSON Lines, which may be gzipped and then have `.gz` after its name."""
    return [json.loads(line) for line in lines_of(path)]
