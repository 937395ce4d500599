"""Size of a report with many samples, and how long a browser takes to show it.

python -m experiments.benchmarks.report_page --samples=100000 --characters=600

Needs pip install 'rlvr_jax[browser]'. The samples are made up: sentences of words drawn at random, groups of 8.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rlvr_jax.reporting import jsonl
from rlvr_jax.reporting.report import write_report

from .browser import browser

_WORDS = 3000  # of the language that is made up
_NEEDLE = "needle"  # stands in the last sample


def samples(count: int, characters: int) -> Iterator[dict[str, Any]]:
    """Rows of samples.jsonl with completions of about so many characters."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(_WORDS)]
    prompt = ""
    for i in range(count):
        if i % 8 == 0:
            prompt = " ".join(draw.choices(words, k=40))
        text = " ".join(draw.choices(words, k=characters // 6))
        score = float(draw.random() < 0.4)
        yield {
            "step": 1 + i // 128, "split": "train", "example": f"made_up/train/{i // 8}", "task": "made_up",
            "prompt": prompt, "completion": text + (f" {_NEEDLE}" if i == count - 1 else ""), "reference": "7",
            "gold": None, "score": score, "reward": score - 0.01 * draw.random(), "terms": {"score": score},
            "answer": "7", "reason": "right" if score else "8 is not 7", "error": None, "finish_reason": "stop",
            "length": len(text) // 4, "turns": 1, "spans": None, "calls": [],
        }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=100_000)
    parser.add_argument("--characters", type=int, default=600, help="of a completion")
    parser.add_argument("--picture", type=Path, help="where to write a picture of the page")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name, browser() as page:
        folder = Path(name)
        (folder / "config.json").write_text(json.dumps({"seed": 0, "tasks": {"made_up": {}}}))
        jsonl.append(folder / "samples.jsonl", samples(args.samples, args.characters))
        jsonl.append(folder / "metrics.jsonl", ({"step": i, "train/reward": i / 999} for i in range(1, 1000)))
        lap = _clock()
        path = write_report(folder)
        seconds = {"written": lap()}
        page.open(path)
        page.wait_for("document.querySelectorAll('.sample').length")
        seconds["first page shown"] = lap()
        _do(page, "by-verdict", "right")
        seconds["filtered by verdict"] = lap()
        _do(page, "order", "highest reward")
        seconds["ordered by reward"] = lap()
        _do(page, "by-verdict", "")
        lap()
        _do(page, "search", _NEEDLE)
        seconds["all texts searched"] = lap()
        assert page.evaluate("document.getElementById('found').textContent").startswith("1 of ")
        sizes = {name: (folder / name).stat().st_size / 1e6 for name in ("samples.jsonl", "report.html")}
        if args.picture:
            page.picture(args.picture)
    print(f"{args.samples:,} samples: " + ", ".join(f"{name} {size:.1f} MB" for name, size in sizes.items()))
    print(", ".join(f"{name} {x:.2f} s" for name, x in seconds.items()))


def _do(page: Any, control: str, value: str) -> None:
    """Changes a control and waits for the list that follows."""
    page.evaluate(
        "updates = 0;"
        "document.getElementById('samples-of-runs').addEventListener('updated', () => updates++, {once: true});"
        f"document.getElementById('{control}').value = {json.dumps(value)};"
        f"document.getElementById('{control}').dispatchEvent(new Event('change'))"
    )
    page.wait_for("updates")


def _clock() -> Any:
    last = time.perf_counter()

    def lap() -> float:
        nonlocal last
        last, before = time.perf_counter(), last
        return last - before

    return lap


if __name__ == "__main__":
    main()
