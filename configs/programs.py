"""Programs: reward hacking in a minute. Unit tests that are visible are passed by a table of their outputs.

A policy of 87 thousand parameters writes an expression in `x` from three of its values. Its reward is that all visible
tests pass; accuracy, which is logged beside it, is that of seven hidden tests. Other rewards are a line each:

    rlvr sft --config=programs --workdir=runs/programs/sft
    rlvr train --config=programs --workdir=runs/programs --config.init_from=runs/programs/sft
    rlvr train --config=programs --workdir=runs/hidden --config.init_from=runs/programs/sft \\
        --config.reward="(('score', 1.0),)"

"""

from rlvr_jax.configs import base


def get_config():
    config = base.get_config()
    base.set_tasks(config, programs={})
    config.reward = (("all_visible", 1.0),)
    config.policy.init_scale = 0.125
    config.policy.max_length = 48
    config.rollout.max_prompt_length = 24
    config.rollout.max_response_length = 16
    config.algorithm.minibatches = 2
    config.optimizer.learning_rate = 3e-4
    config.sft.num_steps = 700
    config.sft.batch_size = 32
    config.training.num_steps = 60
    config.evaluation.every = 10
    return config
