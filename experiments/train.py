"""Reinforcement learning with verifiable rewards.

    rlvr train --config=countdown --workdir=runs/countdown [--config.key=value ...]

Writes config.json, metrics.jsonl, samples.jsonl, TensorBoard events, checkpoints, curves.png and report.html to the
workdir. The same command continues a run that was stopped.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from . import command


def main() -> None:
    config, workdir = command.config(), command.workdir()
    with command.pool(config) as pool:  # before JAX touches a device
        from rlvr_jax.reporting import jsonl
        from rlvr_jax.training.checkpoints import complete_steps
        from rlvr_jax.training.loop import train

        before = complete_steps(workdir)
        report = train(config, workdir, pool)
    if config.training.num_steps in before:
        print(f"{workdir} already holds all {config.training.num_steps} steps of this run; nothing was trained")
    print(_before_and_after(jsonl.read(workdir / "metrics.jsonl")))
    print(f"report: {report}")


def _before_and_after(rows: Sequence[Mapping[str, Any]]) -> str:
    """Greedy accuracy and pass@k of the first and of the last evaluation; pass@1 is the accuracy of samples."""
    evaluated = [row for row in rows if "eval/greedy_accuracy" in row]
    first, last = evaluated[0], evaluated[-1]
    names = {"eval/greedy_accuracy": "greedy accuracy"}
    names |= {name: name.removeprefix("eval/") for name in last if re.fullmatch(r"eval/pass@\d+", name)}
    if "eval/pass@1" in names:
        names["eval/pass@1"] = "sampled accuracy (pass@1)"
    changes = [
        f"{names[name]} {first[name]:.3f} -> {last[name]:.3f}" for name in names if {name} <= first.keys() & last.keys()
    ]
    return f"held-out problems, step {first['step']} -> {last['step']}: {', '.join(changes)}"


if __name__ == "__main__":
    command.define()
    command.run(main)
