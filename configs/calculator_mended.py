"""A calculator that fails early and is then mended: a schedule by `steps`, of two tasks with the same problems.

Until step 30 the calculator works for three of ten calls and otherwise answers with other digits; from step 31 on it
always works. Calls die out by step 30 (0.5 to 0.06 a sample, mean of seeds 0 to 2) and are not back at step 90 (0.12),
so nothing is learned from the mended one: held-out greedy accuracy is 0.19, and 0.995 where it works from the start.
Twelve runs, warm starts included, in 4 CPU minutes on 2 cores of an AMD EPYC:

    rlvr sweep --config=calculator_mended --metric=task/late/greedy_accuracy \\
        --grid="tasks.early.environment_options.reliability.calculator.works=1.0,0.3;seed=0..2"
"""

from rlvr_jax.configs import base, calculator


def get_config():
    config = calculator.get_config()
    late = config.tasks.products.to_dict() | {"name": "products", "steps": (31, 1_000)}
    reliability = {"calculator": {"works": 0.3, "shows": "garbage"}}
    failing = late["environment_options"] | {"reliability": reliability}
    base.set_tasks(config, early=late | {"environment_options": failing, "steps": (1, 30)}, late=late)
    config.sft.tasks = {"late": 1.0}
    config.training.num_steps = 90
    config.training.save_every = 90
    config.evaluation.every = 10
    return config
