"""Calls of the policy by itself, where they pay: the digit sums of three numbers, whose work is longer than a turn.

Half of the problems have three numbers, `a3867b7240c1159=`, and the others one, `a3867=`, whose work fits into a turn
(`rlvr_jax/tasks/digit_sums.py`). The warm start shows how one number is summed, and asks for none, some or all of the
numbers, whether that is needed or not. A right answer earns 1, and a question costs 0.02. docs/long_contexts.md has the
numbers:

    rlvr sft --config=subcalls --workdir=runs/subcalls/sft
    rlvr train --config=subcalls --workdir=runs/subcalls --config.init_from=runs/subcalls/sft
"""

from rlvr_jax.configs import base
from rlvr_jax.tasks.digit_sums import MARKS, OBSERVATION, PROMPT


def get_config():
    config = base.get_config()
    options = {"most": 3, "marks": MARKS, "prompt": PROMPT, "observation": OBSERVATION, "failure": "#"}
    asking = {"name": "digit_sums", "environment": "subcalls", "environment_options": options}
    base.set_tasks(
        config,
        one={**asking, "options": {"numbers": 1}},
        three={**asking, "options": {"numbers": 3}},
        questions={"name": "digit_sums", "options": {"numbers": 3, "show": "questions"}, "weight": 0.0},
    )
    config.reward = (("score", 1.0), ("asks", -0.02))
    config.policy.init_scale = 0.125
    config.policy.max_length = 64
    config.rollout.prompts = 12
    config.rollout.max_prompt_length = 18
    config.rollout.max_response_length = 46
    config.rollout.max_turn_length = 10
    config.rollout.max_turns = 2
    config.rollout.max_sequences = 4
    config.rollout.chunk = 6
    config.optimizer.learning_rate = 3e-4
    config.sft.tasks = {"one": 1.0, "three": 1.0, "questions": 1.5}
    config.sft.batch_size = 64
    config.sft.num_steps = 1000
    config.sft.save_every = 1000
    config.training.num_steps = 100
    config.training.save_every = 100
    config.evaluation.problems = 64
    config.evaluation.pass_problems = 0
    return config
