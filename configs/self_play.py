"""Self-play: tic-tac-toe against itself, evaluated against an opponent that plays at random.

Each game of the task `self_play` gives two samples, one for each role, and advantages compare the samples of a role.
The task `against_random` is evaluated alone; there a draw counts as right, so its accuracy is the share of games that
are not lost. The warm start imitates random moves. docs/environments.md says how far it has come.

    rlvr sft --config=self_play --workdir=runs/self_play/sft
    rlvr train --config=self_play --workdir=runs/self_play --config.init_from=runs/self_play/sft
"""

from rlvr_jax.configs import base


def get_config():
    config = base.get_config()
    game = {"name": "tic_tac_toe", "options": {"plies": 4}, "environment": "tic_tac_toe"}
    random = {"environment_options": {"opponent": "random"}, "verifier_options": {"draw": 1.0}, "weight": 0.0}
    base.set_tasks(config, self_play=game, against_random=game | random)
    config.reward = (("score", 1.0), ("illegal", -1.0))
    config.policy.init_scale = 0.125
    config.policy.max_length = 72
    config.rollout.prompts = 8
    config.rollout.group_size = 16
    config.rollout.max_prompt_length = 10
    config.rollout.max_response_length = 56
    config.rollout.max_turn_length = 2
    config.rollout.max_turns = 5
    config.optimizer.learning_rate = 1e-3
    config.sft.num_steps = 600
    config.sft.save_every = 600
    config.training.num_steps = 150
    config.training.save_every = 150
    config.evaluation.every = 25
    config.evaluation.problems = 256
    config.evaluation.pass_problems = 0
    return config
