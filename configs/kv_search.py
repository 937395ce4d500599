"""Search that is learned because it pays: multi-hop questions over key-value worlds, each seen once.

The warm start imitates the format of searches and answers, not when to search or for what
(`rlvr_jax/tasks/key_value.py`). The reward is 1 for the right answer and -0.05 for each search, so that a policy that
always searches twice does worse than one that searches as often as the question asks. Three seeds end with 0.95 to 0.99
of the samples right, by 1.0 searches for questions of one hop and 2.0 for two (docs/environments.md), in 34 to 45 CPU
seconds on 2 cores:

    rlvr sft --config=kv_search --workdir=runs/kv_search/sft
    rlvr train --config=kv_search --workdir=runs/kv_search --config.init_from=runs/kv_search/sft
"""

from rlvr_jax.configs import base


def get_config():
    config = base.get_config()
    world = {"name": "key_value", "environment": "key_value"}
    base.set_tasks(config, one_hop={**world, "options": {"hops": 1}}, two_hops={**world, "options": {"hops": 2}})
    config.reward = (("score", 1.0), ("calls", -0.05))
    config.policy.init_scale = 0.125
    config.policy.max_length = 32
    config.rollout.max_prompt_length = 4
    config.rollout.max_response_length = 28
    config.rollout.max_turn_length = 5
    config.rollout.max_turns = 4
    config.optimizer.learning_rate = 3e-4
    config.sft.num_steps = 600
    config.sft.save_every = 600
    config.training.num_steps = 150
    config.evaluation.pass_problems = 0
    return config
