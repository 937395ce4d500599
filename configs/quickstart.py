"""ModSum: digit sums modulo 10, in which reinforcement learning moves a policy to a scratchpad.

A policy of 75 thousand parameters learns from demonstrations, of which 60 % answer at once and 40 % write the running
sums first. In that time it can learn only the second, so it fails most problems greedily, though nearly every problem
is solved by one sample in eight. GRPO then moves it to the running sums: held-out greedy accuracy goes
from under 0.35 to at least 0.97, and responses grow from 3 to 8 tokens. About half a minute on 2 CPU cores:

    make quickstart
"""

from rlvr_jax.configs import base


def get_config():
    config = base.get_config()
    base.set_tasks(config, modsum={"options": {"digits": 6, "direct_share": 0.6}})
    config.policy.init_scale = 0.125
    config.policy.max_length = 32
    config.rollout.max_prompt_length = 7
    config.rollout.max_response_length = 10
    config.optimizer.learning_rate = 3e-4
    config.sft.num_steps = 700
    config.training.num_steps = 40
    config.training.save_every = 20
    config.evaluation.every = 5
    return config
