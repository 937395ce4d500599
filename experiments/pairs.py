"""Preference pairs for `rlvr prefer`: several policies answer the same training problems, and the answers are scored.

    rlvr pairs --policies=runs/sft,runs/rl --output=pairs.jsonl
    rlvr pairs --policies=runs/sft,SmolLM2=HuggingFaceTB/SmolLM2-135M-Instruct --judges=judges.json --by=helpful \\
        --heldout=development --output=pairs.jsonl

A policy is the workdir of a run or a checkpoint, and may have a name. Scores are the verifier's, or with --by those of
a judge or a reward model. Of each problem the best answer is paired with the worst (or a random other one); ties and
what can't be judged are left out and counted. docs/preferences.md describes the file.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags

from rlvr_jax.errors import ConfigError

from . import builtin, command

_POLICIES = flags.DEFINE_list("policies", [], "Workdirs or checkpoints, or NAME=them, separated by commas.")
_BY = flags.DEFINE_string("by", "", "Name of the judge or reward model that scores; the verifier without it.")
_JUDGES = flags.DEFINE_string("judges", None, "JSON file of judges by name, beside those of the config.")
_REWARD_MODEL = flags.DEFINE_string("reward_model", None, "Workdir or export of a reward model, whose scores are used.")
_PROBLEMS = flags.DEFINE_integer("problems", 256, "Training problems.", lower_bound=1)
_SAMPLES = flags.DEFINE_integer("samples", 4, "Answers per policy and problem.", lower_bound=1)
_TEMPERATURE = flags.DEFINE_float("temperature", 1.0, "Temperature of the answers.", lower_bound=0.0)
_REJECTED = flags.DEFINE_enum("rejected", "worst", ["worst", "random"], "The answer that the best one is paired with.")
_HELDOUT = flags.DEFINE_string("heldout", None, "Suite whose held-out problems no pair may leak.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of problems, answers, and choices among equals.")
_OUTPUT = flags.DEFINE_string("output", None, "File of the pairs.")


def main() -> None:
    import dataclasses

    from rlvr_jax.evaluation.pairs import binarised
    from rlvr_jax.reporting import jsonl
    from rlvr_jax.training.judging import FOLDER, read_judges
    from rlvr_jax.training.pairs import asked_of, config_of, is_run, leaked, sampled
    from rlvr_jax.training.workdir import read_config

    output, policies = command.file_to_write("output", _OUTPUT.value), named(_POLICIES.value)
    if command.FLAGS.config is not None:
        base = command.config()
    else:
        run = next((source for source in policies.values() if is_run(source)), None)
        if run is None:
            raise ConfigError("--policies names no run whose tasks could be taken; give --config")
        base = read_config(Path(run).expanduser())
    judges, models, by = read_judges(_JUDGES.value) if _JUDGES.value else {}, {}, _BY.value
    if _REWARD_MODEL.value:
        if by:
            raise ConfigError("give either --by or --reward_model")
        models, by = {"reward_model": _REWARD_MODEL.value}, "reward_model"
    base = dataclasses.replace(base, judges={**base.judges, **judges}, reward_models={**base.reward_models, **models})
    configs = {name: config_of(source, base, by) for name, source in policies.items()}
    suite = builtin.suite(_HELDOUT.value) if _HELDOUT.value else None
    sizes: dict[str, Any] = {"problems": _PROBLEMS.value, "samples": _SAMPLES.value, "seed": _SEED.value}
    with command.pool(base) as pool, command.processes() as processes:
        options = {"temperature": _TEMPERATURE.value, "folder": output.parent / FOLDER}
        groups = {
            name: sampled(configs[name], source, pool, processes, **sizes, **options)
            for name, source in policies.items()
        }
    if processes.index > 0:
        return
    leaks = leaked(next(iter(groups.values())), base, suite) if suite else {}
    made = binarised(asked_of(groups, by, leaks), _REJECTED.value, _SEED.value)
    print(table(made.sources))
    print(f"{len(made.rows)} pairs; left out: " + ", ".join(f"{n} {why}" for why, n in made.left_out.items()))
    command.write_files({output: b"".join(jsonl.encode(row) for row in made.rows)})
    print(f"use them with --config.preferences.sources=\"{{'pairs': {{'file': '{output}'}}}}\"")


def named(sources: list[str]) -> dict[str, str]:
    """Policies by name, of NAME=SOURCE or SOURCE. Raises ConfigError if there are none, or two have one name."""
    found: dict[str, str] = {}
    for text in sources:
        name, equals, source = text.rpartition("=")
        name = name if equals else Path(source).name
        if not source or name in found:
            raise ConfigError(f"--policies: {text!r} has no source, or the name of another; use NAME=SOURCE")
        found[name] = source
    if not found:
        raise ConfigError("--policies is empty: name workdirs of runs, or checkpoints")
    return found


def table(sources: Mapping[str, Mapping[str, float]]) -> str:
    """The table of sources."""
    lines = [f"{'policy':24}{'answers':>9}{'unjudged':>10}{'score':>9}{'tokens':>9}{'chosen':>8}{'rejected':>10}"]
    for name, x in sources.items():
        numbers = f"{x['responses']:9.0f}{x['unjudged']:10.0f}{x['score']:9.3f}{x['length']:9.1f}"
        lines.append(f"{name:24}{numbers}{x['chosen']:8.0f}{x['rejected']:10.0f}")
    return "\n".join(lines)


if __name__ == "__main__":
    command.define(workdir="")
    command.define_processes()
    command.run(main, required=("policies", "output"))
