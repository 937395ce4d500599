"""A calculator that the curriculum introduces with problems that are too hard without it.

Stage 0 are two-digit times one-digit numbers without a tool. Once the policy answers enough of them, stage 1 opens: two
two-digit numbers, with the calculator of the config `calculator`. The warm start imitates answers at once to both, half
of which are wrong to begin with, and calls for half of the hard ones. docs/curriculum.md has what came of it:

    rlvr sft --config=calculator_later --workdir=runs/later/sft
    rlvr train --config=calculator_later --workdir=runs/later --config.init_from=runs/later/sft
"""

from rlvr_jax.configs import base, calculator


def get_config():
    config = calculator.get_config()
    tools = config.tasks.products.environment_options.to_dict()
    easy = {"name": "products", "options": {"digits": (2, 1), "call_share": 0.0}}
    hard = {"name": "products", "options": {"digits": (2, 2)}, "environment": "tools", "environment_options": tools}
    base.set_tasks(config, easy=easy, hard=hard | {"stage": 1})
    config.curriculum.threshold = 0.7
    config.rollout.max_prompt_length = 6
    config.rollout.max_response_length = 24
    config.training.num_steps = 100
    config.training.save_every = 100
    return config
