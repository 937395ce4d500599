"""Reports training prompts that leak evaluation prompts: equal, equal up to numbers, or sharing n-grams.

    rlvr decontaminate --config=gsm8k
    rlvr decontaminate --train=gsm8k,math --heldout=math --manual_dir=data --report=matches.jsonl
    rlvr decontaminate --train=mine.jsonl.gz:problem --heldout=gsm8k --report=matches.md

With a config, the training problems of its tasks are compared with their held-out problems. Otherwise --train and
--heldout list tasks (optionally with another split, as in math:train) or JSON Lines files with the field of the text.
Prints Markdown; a report that ends in .jsonl has one match per line. rlvr_jax/tasks/decontamination.py explains the
kinds of matches.
"""

import dataclasses
import gzip
import json
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from absl import flags
from ml_collections import config_flags

from rlvr_jax.config import DataConfig
from rlvr_jax.errors import ConfigError

from . import command

if TYPE_CHECKING:
    from rlvr_jax.tasks import Task
    from rlvr_jax.tasks.decontamination import Match

config_flags.DEFINE_config_file("config", None, "Name or file of a config, instead of --train and --heldout.")
_TRAIN = flags.DEFINE_list("train", [], "Tasks, TASK:SPLIT, or FILE.jsonl:FIELD (also .gz), separated by commas.")
_HELDOUT = flags.DEFINE_list("heldout", [], "The same for the evaluation problems.")
_DATA_DIR = flags.DEFINE_string("data_dir", DataConfig().data_dir, "Folder of prepared data sets.")
_MANUAL_DIR = flags.DEFINE_string(
    "manual_dir", "", "Folder with the original files of data sets, for use without network."
)
_EXAMPLES = flags.DEFINE_integer("examples", 10_000, "Number of problems of an unbounded task.", lower_bound=1)
_NGRAM = flags.DEFINE_integer("ngram", 8, "Words of an n-gram.")
_THRESHOLD = flags.DEFINE_float("overlap", 0.5, "Minimum share of the held-out prompt's n-grams.")
_BOILERPLATE = flags.DEFINE_float("boilerplate", 0.01, "Text in more than this share of a set is ignored.")
_SHOW = flags.DEFINE_integer("show", 20, "Matches of each pair of sources that Markdown lists.", lower_bound=0)
_REPORT = flags.DEFINE_string("report", None, "File ending in .md or .jsonl; standard output if not given.")

Prompts = list[tuple[str, str]]  # (id, text)


def main() -> None:
    from rlvr_jax.reporting.progress import bar
    from rlvr_jax.tasks.decontamination import find_matches

    report = Path(_REPORT.value).expanduser() if _REPORT.value else None
    if report and (report.suffix not in (".md", ".jsonl") or not report.parent.is_dir()):
        raise ConfigError(f"--report={report}: must end in .md or .jsonl, in a folder that exists")
    if not (0 < _THRESHOLD.value <= 1 and 0 <= _BOILERPLATE.value <= 1 and _NGRAM.value >= 1):
        raise ConfigError("--overlap must be in (0, 1], --boilerplate in [0, 1], --ngram at least 1")
    train, heldout = _sources()
    found = []
    with bar(len(train) * sum(map(len, heldout.values())), 0, "compare", "prompt") as progress:
        for train_name, train_prompts in train.items():
            for heldout_name, prompts in heldout.items():
                matches = find_matches(
                    train_prompts, prompts, _NGRAM.value, _THRESHOLD.value, _BOILERPLATE.value, progress.update
                )
                found.append((train_name, heldout_name, len(train_prompts), len(prompts), matches))
    text = markdown(found, _SHOW.value)
    print(text if report is None else text.partition("\n\n##")[0])
    if report:
        lines = [json.dumps(dataclasses.asdict(match)) + "\n" for *_, matches in found for match in matches]
        command.write_files({report: (text if report.suffix == ".md" else "".join(lines)).encode()})


