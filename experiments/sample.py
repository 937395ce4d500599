"""Samples a policy, judges the samples, and writes the good ones as a set to learn from.

    rlvr sample --workdir=runs/quickstart --output=right.jsonl [--problems=512 --samples=8 --most=4]
    rlvr sample --workdir=runs/policy --config=letters --config.reward_models="{'rm': 'runs/rm'}" --by=rm \\
        --keep=best --output=best.jsonl
    rlvr sample --workdir=runs/policy --judges=judges.json --by=spec --least=1 --output=in_character.jsonl

The policy is that of the newest checkpoint of --workdir, or of that of --step; without a workdir it is the one that the
config starts from. Problems, verifiers and rewards are those of --config or, without it, of the run. A run learns from
the file by --config.sft.sources="{'own': {'file': 'right.jsonl'}}"; from pairs by --config.preferences.sources. An
interrupted command goes on where it was: until all problems are finished, OUTPUT.part has those that are.
"""

import sys

from absl import flags

from rlvr_jax.errors import ConfigError

from . import command

_OUTPUT = flags.DEFINE_string("output", None, "JSON Lines file of the set.")
_PROBLEMS = flags.DEFINE_integer("problems", 512, "Training problems that are drawn.", lower_bound=1)
_SAMPLES = flags.DEFINE_integer("samples", 8, "Samples of each problem.", lower_bound=1)
_KEEP = flags.DEFINE_enum(
    "keep", "right", ["right", "best", "pairs"],
    "All right samples, the best one of each problem, or the best and the worst as a pair of preferences.",
)  # fmt: skip
_MOST = flags.DEFINE_integer("most", 0, "Maximum number of right samples kept per problem; 0 for all.", lower_bound=0)
_LEAST = flags.DEFINE_float("least", None, "Keep samples with at least this reward; by default those of score 1.")
_TEMPERATURE = flags.DEFINE_float("temperature", None, "Temperature of the samples; by default that of the config.")
_HINT = flags.DEFINE_string(
    "hint", "", "Wording with {question} and {answer} in which problems without a right sample are asked again."
)
_BY = flags.DEFINE_string("by", "", "Judge or reward model whose score is the reward; that of the config without it.")
_JUDGES = flags.DEFINE_string("judges", None, "JSON file of judges by name, beside those of the config.")
_STEP = flags.DEFINE_integer("step", None, "Step of the checkpoint; the newest by default.", lower_bound=0)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of problems and samples.")
_NUMBER = flags.DEFINE_integer(
    "number", 0, "Index of this set in a loop: each draws the next problems and new samples.", lower_bound=0
)


def main() -> None:
    from rlvr_jax.training.judging import read_judges, scored_by
    from rlvr_jax.training.workdir import read_config

    workdir = command.workdir() if command.FLAGS.workdir else None
    output = command.file_to_write("output", _OUTPUT.value)
    if workdir is None and command.FLAGS.config is None:
        raise ConfigError(
            "give --workdir, for the policy of a run, or --config, for the one that a run would start from"
        )
    config = read_config(workdir) if command.FLAGS.config is None else command.config()
    if workdir is None and not (config.init_from or config.pretrained):
        raise ConfigError("config.pretrained and config.init_from are empty: there is only a random policy to sample")
    if _KEEP.value != "right" and (_MOST.value or _LEAST.value is not None):
        raise ConfigError(f"--most and --least are for --keep=right, not --keep={_KEEP.value}")
    if _KEEP.value == "pairs" and _SAMPLES.value < 2:
        raise ConfigError("--keep=pairs needs --samples of at least 2")
    config = scored_by(config, _BY.value, read_judges(_JUDGES.value) if _JUDGES.value else {})
    with command.pool(config) as pool, command.processes() as processes:
        from rlvr_jax.training.selection import part_of, select, written

        found = select(
            config, workdir, pool, processes, problems=_PROBLEMS.value, samples=_SAMPLES.value, keep=_KEEP.value,
            most=_MOST.value, least=_LEAST.value, temperature=_TEMPERATURE.value, step=_STEP.value, seed=_SEED.value,
            number=_NUMBER.value, hint=_HINT.value, part=part_of(output),
        )  # fmt: skip
    if processes.index > 0:
        return
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr)
    print("\n".join(f"{count:9,} {name}" for name, count in found.counts.items() if count or name == "written"))
    command.write_files({output: written(found, output)})
    part_of(output).unlink(missing_ok=True)
    section = "preferences" if _KEEP.value == "pairs" else "sft"
    print(f"use it with --config.{section}.sources=\"{{'own': {{'file': '{output}'}}}}\"")


if __name__ == "__main__":
    command.define(workdir="Folder of the run whose newest checkpoint is sampled.")
    command.define_processes()
    command.run(main, required=("output",))
