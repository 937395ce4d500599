"""Countdown: reach a target with three numbers from 1 to 9, each used once, by + and -.

The warm start imitates random expressions, of which 10 % are right; reinforcement learning has to find the others.
Noisier and harder than the quickstart, so differences between methods show. A few minutes on 2 CPU cores:

    python -m experiments.sft --config=configs/countdown.py --workdir=runs/countdown/sft
    python -m experiments.train --config=configs/countdown.py --workdir=runs/countdown \\
        --config.init_from=runs/countdown/sft
"""

from configs import base


def get_config():
    config = base.get_config()
    base.set_task(config, "countdown", numbers=3, largest=9, operators="+-", right_share=0.1)
    config.policy.init_scale = 0.125
    config.policy.max_length = 32
    config.rollout.max_prompt_length = 9
    config.rollout.max_response_length = 8
    config.algorithm.minibatches = 4
    config.optimizer.learning_rate = 3e-4
    config.training.num_steps = 150
    return config
