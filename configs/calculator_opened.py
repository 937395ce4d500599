"""A calculator that opens by pass rate, with problems that are too hard without it.

Training begins with products of two one-digit numbers, of which the warm start shows few. Once 0.6 of the samples are
right, the next stage opens: products of two two-digit numbers, with the calculator of the config `calculator`. The warm
start imitates answers to these at once and calls, half of each. docs/curriculum.md has what came of it:

    rlvr sft --config=calculator_opened --workdir=runs/opened/sft
    rlvr train --config=calculator_opened --workdir=runs/opened --config.init_from=runs/opened/sft
"""

from rlvr_jax.configs import base, calculator


def get_config():
    config = calculator.get_config()
    tools = config.tasks.products.environment_options.to_dict()
    easy = {"name": "products", "options": {"digits": (1, 1), "call_share": 0.0}}
    hard = {"name": "products", "options": {"digits": (2, 2)}, "environment": "tools", "environment_options": tools}
    base.set_tasks(config, easy=easy, hard=hard | {"stage": 1})
    config.curriculum.threshold = 0.6
    config.sft.tasks = {"easy": 0.06, "hard": 0.94}
    config.rollout.max_prompt_length = 6
    config.rollout.max_response_length = 24
    config.optimizer.learning_rate = 6e-4
    config.training.num_steps = 100
    config.training.save_every = 100
    config.evaluation.every = 10
    return config
