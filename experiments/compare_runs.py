"""Held-out accuracy of several runs in one plot, with 95 % intervals.

    python -m experiments.compare_runs --out=docs/curves.png "seed 0=runs/a" "seed 1=runs/b" "shuffled rewards=runs/c"

Each argument is a label and the workdir of a run.
"""

import argparse
from pathlib import Path

from matplotlib.figure import Figure

from rlvr_jax.reporting import jsonl


def draw(runs: dict[str, Path], out: Path, title: str = "") -> None:
    """Writes the curves of `runs`, label -> workdir, to `out`.

    Raises:
      ValueError: a workdir has no evaluation in its metrics.jsonl.
    """
    figure = Figure(figsize=(9.5, 3.6), layout="constrained", facecolor="white")
    axes = figure.add_subplot(xlabel="step", ylabel="greedy accuracy, held out", ylim=(0, 1), title=title)
    for label, workdir in runs.items():
        rows = [row for row in jsonl.read(workdir / "metrics.jsonl") if "eval/greedy_accuracy" in row]
        if not rows:
            raise ValueError(f"{workdir}: metrics.jsonl has no evaluation")
        steps, mean, low, high = (
            [row[name] for row in rows]
            for name in ("step", *(f"eval/greedy_accuracy{end}" for end in ("", "_low", "_high")))
        )
        (line,) = axes.plot(steps, mean, marker="o", markersize=3.5, label=f"{label}: {mean[0]:.2f} to {mean[-1]:.2f}")
        axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.1, linewidth=0)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    figure.savefig(out, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="LABEL=WORKDIR")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--title", default="")
    args = parser.parse_args()
    pairs = [run.rpartition("=") for run in args.runs]
    if not all(label and workdir for label, _, workdir in pairs):
        parser.error("each run is LABEL=WORKDIR")
    try:
        draw({label: Path(workdir) for label, _, workdir in pairs}, args.out, args.title)
    except (OSError, ValueError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
