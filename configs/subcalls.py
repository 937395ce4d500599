"""Recursive self-calls, where they pay: the digit sums of three numbers, or of one.

The warm start teaches to sum the digits of one number, `3867=174#4`, and the format of questions; it asks for none,
some or all of the numbers of a problem, whether that is needed or not (`rlvr_jax/tasks/digit_sums.py`). Three numbers
at once, `3867.7240.1159=#436`, are out of reach without questions; a single number needs none. A right answer earns 1,
and a question costs 0.05. docs/long_contexts.md has the numbers:

    rlvr sft --config=subcalls --workdir=runs/subcalls/sft
    rlvr train --config=subcalls --workdir=runs/subcalls --config.init_from=runs/subcalls/sft
"""

from rlvr_jax.configs import base
from rlvr_jax.tasks.digit_sums import MARKS, OBSERVATION, PROMPT


def get_config():
    config = base.get_config()
    options = {"most": 3, "marks": MARKS, "prompt": PROMPT, "observation": OBSERVATION, "failure": "#"}
    asking = {"name": "digit_sums", "environment": "subcalls", "environment_options": options}
    tasks = {name: {**asking, "options": {"numbers": numbers}} for name, numbers in (("one", 1), ("three", 3))}
    base.set_tasks(config, **tasks)
    config.reward = (("score", 1.0), ("asks", -0.05))
    config.policy.init_scale = 0.125
    config.policy.max_length = 60
    config.rollout.prompts = 8
    config.rollout.max_prompt_length = 15
    config.rollout.max_response_length = 42
    config.rollout.max_turn_length = 19
    config.rollout.max_turns = 2
    config.rollout.max_sequences = 4
    config.rollout.chunk = 6
    config.optimizer.learning_rate = 3e-4
    config.sft.tasks = {"one": 2.0, "three": 1.0}
    config.sft.batch_size = 64
    config.sft.num_steps = 800
    config.sft.save_every = 800
    config.training.num_steps = 60
    config.training.save_every = 60
    config.evaluation.problems = 64
    config.evaluation.pass_problems = 0
    return config