def markdown(found: "Sequence[tuple[str, str, int, int, list[Match]]]", show: int) -> str:
    """The report of (training source, held-out source, prompts of each, matches): a table, then `show` matches each."""
    from rlvr_jax.tasks.decontamination import KINDS

    lines = [
        "Held-out prompts leaked by training prompts, each counted under its strongest match.",
        "",
        f"| training (prompts) | held out (prompts) | {' | '.join(KINDS)} |",
        f"|---|---|{'---|' * len(KINDS)}",
    ]
    for train, heldout, num_train, num_heldout, matches in found:
        counts = Counter({match.heldout_id: match.kind for match in reversed(matches)}.values())
        numbers = " | ".join(str(counts[kind]) for kind in KINDS)
        lines.append(f"| {train} ({num_train}) | {heldout} ({num_heldout}) | {numbers} |")
    for train, heldout, _, _, matches in found:
        ranked = sorted(matches, key=lambda match: (KINDS.index(match.kind), -match.overlap))
        if ranked[:show]:
            lines += ["", f"## {train} in {heldout}", ""]
            lines += ["| held out | training | kind | overlap | longest shared text |", "|---|---|---|---|---|"]
        for match in ranked[:show]:
            shared = match.shared.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")
            lines.append(f"| {match.heldout_id} | {match.train_id} | {match.kind} | {match.overlap:.2f} | {shared} |")
        if len(ranked) > show > 0:
            lines += ["", f"{len(ranked) - show} more matches; a report that ends in .jsonl holds all."]
    return "\n".join(lines)


def _sources() -> tuple[dict[str, Prompts], dict[str, Prompts]]:
    """The training and the held-out prompts, by the names of their sources."""
    if flags.FLAGS.config is not None:
        if _TRAIN.value or _HELDOUT.value:
            raise ConfigError("give either --config or --train and --heldout")
        config = command.config()
        tasks = {
            label: _task(record.name or label, record.options, config.data.data_dir, config.data.manual_dir)
            for label, record in config.tasks.items()
        }
        trained = [label for label, record in config.tasks.items() if record.weight > 0]
        return (
            {f"{label}:train": _prompts(tasks[label], "train") for label in trained},
            {f"{label}:heldout": _prompts(task, "heldout") for label, task in tasks.items()},
        )
    if not (_TRAIN.value and _HELDOUT.value):
        raise ConfigError("give --config, or both --train and --heldout")
    return (
        {source: _source(source, "train") for source in _TRAIN.value},
        {source: _source(source, "heldout") for source in _HELDOUT.value},
    )


def _source(source: str, split: str) -> Prompts:
    name, _, detail = source.rpartition(":") if ":" in source else (source, "", "")
    if name.endswith((".jsonl", ".jsonl.gz")):
        if not detail:
            raise ConfigError(f"{source}: name the field of the text, as in {name}:problem")
        return list(_file_prompts(Path(name).expanduser(), detail))
    split = detail or split
    if split not in ("train", "heldout"):
        raise ConfigError(f"{source}: the splits of a task are train and heldout")
    return _prompts(_task(name, {}, _DATA_DIR.value, _MANUAL_DIR.value), split)


def _task(name: str, options: dict, data_dir: str, manual_dir: str) -> "Task":
    from rlvr_jax.tasks import make_task

    try:
        return make_task(name, options, data_dir, manual_dir)
    except ValueError as error:
        raise ConfigError(f"task {name}: {error}") from error


def _prompts(task: "Task", split: str) -> Prompts:
    from rlvr_jax.reporting.progress import bar

    number = task.num_examples(split)
    number = _EXAMPLES.value if number is None else number
    prompts = []
    with bar(number, 0, f"read {task.name}", "prompt") as progress:
        for index in range(number):
            example = task.example(split, index)
            prompts.append((example.id, example.prompt))
            progress.update()
    return prompts


def _file_prompts(path: Path, field: str) -> Iterator[tuple[str, str]]:
    number = 0
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                text = json.loads(line)[field]
                if not isinstance(text, str):
                    raise TypeError
                yield f"{path.name}:{number}", text
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such file") from error
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ConfigError(f"{path}, line {number}: not a JSON record with {field!r} as text") from error
    except (OSError, EOFError, zlib.error) as error:
        raise ConfigError(f"{path} can't be read after line {number}: {error}") from error


if __name__ == "__main__":
    command.run(main, required=())
