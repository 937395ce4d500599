"""Over-optimisation of a learned reward: gold and proxy over the distance from the first policy.

    python -m experiments.benchmarks.over_optimisation --out=runs/over_optimisation [--seeds=3]

For each seed: a warm start on the letters task (`configs/letters.py`), pairs of its samples that are labelled by the
gold reward, a reward model for each number of pairs, reinforcement learning against it, with the best one also with a
KL penalty, and best-of-n sampling by it. Writes the curves with fitted forms (`curves.json`) and a picture; finished
runs are not repeated.

After Gao, Schulman & Hilton 2022 (arXiv:2210.10760), at a size for a laptop.
"""

import argparse
import dataclasses
import io
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging

import rlvr_jax
from rlvr_jax.config import Config
from rlvr_jax.evaluation.best_of_n import best_of_n, best_of_n_kl, fit_best_of_n, fit_rl
from rlvr_jax.learner.supervised import SourceConfig
from rlvr_jax.reporting import files, jsonl
from rlvr_jax.tasks import make_task
from rlvr_jax.verifiers.pool import Pool

from .. import builtin
from .letters import HIGHEST, LOWEST, gold_of

_NEAREST = 0.3  # sqrt(KL) of the points that forms are fitted to; that of RL is infinitely steep at 0
_EPOCHS = 2.4  # over the pairs, at least 40 updates
_TASK = "rlvr_jax.experiments.benchmarks.letters:letters"


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    flags.add_argument("--out", type=Path, default=Path("runs/over_optimisation"), help="folder of the runs")
    flags.add_argument("--seeds", type=int, default=3, help="number of seeds")
    flags.add_argument("--pairs", type=int, nargs="+", default=[300, 16_000], help="of the reward models")
    flags.add_argument("--kl_coef", type=float, default=0.2, help="of a run against the model of most pairs")
    flags.add_argument("--steps", type=int, default=0, help="of each stage, to try it out; 0 for those of the config")
    given = flags.parse_args()
    logging.set_verbosity(logging.FATAL)  # Orbax logs every file that it writes
    out, sizes = given.out, sorted(given.pairs)
    seeds = range(given.seeds)
    curves = joined([of_seed(out / f"seed_{seed}", seed, sizes, given.kl_coef, given.steps) for seed in seeds])
    files.replace(out / "curves.json", json.dumps(curves, indent=1).encode())
    files.replace(out / "over_optimisation.png", picture(curves))
    for name, of_seeds in curves["rl"].items():
        for seed, curve in enumerate(of_seeds):
            peak = max(range(len(curve["gold"])), key=lambda i, gold=curve["gold"]: gold[i])
            print(
                f"{name}, seed {seed}: accuracy {curve['accuracy']:.2f}, gold {curve['gold'][0]:.2f}, at most "
                f"{curve['gold'][peak]:.2f} at sqrt(KL) {curve['distance'][peak]:.1f}, {curve['gold'][-1]:.2f} at the "
                f"end; proxy {curve['proxy'][-1]:.2f}, sqrt(KL) {curve['distance'][-1]:.1f}"
            )
    for name, of_seeds in curves["best_of_n"].items():
        for seed, curve in enumerate(of_seeds):
            print(f"best of n, {name}, seed {seed}: gold " + " ".join(f"{x:.2f}" for x in curve["gold"]))
    for name, fit in curves["fits"].items():
        print(f"{name}: " + ", ".join(f"{key} {value:.2f}" for key, value in fit.items()))


def joined(found: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, dict[str, Any]]:
    """The curves of several seeds, each a list by the name of the run, with the fitted forms."""
    curves: dict[str, dict[str, Any]] = {"rl": {}, "best_of_n": {}}
    for of_one in found:
        for kind, of_kind in of_one.items():
            for name, curve in of_kind.items():
                curves[kind].setdefault(name, []).append(curve)
    return curves | {"fits": fits(curves)}


def stored() -> dict[str, dict[str, Any]]:
    """The curves of the three seeds of docs/preferences.md, as `curves.json` has them."""
    return json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))


