"""A calculator whose use is learned because it pays: two-digit times one-digit numbers.

Half of the demonstrations call the calculator, `<47*8>`, read `376|` and answer `####376`; the others answer at once,
which after so many demonstrations is right for about half of the problems. A call costs 0.1, a right answer earns 1.
docs/tools.md has the numbers, and those of a calculator that works for 30 % of the calls, whose use dies out:

    rlvr sft --config=calculator --workdir=runs/calculator/sft
    rlvr train --config=calculator --workdir=runs/calculator --config.init_from=runs/calculator/sft
"""

from rlvr_jax.configs import base


def get_config():
    config = base.get_config()
    environment = {
        "tools": {"calculator": {}},
        "format": "tags",
        "format_options": {"marks": {"calculator": ("<", ">")}, "observation": "{}|"},
        "instructions": "",  # the demonstrations show the calls
        "failure": "!",
        "reliability": {"calculator": {"works": 1.0, "shows": "garbage"}},
    }
    base.set_tasks(config, products={"environment": "tools", "environment_options": environment})
    config.reward = (("score", 1.0), ("tool_calls", -0.1))
    config.policy.init_scale = 0.125
    config.policy.max_length = 32
    config.rollout.max_prompt_length = 5
    config.rollout.max_response_length = 20
    config.rollout.max_turns = 3
    config.optimizer.learning_rate = 3e-4
    config.sft.num_steps = 600
    config.sft.save_every = 600
    config.training.num_steps = 60
    config.training.save_every = 30
    config.evaluation.every = 5
    config.evaluation.problems = 64
    config.evaluation.pass_problems = 0
    return config
