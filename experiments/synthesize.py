"""New problems with verified answers: a model writes them from examples, and samples or code confirm the answers.

    rlvr synthesize --config=gsm8k --judges=judges.json --name=writer --workdir=runs/gsm8k --heldout=development \\
        --output=made.jsonl
    rlvr synthesize --config=gsm8k --judges=judges.json --name=writer --check=mine:is_right --output=made.jsonl

The writer is a model as judges are (docs/judges.md), and sees training problems of a task of the config. An answer is
confirmed by samples of a policy, that of --workdir or the one that the config starts from, if the task's verifier holds
at least --agree of them right; or by a function of your own. Repeated problems and those that leak held-out ones are
left out. docs/self_training.md describes the file.
"""

from absl import flags

from rlvr_jax.errors import ConfigError, RunError

from . import builtin, command

_JUDGES = flags.DEFINE_string("judges", None, "JSON file of models by name, as of judges.")
_NAME = flags.DEFINE_string("name", "", "Name of the one that writes; may be omitted if there is only one.")
_TASK = flags.DEFINE_string("task", "", "Task of the config whose problems are examples; may be omitted if it has one.")
_PROBLEMS = flags.DEFINE_integer("problems", 256, "Problems to ask for.", lower_bound=1)
_SHOWN = flags.DEFINE_integer("shown", 4, "Examples in a question.", lower_bound=1)
_EACH = flags.DEFINE_integer("each", 4, "Problems to ask for at a time.", lower_bound=1)
_CHECK = flags.DEFINE_string("check", "", "`module:function` of (problem, answer) that confirms, instead of samples.")
_SAMPLES = flags.DEFINE_integer("samples", 8, "Samples of a problem.", lower_bound=1)
_AGREE = flags.DEFINE_float("agree", 0.5, "Least share of samples that are right.", lower_bound=0.0, upper_bound=1.0)
_HELDOUT = flags.DEFINE_string("heldout", None, "Suite whose held-out problems no problem may leak, beside the task's.")
_SEED = flags.DEFINE_integer("seed", 0, "Of examples and samples.")
_OUTPUT = flags.DEFINE_string("output", None, "JSON Lines file of the problems.")


def main() -> None:
    from rlvr_jax.evaluation.suites import Suite
    from rlvr_jax.reporting import jsonl
    from rlvr_jax.training.judging import FOLDER, make_ask, read_judges
    from rlvr_jax.training.pairs import heldout_prompts
    from rlvr_jax.training.problems import make_task
    from rlvr_jax.training.synthesis import by_code, by_samples, synthesise

    config, output = command.config(), command.file_to_write("output", _OUTPUT.value)
    workdir = command.workdir() if command.FLAGS.workdir else None
    judges = read_judges(_JUDGES.value)
    name = one_of("name", _NAME.value, list(judges))
    label = one_of("task", _TASK.value, list(config.tasks))
    if not _CHECK.value and workdir is None and not (config.init_from or config.pretrained):
        raise ConfigError("give --workdir or --config.pretrained, for the policy that confirms answers, or --check")
    suites = [Suite({label: config.tasks[label]}), *([builtin.suite(_HELDOUT.value)] if _HELDOUT.value else [])]
    with command.pool(config) as pool:
        sizes = {"samples": _SAMPLES.value, "seed": _SEED.value}
        file = output.with_name(f"{output.stem}_candidates.jsonl")
        confirm = (
            by_code(_CHECK.value, pool) if _CHECK.value else by_samples(config, label, workdir, pool, file, **sizes)
        )
        heldout = [prompt for suite in suites for prompt in heldout_prompts(config, suite)]
        ask = make_ask(name, judges[name], output.parent / FOLDER)
        found = synthesise(
            make_task(config, label), ask, confirm, heldout, problems=_PROBLEMS.value, shown=_SHOWN.value,
            each=_EACH.value, agree=_AGREE.value, seed=_SEED.value,
        )  # fmt: skip
    print("\n".join(f"{count:9,} {name}" for name, count in found.counts.items() if count or name == "kept"))
    if not found.records:
        raise RunError(f"no problem could be used; {output} is not written")
    command.write_files({output: b"".join(jsonl.encode(row) for row in found.records)})
    print(f"use it with --config.tasks=\"{{'made': {{'file': '{output}', 'verifier': ...}}}}\"")


def one_of(flag: str, given: str, names: list[str]) -> str:
    """The name that a flag gives, or the only one there is. Raises ConfigError for none."""
    name = given or (names[0] if len(names) == 1 else "")
    if name not in names:
        raise ConfigError(f"--{flag}={given}: choose one of {', '.join(names)}")
    return name


if __name__ == "__main__":
    command.define(workdir="Folder of the run whose policy confirms answers.")
    command.run(main, required=("config", "judges", "output"))