def of_seed(
    folder: Path, seed: int, sizes: Sequence[int], kl_coef: float, steps: int
) -> dict[str, dict[str, dict[str, Any]]]:
    """The curves of one seed, of reinforcement learning ("rl") and of best-of-n sampling, by the name of the run."""
    from rlvr_jax.training.sft import sft

    config = dataclasses.replace(builtin.load("letters"), seed=seed)
    if steps:
        short = {"num_steps": steps, "save_every": steps}
        config = dataclasses.replace(
            config,
            sft=dataclasses.replace(config.sft, updates_per_call=1, **short),
            training=dataclasses.replace(config.training, **short),
        )
    sft(config, folder / "sft")
    config = dataclasses.replace(config, init_from=str(folder / "sft"))
    found, models = {}, {}
    for size in sizes:
        workdir = models[f"{size} pairs"] = folder / f"reward_model_{size}"
        accuracy = reward_model(config, folder, workdir, size, steps)
        found[f"{size} pairs"] = against(config, workdir, folder / f"rl_{size}", 0.0) | {"accuracy": accuracy}
    held = against(config, workdir, folder / f"rl_{sizes[-1]}_kl", kl_coef)
    found[f"{sizes[-1]} pairs, KL {kl_coef}"] = held | {"accuracy": accuracy}
    return {"rl": found, "best_of_n": best_of(config, models, seed, *((4, 4) if steps else (256, 64)))}


def best_of(
    config: Config, models: Mapping[str, Path], seed: int, problems: int, samples: int
) -> dict[str, dict[str, Any]]:
    """Gold and proxy of the best of n samples of the warm start by each reward model, and by gold itself."""
    from rlvr_jax.training.drawing import sample

    names = {name: f"rm_{i}" for i, name in enumerate(models)}
    sources = {names[name]: str(workdir) for name, workdir in models.items()}
    with Pool(0) as pool:
        config = dataclasses.replace(config, reward_models=sources)
        _, groups, _ = sample(config, None, pool, problems=problems, samples=samples, seed=seed)
    gold = np.array([[gold_of(group.example.reference, x.text) for x in group.episodes] for group in groups])
    numbers = [2**i for i in range(samples.bit_length())]
    distances = [math.sqrt(best_of_n_kl(n)) for n in numbers]
    found = {"gold reward": {"gold": best_of_n(gold, gold, numbers).tolist(), "distance": distances}}
    for name, key in names.items():
        proxy = np.array([[verdict.parts[key] for verdict in group.verdicts] for group in groups])
        found[name] = {
            "gold": best_of_n(gold, proxy, numbers).tolist(),
            "proxy": best_of_n(proxy, proxy, numbers).tolist(),
            "distance": distances,
        }
    return found


