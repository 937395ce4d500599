"""A calculator that the curriculum introduces, with problems that are too hard without it.

The first 30 steps train on two-digit times one-digit numbers without a tool. From step 31 on there are two two-digit
numbers, too, with the calculator of the config `calculator`. The warm start imitates answers at once to both, and calls
for half of the hard ones. docs/curriculum.md has what came of it:

    rlvr sft --config=calculator_later --workdir=runs/later/sft
    rlvr train --config=calculator_later --workdir=runs/later --config.init_from=runs/later/sft
"""

from rlvr_jax.configs import base, calculator


def get_config():
    config = calculator.get_config()
    tools = config.tasks.products.environment_options.to_dict()
    easy = {"name": "products", "options": {"digits": (2, 1), "call_share": 0.0}}
    hard = {"name": "products", "options": {"digits": (2, 2)}, "environment": "tools", "environment_options": tools}
    base.set_tasks(config, easy=easy, hard=hard | {"steps": (31, 1_000)})
    config.rollout.max_prompt_length = 6
    config.rollout.max_response_length = 24
    config.training.num_steps = 80
    config.training.save_every = 80
    config.evaluation.every = 10
    return config
