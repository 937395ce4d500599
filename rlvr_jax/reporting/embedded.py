"""Data that a page carries for its scripts: curves, and samples in chunks that are decompressed when they are read.

Each piece is JSON, compressed by gzip and written in base64, so that nothing in it can be taken for markup.
"""

import base64
import gzip
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from rlvr_jax.reporting import curves
from rlvr_jax.reporting.panel import Panel, Row

SCRIPTS = ("embedded.js", "curves.js", "samples.js")  # in the order in which they are loaded
MAX_TEXT = 20_000  # characters of one text of a sample
_CHUNK = 256 << 10  # bytes of JSON, more by one sample at most
_TEXTS = ("split", "task", "example", "finish_reason")  # columns of the index that repeat few values
_NUMBERS = ("step", "score", "reward", "length", "turns")

Pieces = list[tuple[str, str]]  # (id, content) of each piece


def scripts() -> str:
    """The scripts that draw the curves and list the samples."""
    return "\n".join(Path(__file__).with_name(name).read_text(encoding="utf-8") for name in SCRIPTS)


def packed(value: Any) -> str:
    """JSON data as text for a page."""
    data = json.dumps(value, allow_nan=False, separators=(",", ":")).encode()
    return base64.b64encode(gzip.compress(data, 6, mtime=0)).decode()


def unpacked(text: str) -> Any:
    """The value of `packed`."""
    return json.loads(gzip.decompress(base64.b64decode(text)))


def curves_of(
    runs: Mapping[str, Sequence[Row]], panels: Sequence[Panel], changes: Mapping[int, str] = MappingProxyType({})
) -> Pieces:
    """The piece `curves`: the panels, all metrics of the runs, which are given by label, and changes by their step.

    A metric is `[steps, values, steps of non-finite values]`, with null for what is not finite, and reduced as in
    `curves.png` if it is long. A stack, of the first run, has edges of steps and the heights of its parts between them.
    """
    reduce = {line.metric: line.reduce for panel in panels for line in panel.series}
    drawn = []
    for panel in panels:
        row = {name: getattr(panel, name) for name in ("title", "unit", "caption", "kind", "scale", "wide")}
        row["series"] = [
            {"metric": x.metric, "label": x.label, "colour": x.colour, "width": x.width} for x in panel.series
        ]
        if panel.kind == "stack":
            edges, heights = curves.stacked(next(iter(runs.values())), panel)
            row["stack"] = {"edges": edges, "heights": [_numbers(x) for x in heights]}
        drawn.append(row)
    found = []
    for label, rows in runs.items():
        names = dict.fromkeys(name for row in rows for name, value in row.items() if isinstance(value, int | float))
        names.pop("step", None)
        points = {name: curves.points(rows, name, reduce.get(name, "mean")) for name in names}
        metrics = {name: [steps, _numbers(y), lost] for name, (steps, y, lost) in points.items() if steps}
        found.append({"label": label, "metrics": metrics})
    return [("curves", packed({"runs": found, "panels": drawn, "changes": [*changes.items()]}))]


def samples_of(runs: Mapping[str, Sequence[Row]]) -> Pieces:
    """The pieces of the samples of all runs: `samples`, the columns to choose by, and `samples-0`, … with their texts.

    A text of more than `MAX_TEXT` characters is cut, and says so.
    """
    rows = [(number, row) for number, of_run in enumerate(runs.values()) for row in of_run]
    columns: dict[str, Any] = {"run": {"names": list(runs), "of": [number for number, _ in rows]}}
    for name in _TEXTS:
        names: dict[str, int] = {}
        of = [names.setdefault(str(row.get(name) or ""), len(names)) for _, row in rows]
        columns[name] = {"names": list(names), "of": of}
    for name in _NUMBERS:
        columns[name] = _numbers([row.get(name) for _, row in rows])
    columns["error"] = [int(row.get("error") is not None) for _, row in rows]
    first, pieces = [], []
    for start, texts in _chunks(rows):
        pieces.append((f"samples-{len(pieces)}", base64.b64encode(gzip.compress(texts, 6, mtime=0)).decode()))
        first.append(start)
    return [("samples", packed({"count": len(rows), "first": first, "columns": columns})), *pieces]


def _chunks(rows: Sequence[tuple[int, Row]]) -> Iterator[tuple[int, bytes]]:
    """(index of the first sample, JSON of the list of samples) of each chunk."""
    start, held, size = 0, [], 0
    for i, (_, row) in enumerate(rows):
        held.append(json.dumps(_body(row), separators=(",", ":")))
        size += len(held[-1])
        if size >= _CHUNK or i == len(rows) - 1:
            yield start, f"[{','.join(held)}]".encode()
            start, held, size = i + 1, [], 0


def _body(row: Row) -> dict[str, Any]:
    """The texts of a sample, without empty ones."""
    gold = row.get("gold") or row.get("reference")
    body = {
        "prompt": row.get("prompt"),
        "completion": row.get("completion"),
        "gold": gold if isinstance(gold, str) or gold is None else json.dumps(gold, ensure_ascii=False),
        **{name: row.get(name) for name in ("answer", "reason", "error")},
    }
    body = {name: _cut(text) for name, text in body.items() if text}
    if row.get("terms"):
        body["terms"] = {name: _number(value) for name, value in row["terms"].items()}
    if row.get("spans"):
        body["spans"] = [{**span, "text": _cut(span["text"])} for span in row["spans"]]
        body["calls"] = row.get("calls") or []
    return body


def _cut(text: Any) -> str:
    text = str(text)
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}\n… {len(text) - MAX_TEXT:,} more characters"


def _number(value: Any) -> float | int | None:
    """The value in six digits, null if it is not a finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if isinstance(value, int) else float(f"{value:.6g}") if math.isfinite(value) else None


def _numbers(values: Sequence[Any]) -> list[float | int | None]:
    return [_number(value) for value in values]
