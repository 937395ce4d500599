"""One self-contained HTML page about a run, made only from the files of its workdir."""

import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlvr_jax.config import flatten
from rlvr_jax.reporting import curves, embedded, files, jsonl
from rlvr_jax.reporting.doctor import findings
from rlvr_jax.reporting.pages import page, shown
from rlvr_jax.reporting.panel import Panel
from rlvr_jax.reporting.panels import panels as panels_of

Row = Mapping[str, Any]

REPORT = "report.html"  # in the workdir
_MAX_PROBLEMS = 16  # that are compared
_LONG_OPENING = 100  # characters
_PARTS = (
    ("time/rollout", "sampling"),
    ("time/verify", "verification"),
    ("time/train", "training"),
    ("time/layout", "move of parameters"),
    ("time/evaluate", "evaluation"),
    ("time/save", "saving, as far as it held up the next step"),
)
# What a table has of each, by metric.
_OF_A_TOOL = {
    "tool/{}/episodes": "share of episodes",
    "tool/{}/calls": "calls per episode",
    "tool/{}/success": "success",
    "tool/{}/tokens": "tokens told per call",
    "time/tool/{}": "seconds of a step",
}
_OF_A_TASK = {
    "task/{}/reward": "train reward",
    "task/{}/accuracy": "train accuracy",
    "task/{}/greedy_accuracy": "held-out accuracy",
    "task/{}/pass@1": "held-out pass@1",
    "task/{}/response_length": "response tokens",
}
_OF_A_SOURCE = {
    "data/{}/rows": "rows",
    "data/{}/left_out": "left out",
    "data/{}/heldout": "held out",
    "data/{}/truncated": "share cut off",
    "data/{}/length": "mean tokens",
    "data/{}/longest": "longest",
    "sft/{}/loss": "loss",
}
_SPEED = {  # of a run of each kind
    "rl": (("time/rollout_tokens_per_second", "sampling"),),
    "sft": (("time/sft_tokens_per_second", "training"),),
    "preferences": (("time/train_tokens_per_second", "training"),),
}


# Fields of a sample that the page relies on.
_SAMPLE = {
    "step": int,
    "task": str,
    "example": str,
    "prompt": str,
    "completion": str,
    "terms": dict | None,
    "spans": list | None,
}


def write_report(workdir: Path, out: Path | None = None) -> Path:
    """Writes `curves.png` and `report.html` into a workdir, from its config.json, metrics.jsonl and samples.jsonl.

    Sections of missing files are left out. Returns the path of the page, which is all that is written with `out`.

    Raises:
      OSError: a file can't be written; the message names it.
      ValueError: a file of the workdir is damaged; the message names it.
    """
    rows, changes = metrics_of(workdir / "metrics.jsonl"), rows_of(workdir / "changes.jsonl")
    samples = samples_of(workdir / "samples.jsonl")
    config, environment = (json_of(workdir / name) for name in ("config.json", "environment.json"))
    title = f"{shown(' + '.join(_data(config)) or workdir.name)}, seed {config.get('seed', '?')}"
    edits = edited(changes)
    marks = marks_of(changes)
    if out is None:
        curves.curves_png(rows, workdir / "curves.png", f"{title}; {edits}" if edits else title, list(marks))
    panels, comparison = panels_of(rows), _comparison(samples)
    openings = _openings([row for pair in comparison["pairs"] for row in pair] if comparison else [])
    content = page(
        Path(__file__).with_name("report.html"),
        title=title,
        headlines=_headlines(rows, config),
        edits=edits,
        findings=findings(rows, config, samples),
        panels=panels,
        pieces=[*embedded.curves_of({title: rows}, panels, marks), *embedded.samples_of({title: samples})],
        script=embedded.scripts(),
        num_samples=len(samples),
        tasks=_table(rows, r"task/([^/]+)/.*", _OF_A_TASK),
        sources=_table(rows, r"data/([^/]+)/rows", _OF_A_SOURCE),
        comparison=comparison,
        tools=_table(rows, r"tool/([^/]+)/episodes", _OF_A_TOOL),
        throughput=_throughput(rows),
        others=_others(rows, panels),
        config=sorted(flatten(config).items()),
        environment=flatten(environment),
        changes=changes,
        short=curves.short,
        shown=shown,
        gold=_gold,
        openings=openings,
        prompt=lambda row: shown(row["prompt"].removeprefix(openings.get(row["task"], ""))),
    )
    out = out or workdir / REPORT
    files.replace(out, content)
    return out


