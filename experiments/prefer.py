"""Learning from preferences: DPO and its relatives, or a reward model.

    rlvr prefer --config=letters --workdir=runs/rm --config.preferences.sources="{'mine': {'file': 'mine.jsonl'}}"

`--config.preferences.loss=bradley_terry` trains a reward model, the others the policy. See docs/preferences.md.
"""

from . import command


def main() -> None:
    from rlvr_jax.reporting import jsonl
    from rlvr_jax.training.checkpoints import complete_steps
    from rlvr_jax.training.preferences import prefer

    config, workdir = command.config(), command.workdir()
    with command.processes() as processes:
        before = complete_steps(workdir)
        report = prefer(config, workdir, processes)
    if processes.index > 0:
        return
    if config.preferences.num_steps in before:
        print(f"{workdir} already holds all {config.preferences.num_steps} updates of this run; nothing was trained")
    rows = [row for row in jsonl.read(workdir / "metrics.jsonl") if "eval/preference_accuracy" in row]
    if rows:
        name = "eval/preference_accuracy"
        low, high = rows[-1][f"{name}_low"], rows[-1][f"{name}_high"]
        print(
            f"held-out preference accuracy {rows[0][name]:.3f} -> {rows[-1][name]:.3f} ({low:.3f} to {high:.3f}, "
            f"{rows[-1]['eval/preference_pairs']:.0f} pairs)"
        )
    use = f"config.reward_models=\"{{'rm': '{workdir}'}}\""
    if config.preferences.loss != "bradley_terry":
        use = f"config.init_from={workdir}"
    print(f"use it with --{use}")
    print(f"report: {report}")


if __name__ == "__main__":
    command.define()
    command.define_processes()
    command.run(main)
