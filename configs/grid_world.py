"""A grid world in text: to a goal of which only the direction is known, past walls.

The warm start imitates random walks (`rlvr_jax/tasks/grid_world.py`). The reward is 1 at the goal, and -0.02 for each
move.

    rlvr sft --config=grid_world --workdir=runs/grid_world/sft
    rlvr train --config=grid_world --workdir=runs/grid_world --config.init_from=runs/grid_world/sft
"""

from rlvr_jax.configs import base


def get_config():
    config = base.get_config()
    base.set_tasks(config, grid_world={"environment": "grid_world", "options": {"size": 5, "walls": 5}})
    config.reward = (("score", 1.0), ("moves", -0.02))
    config.policy.init_scale = 0.125
    config.policy.max_length = 96
    config.rollout.max_prompt_length = 7
    config.rollout.max_response_length = 88
    config.rollout.max_turn_length = 2
    config.rollout.max_turns = 10
    config.optimizer.learning_rate = 1e-3
    config.sft.num_steps = 100
    config.sft.save_every = 100
    config.training.num_steps = 100
    config.evaluation.problems = 128
    config.evaluation.pass_problems = 0
    return config