def _data(config: Mapping[str, Any]) -> Sequence[str]:
    """The names of the tasks that a run learns, or of its sources of chats or preferences."""
    own = config.get(config.get("run", ""), {})
    return [*(own.get("sources") or own.get("tasks") or config.get("tasks", {}))]


def rows_of(path: Path) -> list[dict[str, Any]]:
    """The rows of a file; none without it."""
    return jsonl.read(path) if path.is_file() else []  # a device file may be unbounded


def metrics_of(path: Path) -> list[dict[str, Any]]:
    """The metrics of a file; none without it. Raises ValueError, which names file and metric, if one is no number."""
    rows = rows_of(path)
    for number, row in enumerate(rows, start=1):
        wrong = [name for name, value in {"step": None, **row}.items() if not isinstance(value, int | float)]
        if wrong:
            raise ValueError(f"{path} is damaged: {wrong[0]!r} of its row {number} is no number")
    return rows


def samples_of(path: Path) -> list[dict[str, Any]]:
    """The samples of a file; none without it. Raises ValueError, which names file and field, if one is damaged."""
    rows = rows_of(path)
    for number, row in enumerate(rows, start=1):
        wrong = [name for name, kind in _SAMPLE.items() if not isinstance(row.get(name), kind)]
        parts = row.get("spans") or []
        if not wrong and not all(isinstance(part, dict) and isinstance(part.get("text"), str) for part in parts):
            wrong = ["spans"]
        if wrong:
            raise ValueError(f"{path} is damaged: {wrong[0]!r} of its sample {number} is missing or of another type")
    return rows


def edited(changes: Sequence[Row]) -> str:
    """`after step 8 mine.py (config.reward) was edited`: the user's files that were, from changes.jsonl; or empty."""
    of_code = [row for row in changes if row.get("code")]
    return "; ".join(f"after step {row['step']} {', '.join(row['code'])} was edited" for row in of_code)


def marks_of(changes: Sequence[Row]) -> dict[int, str]:
    """The changes by the step after which they came, from changes.jsonl."""
    found: dict[int, list[str]] = {}
    for row in changes:
        found.setdefault(row["step"], []).extend(row["changes"])
    return {step: ", ".join(found[step]) for step in sorted(found) if step > 0}


def json_of(path: Path) -> dict[str, Any]:
    """The object in a file, empty without it. Raises ValueError, which names the file, if it is damaged."""
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error


def _ends(rows: Sequence[Row], metric: str) -> tuple[Row, Row] | None:
    """The first and the last row that have a metric."""
    having = [row for row in rows if isinstance(row.get(metric), int | float)]
    return (having[0], having[-1]) if having else None


def _headlines(rows: Sequence[Row], config: Mapping[str, Any]) -> list[dict[str, str]]:
    """The numbers at the top of the page: label, value and note."""
    run = config.get("run", "rl")
    found = []
    for metric, label in (
        ("eval/greedy_accuracy", "held-out accuracy, greedy"),
        ("train/reward", "train reward"),
        ("sft/loss", "supervised loss"),
        ("eval/preference_accuracy", "held-out preferences right"),
    ):
        ends = _ends(rows, metric)
        if ends:
            first, last = ends
            note = f"step {first['step']} → {last['step']}"
            if f"{metric}_low" in last:
                low, high = last[f"{metric}_low"], last[f"{metric}_high"]
                note += f"; 95 % interval at the end {low:.3f} to {high:.3f}"
            value = f"{curves.short(first[metric])} → {curves.short(last[metric])}"
            found.append({"label": label, "value": value, "note": note})
    seconds = [value for _, value in curves.values(rows, "time/step")]
    if seconds:
        planned = config.get("training" if run == "rl" else run, {}).get("num_steps", "?")
        note = f"{rows[-1]['step']} of {planned} steps"
        if run == "rl":  # of others, whose rows have several updates, the speed says more
            note += f", median {curves.short(sorted(seconds)[len(seconds) // 2])} s"
        found.append({"label": "training time", "value": f"{curves.short(sum(seconds))} s", "note": note})
    for metric, label in _SPEED[run]:
        speeds = sorted(value for _, value in curves.values(rows, metric))
        if speeds:
            value = f"{curves.short(speeds[len(speeds) // 2])} tok/s"
            found.append({"label": label, "value": value, "note": "median over the steps"})
    for metric, label, note, total in (
        ("verify/errors", "unjudged completions", "left out of the rewards and the loss", True),
        ("train/skipped_steps", "skipped updates", "the gradient or the update was not finite", False),
    ):
        counts = [value for _, value in curves.values(rows, metric)]
        if counts:
            value = sum(counts) if total else counts[-1]
            found.append({"label": label, "value": f"{value:.0f}", "note": note})
    return found


