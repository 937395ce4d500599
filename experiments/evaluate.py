"""Evaluates a policy on held-out problems: greedy accuracy, and pass@k with 95 % intervals.

    rlvr evaluate --workdir=runs/quickstart [--problems=512 --samples=16 --ks=1,4,16 --seed=0]
    rlvr evaluate --config=gsm8k_qwen3_1p7b --config.pretrained=FOLDER_OR_HUB_ID
    rlvr evaluate --workdir=runs/gsm8k --config=math_qwen25_1p5b

    rlvr evaluate --workdir=runs/gsm8k --suite=development --against=runs/other

The policy is that of the newest checkpoint of --workdir (of reinforcement learning or of a warm start), or of that of
--step; without a workdir it is the one that the config starts from: its `init_from` or `pretrained`. The problems are
those of --suite, of --config or, without either, of the run. Prints a table and writes it, with the result of each
problem, to evaluation.json in the workdir (evaluation_SUITE.json), or to --output. Beside it evaluation.jsonl holds the
responses, and evaluation.html is a page about all of it. docs/evaluation.md lists the suites.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from rlvr_jax.config import Config
from rlvr_jax.errors import ConfigError

from . import builtin, command

if TYPE_CHECKING:
    from rlvr_jax.evaluation.harness import Column
    from rlvr_jax.evaluation.suites import Suite
    from rlvr_jax.training.evaluating import Evaluated

_PROBLEMS = flags.DEFINE_integer("problems", 256, "Held-out problems, answered greedily and sampled.", lower_bound=1)
_SAMPLES = flags.DEFINE_integer("samples", 16, "Samples of each problem, for pass@k; 0 for none.", lower_bound=0)
_KS = flags.DEFINE_list("ks", [], "The k of pass@k, each at most --samples; the powers of two if none is given.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the samples.")
_STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint; the newest without it.", lower_bound=0)
_SUITE = flags.DEFINE_string("suite", None, "Name of a built-in suite of tasks, or a JSON file of one.")
_AGAINST = flags.DEFINE_string(
    "against", None, "Another evaluation of the same problems, or its workdir: differences, problem by problem."
)
_JUDGES = flags.DEFINE_string(
    "judges", None, "JSON file of judges by name, whose scores of the greedy responses are a metric; docs/judges.md."
)
_BEST_BY = flags.DEFINE_list(
    "best_by", [], "Judges and reward models of the config: best@k/NAME is how often the best of k samples is right."
)
_OUTPUT = flags.DEFINE_string("output", None, "JSON file of the numbers, instead of the workdir's evaluation.json.")


def main() -> None:
    from rlvr_jax import own_code
    from rlvr_jax.evaluation.harness import columns, settings_of
    from rlvr_jax.reporting import jsonl, suite_page
    from rlvr_jax.training.judging import read_judges

    config, workdir, suite = _policy_and_tasks()
    _check_samples()
    name = f"evaluation_{Path(_SUITE.value).stem}.json" if suite else "evaluation.json"
    output = command.file_to_write("output", _OUTPUT.value or (workdir and workdir / name), (".jsonl", ".html"))
    against = _against(name) if _AGAINST.value else None
    other = _read(against) if against else None
    if suite and suite.unseen and output and output.exists():
        print(
            f"warning: {output} holds an earlier evaluation of the unseen suite {_SUITE.value}; choices that are made "
            "by its results make a development suite of it",
            file=sys.stderr,
        )
    options = {"problems": _PROBLEMS.value, "samples": _SAMPLES.value, "ks": tuple(map(int, _KS.value))}
    options |= {"step": _STEP.value, "seed": _SEED.value, "best_by": tuple(_BEST_BY.value)}
    options["judges"] = read_judges(_JUDGES.value) if _JUDGES.value else {}
    with command.pool(config) as pool, command.processes() as processes:
        from rlvr_jax.training.evaluating import evaluate_policy

        evaluated = evaluate_policy(config, workdir, pool, processes, **options)
    if processes.index > 0:
        return
    result, notes = evaluated.plain(), evaluated.notes()
    settings = columns(result["values"], settings_of(config.tasks))
    differences = [] if other is None else compared(result["values"], other, evaluated.tasks)
    if against and (edits := own_code.changed(own_code.recorded(against), evaluated.code)):
        notes = [*notes, f"{_AGAINST.value} was made with another version of {', '.join(edits)}"]
    if other is not None and not differences:
        notes = [*notes, f"no metric of a problem is in {_AGAINST.value}, too: there are no differences"]
    policy = f"checkpoint of step {evaluated.step} in {workdir}" if workdir else config.init_from or config.pretrained
    print(f"{policy}; at most {_PROBLEMS.value} held-out problems of each task")
    pages = [f"page: {output.with_suffix('.html')}"] if output else []
    print(*_table(evaluated, settings, [*(f"note: {x}" for x in notes), *pages], differences), sep="\n")
    if output:
        rows, title = evaluated.rows(), f"{_SUITE.value or 'Evaluation'}: {workdir.name if workdir else policy}"
        page = suite_page.page_of(title, policy, result, evaluated.tasks, rows, differences, settings, notes)
        contents = {output: json.dumps(result, indent=1).encode()}
        contents[output.with_suffix(".jsonl")] = b"".join(jsonl.encode(row) for row in rows)
        command.write_files(contents | {output.with_suffix(".html"): page})


def _policy_and_tasks() -> tuple[Config, Path | None, "Suite | None"]:
    """The config with the tasks to evaluate, the run whose policy it is, if any, and the suite, if one is given."""
    from rlvr_jax.evaluation.suites import check_lengths, with_suite
    from rlvr_jax.training.workdir import read_config

    workdir = command.workdir() if command.FLAGS.workdir else None
    if workdir is None and command.FLAGS.config is None:
        raise ConfigError(
            "give --workdir, for the policy of a run, or --config, for the one that a run would start from"
        )
    config = read_config(workdir) if command.FLAGS.config is None else command.config()
    if workdir is None and not (config.init_from or config.pretrained):
        raise ConfigError("config.pretrained and config.init_from are empty: there is only a random policy to evaluate")
    suite = builtin.suite(_SUITE.value) if _SUITE.value else None
    if suite:
        config = with_suite(config, suite, command.overrides("") if command.FLAGS.config is not None else ())
        check_lengths(config)
    return config, workdir, suite


def _check_samples() -> None:
    for flag in (_KS, _BEST_BY):
        if flag.value and not _SAMPLES.value:
            raise ConfigError(f"--{flag.name} is of samples, and --samples=0 takes none")
    if not all(k.isdecimal() and 1 <= int(k) <= _SAMPLES.value for k in _KS.value):
        raise ConfigError(f"--ks={','.join(_KS.value)}: each k must be a number from 1 to --samples={_SAMPLES.value}")


def _table(
    evaluated: "Evaluated",
    settings: Sequence[tuple[str, Sequence["Column"]]],
    remarks: Sequence[str],
    differences: Sequence[Mapping[str, Any]],
) -> Iterator[str]:
    """The lines of the results: means, the same problems in several settings, remarks, costs and differences."""
    found = evaluated.found
    widths = max(16, *map(len, evaluated.tasks)) + 2, max(16, *map(len, found.values)) + 2
    line = lambda task, metric, rest: f"{task:{widths[0]}}{metric:{widths[1]}}{rest}"  # noqa: E731
    yield line("task", "", f"{'mean':>8}   95 % interval")
    rows = {"eval": "all"} if len(evaluated.tasks) > 1 else {}  # else the same numbers twice
    rows |= {f"task/{task}": task for task in evaluated.tasks}
    for group, task in rows.items():
        for metric in (x for x in found.values if f"{group}/{x}" in found.metrics):
            mean, low, high = (found.metrics[f"{group}/{metric}{end}"] for end in ("", "_low", "_high"))
            yield line(task, metric, f"{mean:8.4f}   {low:.4f} to {high:.4f}")
    if settings:
        yield "\nthe same problems in several settings, with the difference from the first"
    for metric, of in settings:
        yield f"{metric:{widths[1]}}" + "   ".join(f"{x.task} {x.mean:.4f}{change(x.difference)}" for x in of)
    yield from remarks
    yield f"{found.tokens:,} tokens sampled in {evaluated.seconds:.0f} seconds, compilation and verification included"
    if differences:
        yield "\n" + line("task", "", f"{'difference':>10}   95 % interval, problem by problem")
    for x in differences:
        shown = f"{x['difference']:+10.4f}   {x['low']:+.4f} to {x['high']:+.4f}  {p_text(x['p'])}"
        yield line(x["task"], x["metric"], f"{shown}, {x['problems']} problems: {x['word']}")


def _against(name: str) -> Path:
    """The file of --against, which in a workdir has this name."""
    path = Path(_AGAINST.value).expanduser()
    file = path / name if path.is_dir() else path
    if not file.exists():
        hint = "; run `rlvr evaluate` there first" if path.is_dir() else ""
        raise ConfigError(f"--against: there is no file {file}{hint}")
    return file


def _read(file: Path) -> Mapping[str, Mapping[str, float]]:
    """The results by metric and problem of an earlier evaluation."""
    try:
        values = json.loads(file.read_text(encoding="utf-8"))["values"]
        return {metric: {str(x): float(y) for x, y in of.items()} for metric, of in values.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ConfigError(f"--against: {file} has no results by problem, as `rlvr evaluate` writes") from error


def p_text(p: float) -> str:
    """`p = 0.030`."""
    return "p < 0.001" if p < 0.0005 else f"p = {p:.3f}"


def change(difference: tuple[float, ...] | None) -> str:
    """` (+0.1000, p = 0.030)`, or nothing."""
    return f" ({difference[0]:+.4f}, {p_text(difference[3])})" if difference else ""


def compared(
    values: Mapping[str, Mapping[str, float]], other: Mapping[str, Any], tasks: Sequence[str]
) -> list[dict[str, Any]]:
    """The differences on the problems that both evaluations have, by task and metric."""
    from rlvr_jax.evaluation import paired_difference

    found = []
    for task in ("all", *tasks)[len(tasks) == 1 :]:
        for metric, of in values.items():
            same = [x for x in of if x in other.get(metric, {}) and (task == "all" or x.startswith(f"{task}: "))]
            if not same:
                continue
            mean, low, high, p = paired_difference([of[x] for x in same], [other[metric][x] for x in same])
            word = "not significant" if p > 0.05 else "better" if mean > 0 else "worse"
            row = {"task": task, "metric": metric, "difference": mean, "low": low, "high": high, "p": p, "word": word}
            found.append(row | {"problems": len(same)})
    return found


if __name__ == "__main__":
    command.define(workdir="Folder of the run whose newest checkpoint is evaluated.")
    command.define_processes()
    command.run(main, required=())
