"""Reinforcement learning with verifiable rewards.

    rlvr train --config=countdown --workdir=runs/countdown [--config.key=value ...]

Writes config.json, metrics.jsonl, samples.jsonl, TensorBoard events, checkpoints, curves.png and report.html to the
workdir. The same command resumes a stopped run. With several hosts the same command runs on each (docs/hosts.md).
"""

import re
from collections.abc import Mapping
from typing import Any

from . import command


def main() -> None:
    config, workdir = command.config(), command.workdir()
    with command.pool(config) as pool, command.processes() as processes:  # before JAX touches a device
        from rlvr_jax.reporting import doctor
        from rlvr_jax.reporting.report import edited, json_of, rows_of
        from rlvr_jax.training.checkpoints import complete_steps
        from rlvr_jax.training.loop import train

        before = complete_steps(workdir)
        report = train(config, workdir, pool, processes)
    if processes.index > 0:
        return
    if config.training.num_steps in before:
        print(f"{workdir} already holds all {config.training.num_steps} steps of this run; nothing was trained")
    rows = rows_of(workdir / "metrics.jsonl")
    evaluated = [row for row in rows if "eval/greedy_accuracy" in row]
    if evaluated:
        print(_change(evaluated[0], evaluated[-1]))
        if edits := edited(rows_of(workdir / "changes.jsonl")):
            print(f"note: {edits}, so these numbers are of different code")
    for found in doctor.findings(rows, json_of(workdir / "config.json")):
        print(f"the curves suggest: {found.title} (config: {', '.join(found.keys[:3])})")
    print(f"report: {report}")


def _change(first: Mapping[str, Any], last: Mapping[str, Any]) -> str:
    """Greedy accuracy and pass@k of two evaluations; pass@1 is the accuracy of samples."""
    labels = {"eval/greedy_accuracy": "greedy accuracy", "eval/pass@1": "sampled accuracy (pass@1)"}
    labels |= {name: name.removeprefix("eval/") for name in last if re.fullmatch(r"eval/pass@(?!1$)\d+", name)}
    changes = [f"{label} {first[x]:.3f} -> {last[x]:.3f}" for x, label in labels.items() if x in first and x in last]
    return f"held-out problems, step {first['step']} -> {last['step']}: {', '.join(changes)}"


if __name__ == "__main__":
    command.define()
    command.define_processes()
    command.run(main)
