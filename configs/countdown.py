"""Countdown: reach a target with three numbers from 1 to 9, each used once, by + and -.

The warm start imitates random expressions, half of them correct; reinforcement learning has to find the others. It is
noisier and harder than the quickstart, so differences between methods show. Seed 0, on 2 CPU cores: held-out greedy
accuracy from 0.44 to 0.63 in 150 steps, in about a minute for both commands:

    rlvr sft --config=countdown --workdir=runs/countdown/sft
    rlvr train --config=countdown --workdir=runs/countdown \\
        --config.init_from=runs/countdown/sft

With fewer correct demonstrations (`--config.tasks.countdown.options.right_share=0.1`) the policy converges to adding
all numbers, which is correct for 0.375 of the problems.
"""

from rlvr_jax.configs import base


def get_config():
    config = base.get_config()
    options = {"numbers": 3, "largest": 9, "operators": "+-", "right_share": 0.5}
    base.set_tasks(config, countdown={"options": options})
    config.policy.init_scale = 0.125
    config.policy.max_length = 32
    config.rollout.prompts = 32
    config.rollout.max_prompt_length = 9
    config.rollout.max_response_length = 8
    config.algorithm.kl_coef = 0.02
    config.algorithm.reference = "initial"
    config.algorithm.minibatches = 4
    config.optimizer.learning_rate = 3e-4
    config.training.num_steps = 150
    return config
