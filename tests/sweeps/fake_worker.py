"""A worker that computes nothing and imports nothing: what it does with a job depends on the seed.

911 fails, 912 takes the process with it, 913 waits for a signal, 914 is in use elsewhere, others finish with a
curve of their own.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

OTHERS = (  # metrics that notebooks draw
    *("part/all_visible", "part/table", "part/scratchpad", "part/held", "part/planned", "part/targets", "part/gold"),
    *("tool/calculator/episodes", "task/mended/greedy_accuracy", "task/sums/greedy_accuracy", "task/sums/accuracy"),
    *("task/sum/response_length", "task/first/response_length"),
)
SAMPLE = {  # a row of samples.jsonl, with what notebooks read
    "step": 0,
    "split": "heldout",
    "example": "letters/heldout/0",
    "task": "letters",
    "prompt": "2C4F9",
    "completion": "RRLR",
    "reference": {"start": 2, "target": 4, "finish": 9},
    "gold": "#3",
    "score": 0.5,
    "spans": [{"author": "policy", "text": "1"}, {"author": "prompt", "text": "B|1|---|"}],
}


def rows(seed: int, better: float = 0.0, steps: int = 4, every: int = 2) -> list[dict]:
    """A curve that rises from 0.2 to 0.6, by `better` higher at its end, with noise of its seed."""
    found = [{"step": 0, "eval/greedy_accuracy": 0.2}]
    for step in range(1, steps + 1):
        row = {"step": step, "train/reward": step / 10, "train/response_length": 5.0, "train/loss": seed + better}
        row |= {"train/accuracy": step / 20, "part/guard": 0.0} | dict.fromkeys(OTHERS, 0.5)
        row |= {"time/step": 3.0 if step == 1 else 1.0, "time/rollout": 0.5, "time/rollout_tokens_per_second": 200.0}
        if step % every == 0:
            noise = ((seed * 7 + step) % 5 - 2) / 256
            row |= {"eval/greedy_accuracy": 0.2 + (0.4 + better) * step / steps + noise}
            row |= {"time/evaluate": 0.25, "time/step": 1.25}
        found.append(row)
    return found


def main() -> None:
    interrupted = []
    signal.signal(signal.SIGINT, lambda *_: interrupted.append(1))
    for line in sys.stdin:
        job = json.loads(line)
        seed, folder = job["config"]["seed"], Path(job["folder"])
        status, error = "finished", None
        if job["job"] == "check":
            error = "config.seed is refused" if seed == 910 else None
        else:
            folder.mkdir(parents=True, exist_ok=True)
            if seed == 912 and job["job"] == "rl":
                os._exit(7)
            if seed == 914 and job["job"] == "rl":
                status, error = "in use", f"{folder} is in use by process 1"
            if seed == 911:
                status, error = "failed", "it went wrong"
            while seed == 913 and job["job"] == "rl" and not interrupted:
                time.sleep(0.01)
            if interrupted:
                status = "stopped"
            if status == "finished" and not (folder / "metrics.jsonl").exists():
                better = 0.2 if job["config"]["algorithm"]["scale"] == "none" else 0.0
                size = job["config"]["training"]["num_steps"], job["config"]["evaluation"]["every"]
                lines = [json.dumps(row) + "\n" for row in rows(seed, better, *size)]
                (folder / "metrics.jsonl").write_text("".join(lines))
                (folder / "samples.jsonl").write_text(json.dumps(SAMPLE) + "\n")
                (folder / "config.json").write_text(json.dumps(job["config"]))
            with (folder / "made.txt").open("a") as made:
                made.write(f"{job['job']}\n")
        answer = {"status": status, "error": error, "seconds": 2.0, "cpu_seconds": 1.0}
        print(json.dumps(answer), flush=True)
        if status != "finished":
            return


if __name__ == "__main__":
    main()
