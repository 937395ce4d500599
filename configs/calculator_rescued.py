"""A calculator that fails until step 30, and what keeps its use alive until it is mended.

The task `failing` is trained on: its calculator works for three of ten calls and otherwise answers with other digits,
and from step 31 on it always works. `mended` has the same problems with one that always works, for evaluation alone.
Each rescue is a change of one key:

    rlvr sweep --config=calculator_rescued --one_at_a_time --metric=task/mended/greedy_accuracy --grid="\\
        reward=(('score',1.0),('tool_calls',-0.1),('rlvr_jax.configs.calculator_rescued:early_call',0.3));\\
        tasks.failing.environment_options.unjudged=('unreliable',);\\
        tasks.failing.environment_options.reliability.calculator.works=((0,0.3),(60,1.0)),1.0;seed=0..2"

A bonus of 0.3 for a call before step 60; samples whose call failed left out of baseline and loss; a reliability that
rises in a line; and a calculator that works from the start. docs/curriculum.md has what came of it.
"""

from rlvr_jax.configs import base, calculator

BONUS_STEPS = 60


def early_call(verdict, episode):
    """1 for an episode with a call, of a policy that has had fewer than `BONUS_STEPS` training steps."""
    versions = [span.version for span in episode.sequences[0].spans if span.author == "policy"]
    return float(verdict.parts.get("tool_calls", 0) > 0 and max(versions) < BONUS_STEPS)


def get_config():
    config = calculator.get_config()
    mended = config.tasks.products.to_dict() | {"name": "products", "weight": 0.0}
    reliability = {"calculator": {"works": ((29, 0.3), (30, 1.0)), "shows": "garbage"}}
    options = mended["environment_options"] | {"reliability": reliability, "unjudged": ()}
    base.set_tasks(config, failing=mended | {"environment_options": options, "weight": 1.0}, mended=mended)
    config.training.num_steps = 90
    config.training.save_every = 90
    config.evaluation.every = 10
    return config
