"""The scores of a judge for completions of a file, or its biases.

    rlvr judge --judges=judges.json --name=helpful --input=completions.jsonl --output=scores.jsonl
    rlvr judge --judges=judges.json --name=helpful --bias

Input lines have `prompt` (text or messages), `completion` and optionally `reference`; output lines repeat them with
`score`, `parts`, `reason` and `error`. --bias measures on a fixture how much the judge prefers the response that it
sees first, and a padded response. docs/judges.md describes judges.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

from absl import flags

from rlvr_jax.errors import ConfigError

from . import command

_JUDGES = flags.DEFINE_string("judges", None, "JSON file of judges by name.")
_NAME = flags.DEFINE_string("name", "", "Name of the judge; may be omitted if there is only one.")
_INPUT = flags.DEFINE_string("input", None, "JSON Lines file of samples to judge.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON Lines file of the scores.")
_BIAS = flags.DEFINE_bool("bias", False, "Measure the biases of the judge instead.")
_PAIRS = flags.DEFINE_integer("pairs", 24, "Problems of the fixture.", lower_bound=2)


def main() -> None:
    from rlvr_jax.judges.bias import compared_bias, fixture, scored_bias
    from rlvr_jax.judges.judge import make_comparer, make_judge
    from rlvr_jax.reporting import jsonl
    from rlvr_jax.training.judging import FOLDER, make_ask, read_judges

    judges = read_judges(_JUDGES.value)
    name = _NAME.value or (next(iter(judges)) if len(judges) == 1 else "")
    if name not in judges:
        raise ConfigError(f"--name={name or ''}: choose a judge; {_JUDGES.value} has {', '.join(judges)}")
    if not _BIAS.value and not (_INPUT.value and _OUTPUT.value):
        raise ConfigError("give --input and --output, or --bias")
    output = command.file_to_write(
        "output", _OUTPUT.value, read=[Path(_INPUT.value).expanduser()] if _INPUT.value else ()
    )
    samples, rows = ([], []) if _BIAS.value else read(Path(_INPUT.value).expanduser())
    ask = make_ask(name, judges[name], (output or Path()).parent / FOLDER if output else None)
    if _BIAS.value:
        known, plain = fixture(_PAIRS.value), dataclasses.replace(judges[name], rubric="")
        found = {"pairs": compared_bias(make_comparer(plain, ask), known)}
        found["single samples"] = scored_bias(make_judge(plain, ask, name), known)
        for kind, numbers in found.items():
            print(f"{name}, {kind}")
            for key, value in numbers.items():
                if not key.endswith(("_low", "_high")):
                    ends = [numbers.get(f"{key}{end}") for end in ("_low", "_high")]
                    print(f"  {key:14}{value:8.3f}" + ("" if None in ends else f"   {ends[0]:.3f} to {ends[1]:.3f}"))
        if output:
            command.write_files({output: json.dumps(found, indent=1).encode()})
        return
    verdicts = make_judge(judges[name], ask, name)(samples)
    told = [
        row | {"score": None if x.error else x.score, "parts": x.parts, "reason": x.reason, "error": x.error}
        for row, x in zip(rows, verdicts, strict=True)
    ]
    scores = [x.score for x in verdicts if x.error is None]
    mean = f"mean score {sum(scores) / len(scores):.4f}, " if scores else ""
    print(f"{len(verdicts)} completions: {mean}{len(verdicts) - len(scores)} unjudged")
    command.write_files({output: b"".join(jsonl.encode(row) for row in told)})


def read(path: Path) -> tuple[list[Any], list[dict[str, Any]]]:
    """The samples of a file and its rows. Raises ConfigError that names a wrong line."""
    from rlvr_jax.judges.judge import Sample

    samples, rows = [], []
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"--input={path}: {error.strerror}") from error
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            prompt, completion = row["prompt"], row["completion"]
            if not isinstance(prompt, str | list) or not isinstance(completion, str):
                raise TypeError("prompt is text or messages, completion text")
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path}, line {number}: no record with prompt and completion: {error!r}") from error
        samples.append(Sample(prompt, completion, row.get("reference")))
        rows.append(row)
    return samples, rows


if __name__ == "__main__":
    command.run(main, required=("judges",))