def _table(rows: Sequence[Row], named: str, columns: Mapping[str, str]) -> dict[str, Any] | None:
    """The labels of those columns that have a value, and (name, first and last value in each) of every name.

    Args:
      rows: of metrics.jsonl.
      named: pattern of the metrics that have a name, which is its group.
      columns: metric of a name -> label.
    """
    names = sorted({found[1] for row in rows for metric in row if (found := re.fullmatch(named, metric))})
    cells = {label: [_change(rows, metric.format(name)) for name in names] for metric, label in columns.items()}
    cells = {label: column for label, column in cells.items() if any(x != "-" for x in column)}
    if not cells:
        return None
    return {"columns": [*cells], "rows": [*zip(names, zip(*cells.values(), strict=True), strict=True)]}


def _change(rows: Sequence[Row], metric: str) -> str:
    """The first and the last value, or the only one, with the bounds of the last."""
    ends = _ends(rows, metric)
    if ends is None:
        return "-"
    first, last = (curves.short(row[metric]) for row in ends)
    text = last if ends[0] is ends[1] else f"{first} → {last}"
    bounds = [ends[1].get(f"{metric}{end}") for end in ("_low", "_high")]
    return text if None in bounds else f"{text} ({bounds[0]:.3f} to {bounds[1]:.3f})"


def _comparison(samples: Sequence[Row]) -> dict[str, Any] | None:
    """Completions of the same held-out problems at the first and at the last evaluation."""
    heldout = [row for row in samples if row.get("split") == "heldout"]
    if not heldout:
        return None
    first, last = min(row["step"] for row in heldout), max(row["step"] for row in heldout)
    before = {row["example"]: row for row in heldout if row["step"] == first}
    after = {row["example"]: row for row in heldout if row["step"] == last}
    pairs = [(before[name], after[name]) for name in before if name in after]
    return {"first": first, "last": last, "pairs": _of_all_tasks(pairs, lambda pair: pair[0]["task"])}


def _of_all_tasks(items: Sequence[Any], task_of: Callable[[Any], str]) -> list[Any]:
    """The first items of each task, equally many, `_MAX_PROBLEMS` in total, grouped by task."""
    of_task: dict[str, list[Any]] = {}
    for item in items:
        of_task.setdefault(task_of(item), []).append(item)
    share = max(1, _MAX_PROBLEMS // max(1, len(of_task)))
    return [item for group in of_task.values() for item in group[:share]]


def _throughput(rows: Sequence[Row]) -> list[tuple[str, float, float, float]]:
    """(phase, total seconds, share of all steps' time, median seconds per step) of each phase of a step."""
    if not any("time/rollout" in row for row in rows):  # a supervised run, whose steps have no parts
        return []
    total = sum(value for name in ("time/step", "time/save") for _, value in curves.values(rows, name))
    table = []
    for metric, label in _PARTS:
        values = sorted(value for _, value in curves.values(rows, metric))
        if values and total:
            table.append((label, sum(values), sum(values) / total, values[len(values) // 2]))
    rest = total - sum(row[1] for row in table)
    if table:
        table.append(("the rest (bookkeeping)", rest, rest / total, 0.0))
    return table


def _others(rows: Sequence[Row], panels: Sequence[Panel]) -> list[tuple[str, float | int, float | int]]:
    """(name, first value, last value) of metrics that no plot shows."""
    drawn = {"step"}.union(*(panel.metrics for panel in panels))
    tables = ("task/", "time/tool/", "data/")  # they have a table of their own
    drawn |= {name for row in rows for name in row if name.startswith(tables)}
    table = []
    for name in sorted({name for row in rows for name in row} - drawn):
        ends = _ends(rows, name)
        if ends:
            table.append((name, ends[0][name], ends[1][name]))
    return table


def _gold(row: Row) -> str:
    """The gold answer for readers, or the reference of the verifier."""
    value = row.get("gold") or row["reference"]
    return shown(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _openings(samples: Sequence[Row]) -> dict[str, str]:
    """The common beginning of all prompts of a task (system prompt, examples), by task, if it is long."""
    prompts: dict[str, set[str]] = {}
    for row in samples:
        prompts.setdefault(row["task"], set()).add(row["prompt"])
    found = {}
    for task, texts in prompts.items():
        first, last = min(texts), max(texts)  # in their order: what these begin with, all do
        alike = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
        common = "".join(character for character, _ in alike)
        opening = common[: max(common.rfind("\n"), common.rfind(" ")) + 1]  # words stay whole
        if len(texts) > 1 and len(opening) >= _LONG_OPENING:
            found[task] = opening
    return found