def fits(curves: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """The forms of Gao et al. fitted to the gold gained over the start, of all seeds together.

    Those of reinforcement learning are fitted to means of five steps, where sqrt(KL) is above `_NEAREST`.
    """
    found = {}
    for kind, fit in (("rl", fit_rl), ("best_of_n", fit_best_of_n)):
        for name, of_seeds in curves[kind].items():
            d, gain = [], []
            for first, curve in zip(starts(curves), of_seeds, strict=True):
                gold, distance = curve["gold"], curve["distance"]
                if kind == "rl":
                    gold, distance = smoothed(gold), smoothed(distance)
                pairs = [(x, y - first) for x, y in zip(distance, gold, strict=True) if x > _NEAREST]
                d, gain = d + [x for x, _ in pairs], gain + [y for _, y in pairs]
            if len({*d}) > 2:
                a, b, remains = fit(d, gain)
                found[f"{kind}, {name}"] = {"a": a, "b": b, "unexplained variance": remains, "farthest": max(d)}
    return found


def reward_model(config: Config, folder: Path, workdir: Path, size: int, short: int) -> float:
    """Trains a reward model of so many pairs, for `short` steps if it is not 0; returns its held-out accuracy."""
    from rlvr_jax.training.preferences import prefer

    path = folder / f"pairs_{size}.jsonl"
    if not path.exists():
        write_pairs(folder / "sft", path, size, config.seed)
    options = config.preferences
    steps = short or max(40, round(_EPOCHS * size / options.batch_size / 20) * 20)
    options = dataclasses.replace(
        options,
        sources={"samples": SourceConfig(str(path))},
        heldout_share=0.1,
        num_steps=steps,
        save_every=steps,
        updates_per_call=1 if short else options.updates_per_call,
    )
    prefer(dataclasses.replace(config, preferences=options), workdir)
    return jsonl.read(workdir / "metrics.jsonl")[-1]["eval/preference_accuracy"]


def write_pairs(sft: Path, path: Path, size: int, seed: int) -> None:
    """Two samples of each of `size` problems, the one of higher gold reward first; ties are left out by the reader."""
    task = make_task(_TASK)
    examples = [task.example("train", 10_000_000 * (seed + 1) + i) for i in range(size)]
    samples = rlvr_jax.load(sft).generate(
        [x.prompt for x in examples], samples=2, max_tokens=15, seed=seed, batch_size=512
    )
    rows = []
    for i, example in enumerate(examples):
        pair = sorted(samples[2 * i : 2 * i + 2], key=lambda x, wanted=example.reference: -gold_of(wanted, x.text))
        golds = [gold_of(example.reference, x.text) for x in pair]
        texts = [x.text for x in pair]
        rows.append({"prompt": example.prompt, "chosen": texts[0], "rejected": texts[1], "margin": golds[0] - golds[1]})
    files.replace(path, "".join(json.dumps(row) + "\n" for row in rows).encode())


def against(config: Config, model: Path, workdir: Path, kl_coef: float) -> dict[str, Any]:
    """Gold, proxy and distance of reinforcement learning against a reward model, by step."""
    from rlvr_jax.training.loop import train

    config = dataclasses.replace(
        config,
        reward=(("rm", 1.0),),
        reward_models={"rm": str(model)},
        algorithm=dataclasses.replace(config.algorithm, kl_coef=kl_coef),
    )
    with Pool(0) as pool:
        train(config, workdir, pool)
    rows = [row for row in jsonl.read(workdir / "metrics.jsonl") if "train/score" in row]
    return {
        "gold": [LOWEST + (HIGHEST - LOWEST) * row["train/score"] for row in rows],
        "proxy": [row["train/reward"] for row in rows],
        "distance": [math.sqrt(max(row["train/kl_sample"], 0.0)) for row in rows],
    }


def starts(curves: Mapping[str, Mapping[str, Any]]) -> list[float]:
    """Gold of the warm start of each seed, from all samples of best-of-n."""
    return [curve["gold"][0] for curve in curves["best_of_n"]["gold reward"]]


def picture(curves: Mapping[str, Mapping[str, Any]]) -> bytes:
    """The figure as a PNG."""
    buffer = io.BytesIO()
    drawn(curves).savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()


def drawn(curves: Mapping[str, Mapping[str, Any]]) -> Any:
    """Gold (solid) and proxy (dashed) over sqrt(KL), a line for each seed, with the fitted forms (dotted, from the mean
    start): of reinforcement learning, means of five steps, and of best-of-n. A figure of matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.4, 4.2), facecolor="white", layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    colours = dict(zip(curves["rl"], ("#D55E00", "#0072B2", "#009E73", "#CC79A7"), strict=False))
    for axes, kind, title in zip(panels, ("rl", "best_of_n"), ("reinforcement learning", "best of n"), strict=True):
        for name, of_seeds in curves[kind].items():
            colour = colours.get(name, "#444444")
            for seed, curve in enumerate(of_seeds):
                plain = (lambda x: x) if kind == "best_of_n" else smoothed
                label = name if seed == 0 else None
                axes.plot(plain(curve["distance"]), plain(curve["gold"]), color=colour, linewidth=1.4, label=label)
                if "proxy" in curve:
                    axes.plot(plain(curve["distance"]), plain(curve["proxy"]), color=colour, linewidth=0.8, ls="--")
            if fit := curves["fits"].get(f"{kind}, {name}"):
                first = np.mean(starts(curves))
                d = np.linspace(_NEAREST, fit["farthest"], 200)
                gain = d * (fit["a"] - fit["b"] * (np.log(d) if kind == "rl" else d))
                axes.plot(d, first + gain, color=colour, linewidth=2.4, ls=":")
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("sqrt(KL) from the warm start, nats of a response", fontsize=9)
        axes.grid(axis="y", color="#e6e8eb", linewidth=0.8)
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8.5)
    panels[0].set_ylabel("gold (solid), learned reward (dashed), fit (dotted)", fontsize=9)
    return figure


def smoothed(values: Sequence[float], width: int = 5) -> list[float]:
    """Means of each value and those before it, at most `width`."""
    return [
        sum(values[max(0, i - width + 1) : i + 1]) / len(values[max(0, i - width + 1) : i + 1])
        for i in range(len(values))
    ]


if __name__ == "__main__":
    main()
